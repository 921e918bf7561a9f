"""A source of runs as the user names it, and the choice of rows in its table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lrwd_sweep.errors import UsageError, arg, shown
from lrwd_sweep.store.imports.run_table import RunTable, distinct, is_number, number, some

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
        kept = [row for row in table.rows if len(row[1]) > k and _equal(row[1][k], value)]
        if not kept:
            known = distinct(row[1][k] for row in table.rows if len(row[1]) > k)
            raise UsageError(
                f"{table.path}: {arg('where', f'{name}={value}')}: no run has {shown(value)} in column "
                f"{shown(column)}; it holds {some(map(shown, known))}"
            )
        table = replace(table, rows=kept)
    return _without_empty(table) if where else table


def _without_empty(table: RunTable) -> RunTable:
    """Return the table without columns that belong to other runs than those that were chosen."""
    if any(len(texts) != len(table.header) for _, texts in table.rows):
        return table
    used = [k for k in range(len(table.header)) if any(texts[k] for _, texts in table.rows)]
    rows = [(place, [texts[k] for k in used]) for place, texts in table.rows]
    return replace(table, header=[table.header[k] for k in used], rows=rows)


def open_scope(table: RunTable) -> list[str]:
    """Return the studies or experiments of the source between which to choose; [] if there is one."""
    if not table.scope or table.scope not in table.header:
        return []
    k = table.header.index(table.scope)
    found = distinct(row[1][k] for row in table.rows)
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


def split(table: RunTable, by: str) -> dict[str, RunTable]:
    """Return a table for each value of a column; a run without one is in none. Raises UsageError."""
    column = table.get(by, "by")
    k = table.header.index(column)
    found: dict[str, list[tuple[str, Sequence[str]]]] = {}
    without = 0
    for row in table.rows:
        if len(row[1]) != len(table.header):
            table.refuse([f"{row[0]}: there are {len(row[1])} fields under a header of {len(table.header)}"])
        if value := row[1][k]:
            found.setdefault(value, []).append(row)
        else:
            without += 1
    if not found:
        raise UsageError(f"{table.path}: {arg('by', by)}: column {shown(column)} is empty in every row")
    notes = (f"{without} runs without {by} are left out",) * bool(without)
    found = {value: found[value] for value in sorted(found, key=_order)}
    return {
        value: _without_empty(replace(table, rows=rows, notes=(*table.notes, *notes * (k == 0))))
        for k, (value, rows) in enumerate(found.items())
    }


def joined(tables: Sequence[RunTable]) -> RunTable:
    """Return one table of the runs of several sources, which a column `file` tells apart."""
    if len(tables) == 1:
        return tables[0]
    header = list(dict.fromkeys(column for table in tables for column in table.header))
    rows: list[tuple[str, Sequence[str]]] = []
    for table in tables:
        places = {column: k for k, column in enumerate(table.header)}
        order = [places.get(column, -1) for column in header]
        for place, texts in table.rows:
            if len(texts) != len(table.header):
                table.refuse(
                    [f"{place}: there are {len(texts)} fields under a header of {len(table.header)}"]
                )
            whole = [texts[k] if k >= 0 else "" for k in order]
            rows.append((f"{table.path}: {place}", [*whole, Path(table.path).stem]))
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
        path, [*header, name], rows, settings, progress, scope, tuple(notes), measured, curves=curves
    )


def _equal(text: str, value: str) -> bool:
    return text == value or (is_number(text) and is_number(value) and number(text) == number(value))


def _order(value: str) -> tuple[float, str]:
    return (number(value) if is_number(value) else float("inf"), value)
