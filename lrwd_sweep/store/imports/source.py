"""A source of runs as the user names it, and the choice of rows in its table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lrwd_sweep.errors import UsageError, arg, shown
from lrwd_sweep.store.imports.run_table import RunTable, as_texts, distinct, is_number, number, some

_PLURAL = {"study": "studies", "experiment": "experiments"}


@dataclass(frozen=True, slots=True)
class ImportSource:
    """A file, folder or database URL, and the options that a reader may need."""

    name: str
    template: str = ""  # names of files or runs with {lr}, {weight_decay}, …
    columns: Mapping[str, str] = field(default_factory=dict)  # known name → column
    metric: str = "value"
    best: bool = False  # take the best value of a learning curve, not the last
    maximize: bool = False  # the best is the highest

    @property
    def path(self) -> Path:
        """The source as a path, if it is none of a database."""
        return Path(self.name)

    def value_of(self, curve: Sequence[float]) -> float:
        """Return the value of a run with this learning curve (without empty entries)."""
        finite = [value for value in curve if not math.isnan(value)]
        if not self.best or math.isnan(curve[-1]):  # one that ends in NaN diverged
            return curve[-1]
        return max(finite) if self.maximize else min(finite)


def rows_of(table: RunTable, where: Sequence[tuple[str, str]]) -> RunTable:
    """Return the table with the rows in which every column has its value. Raises UsageError for none."""
    for name, value in where:
        column = table.get(name, "where")
        k = table.header.index(column)
        equal = {text: _equal(text, value) for text in distinct(table.texts[k])} | {"": _equal("", value)}
        kept = np.array([equal[text] for text in table.texts[k]], dtype=bool)
        ragged = [row for row in table.ragged if len(row[1]) > k and _equal(row[1][k], value)]
        if not kept.any() and not ragged:
            known = distinct([*table.texts[k], *(row[1][k] for row in table.ragged if len(row[1]) > k)])
            raise UsageError(
                f"{table.path}: {arg('where', f'{name}={value}')}: no run has {shown(value)} in column "
                f"{shown(column)}; it holds {some(map(shown, known))}"
            )
        table = table.select(kept, ragged)
    return _without_empty(table) if where else table


def _without_empty(table: RunTable) -> RunTable:
    """Return the table without columns that belong to other runs than those that were chosen."""
    if table.ragged:
        return table
    used = [k for k, texts in enumerate(table.texts) if any(texts)]
    return replace(table, header=[table.header[k] for k in used], texts=[table.texts[k] for k in used])


def open_scope(table: RunTable) -> list[str]:
    """Return the studies or experiments of the source between which to choose; [] if there is one."""
    if not table.scope or table.scope not in table.header:
        return []
    found = distinct(table.texts[table.header.index(table.scope)])
    return found if len(found) > 1 else []


def one_scope(table: RunTable) -> RunTable:
    """Return the table. Raises UsageError if it holds the runs of several studies or experiments."""
    if names := open_scope(table):
        one, word = arg("where", f"{table.scope}={names[0]}"), _PLURAL.get(table.scope, "")
        raise UsageError(
            f"{table.path} holds {len(names)} {word} ({some(map(shown, names))}); choose one as "
            f"{one}, or import a study of each with {arg('by', table.scope)}"
        )
    return table


def split(table: RunTable, by: str) -> Iterator[tuple[str, RunTable]]:
    """Yield each value of a column and its table; a run without a value is in none. Raises UsageError."""
    column = table.get(by, "by")
    _refuse_ragged(table)
    texts = table.texts[table.header.index(column)]
    without = int(np.count_nonzero(texts == ""))
    values = sorted(distinct(texts), key=_order)
    if not values:
        raise UsageError(f"{table.path}: {arg('by', by)}: column {shown(column)} is empty in every row")
    notes = (f"{without} runs without {by} are left out",) * bool(without)
    code = {"": -1} | {value: k for k, value in enumerate(values)}
    codes = np.array([code[text] for text in texts])
    order = np.argsort(codes, kind="stable")
    rows = np.split(order, np.searchsorted(codes[order], range(len(values))))[1:]  # the first has no value
    for k, value in enumerate(values):
        chosen = replace(table.select(rows[k]), notes=(*table.notes, *notes * (k == 0)))
        yield value, _without_empty(chosen)


def _refuse_ragged(table: RunTable) -> None:
    for place, texts in table.ragged[:1]:
        table.refuse([f"{place}: there are {len(texts)} fields under a header of {len(table.header)}"])


def joined(tables: Sequence[RunTable]) -> RunTable:
    """Return one table of the runs of several sources, which a column `file` tells apart."""
    if len(tables) == 1:
        return tables[0]
    header = list(dict.fromkeys(column for table in tables for column in table.header))
    for table in tables:
        _refuse_ragged(table)
    sizes = [len(table.places) for table in tables]
    found = [table.columns() for table in tables]
    texts = [
        np.concatenate(
            [
                texts.get(column, np.full(size, "", dtype=object))
                for texts, size in zip(found, sizes, strict=True)
            ]
        )
        for column in header
    ]
    stems = [Path(table.path).stem for table in tables]
    texts.append(np.repeat(as_texts(stems), sizes))
    places = as_texts(
        [f"{table.path}: {table.place(k)}" for table in tables for k in range(len(table.places))]
    )
    settings = frozenset().union(*(table.settings for table in tables))
    notes = dict.fromkeys(note for table in tables for note in table.notes)
    progress = next((table.progress for table in tables if table.progress), "")
    name = "file" if "file" not in header else "file of the import"
    scope = next((table.scope for table in tables if table.scope), "")
    path, measured = f"{len(tables)} files", tables[0].measured
    curves = {
        (f"{table.path}: {place}", column): curve
        for table in tables
        for (place, column), curve in table.curves.items()
    }
    return RunTable(
        *(path, [*header, name], texts, places, (), settings, progress, scope, tuple(notes), measured),
        curves=curves,
    )


def _equal(text: str, value: str) -> bool:
    return text == value or (is_number(text) and is_number(value) and number(text) == number(value))


def _order(value: str) -> tuple[float, str]:
    return (number(value) if is_number(value) else float("inf"), value)
