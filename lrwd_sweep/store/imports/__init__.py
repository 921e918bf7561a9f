"""Sweeps of other programs. A format is a reader of its runs, and a line of READERS."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from lrwd_sweep.errors import UnknownName, UsageError, arg, brief, shown
from lrwd_sweep.store.imports.csv_and_json import read_csv, read_json
from lrwd_sweep.store.imports.imported_sweep import (
    ImportedStudy,
    ImportedSweep,
    open_direction,
    open_rule,
    to_study,
    to_sweep,
)
from lrwd_sweep.store.imports.named_runs import is_chart, read_paths, read_wandb_chart
from lrwd_sweep.store.imports.optuna_and_mlflow import (
    MLFLOW_TABLES,
    is_mlflow_folder,
    is_sqlite,
    is_url,
    read_mlflow,
    read_optuna,
    shown_name,
    tables_of,
)
from lrwd_sweep.store.imports.run_table import (
    ImportSource,
    RunTable,
    as_texts,
    distinct,
    is_number,
    number,
    some,
)

__all__ = [
    "READERS",
    "ImportSource",
    "ImportedStudy",
    "ImportedSweep",
    "open_direction",
    "open_rule",
    "open_scope",
    "read_table",
    "rows_of",
    "to_study",
    "to_sweeps",
]

READERS: dict[str, Callable[[ImportSource], RunTable]] = {
    "csv": read_csv,
    "json": read_json,
    "mlflow": read_mlflow,
    "optuna": read_optuna,
    "paths": read_paths,
    "wandb": read_wandb_chart,
}
NAMED = ("paths", "wandb")  # formats whose runs have names with hyperparameters
CURVES = (*NAMED, "mlflow")  # formats that hold learning curves
_PLURAL = {"study": "studies", "experiment": "experiments"}
_SHOWN_BY = {".json": "json", ".jsonl": "json", ".ndjson": "json"}


def read_table(
    sources: Sequence[ImportSource], form: str | None = None, where: Sequence[tuple[str, str]] = ()
) -> RunTable:
    """Read the runs of sources in which each column of `where` has its value.

    `form` is a format of READERS (default: by name and contents). Raises UsageError.
    """
    if form is not None and form not in READERS:
        raise UnknownName("format", form, [*READERS])
    forms = [form or format_of(source) for source in sources]
    for source, found in zip(sources, forms, strict=True):
        if source.template and found not in NAMED:
            raise UsageError(
                f"{arg('from', source.template)} is for folders and charts, but {source.name} is {found}; "
                "leave it out"
            )
        if source.best and found not in CURVES:
            raise UsageError(
                f"{arg('take', 'best')} is for learning curves, but {source.name} is {found}, a value per "
                "run; leave it out"
            )
    tables = []
    for source, found in zip(sources, forms, strict=True):
        try:
            tables.append(READERS[found](source))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"{source.name} cannot be read as {found} ({type(error).__name__}: {brief(error)}); name "
                f"another {arg('format')}, or repair the file"
            ) from None
    return rows_of(_joined(tables), where)


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


def _split(table: RunTable, by: str) -> Iterator[tuple[str, RunTable]]:
    """Yield each value of a column and its table; a run without a value is in none. Raises UsageError."""
    column = table.get(by, "by")
    _refuse_ragged(table)
    texts = table.texts[table.header.index(column)]
    without = int(np.count_nonzero(texts == ""))
    values = sorted(distinct(texts), key=_order)
    if not values:
        raise UsageError(f"{table.path}: {arg('by', by)}: column {shown(column)} is empty in every row")
    left_out = f"{without} runs without {by} are left out"
    code = {"": -1} | {value: k for k, value in enumerate(values)}
    codes = np.array([code[text] for text in texts])
    order = np.argsort(codes, kind="stable")
    rows = np.split(order, np.searchsorted(codes[order], range(len(values))))[1:]  # the first has no value
    for k, value in enumerate(values):
        chosen = table.select(rows[k])
        if without and k == 0:
            chosen = replace(chosen, notes=(*table.notes, left_out))
        yield value, _without_empty(chosen)


def _refuse_ragged(table: RunTable) -> None:
    for place, texts in table.ragged[:1]:
        table.refuse([f"{place}: there are {len(texts)} fields under a header of {len(table.header)}"])


def _joined(tables: Sequence[RunTable]) -> RunTable:
    """Return one table of the runs of several sources, which a column `file` tells apart."""
    if len(tables) == 1:
        return tables[0]
    header = list(dict.fromkeys(column for table in tables for column in table.header))
    for table in tables:
        _refuse_ragged(table)
    sizes = [len(table.places) for table in tables]
    found = [(table.columns(), as_texts([""] * size)) for table, size in zip(tables, sizes, strict=True)]
    texts = [np.concatenate([mine.get(column, empty) for mine, empty in found]) for column in header]
    texts.append(np.repeat(as_texts([Path(table.path).stem for table in tables]), sizes))
    return RunTable(
        f"{len(tables)} files",
        [*header, "file" if "file" not in header else "file of the import"],
        texts,
        as_texts([f"{table.path}: {table.place(k)}" for table in tables for k in range(len(table.places))]),
        settings=frozenset().union(*(table.settings for table in tables)),
        progress=next((table.progress for table in tables if table.progress), ""),
        scope=next((table.scope for table in tables if table.scope), ""),
        notes=tuple(dict.fromkeys(note for table in tables for note in table.notes)),
        measured=tables[0].measured,
        curves={
            (f"{table.path}: {place}", column): curve
            for table in tables
            for (place, column), curve in table.curves.items()
        },
    )


def _equal(text: str, value: str) -> bool:
    return text == value or (is_number(text) and is_number(value) and number(text) == number(value))


def _order(value: str) -> tuple[float, str]:
    return (number(value) if is_number(value) else math.inf, value)


def to_sweeps(table: RunTable, source: ImportSource, by: str | None = None) -> dict[str, ImportedSweep]:
    """Return the sweep of a table as "", or those of each value of the column `by`. Raises UsageError."""
    if by is None and (names := open_scope(table)):
        one, word = arg("where", f"{table.scope}={names[0]}"), _PLURAL.get(table.scope, "")
        raise UsageError(
            f"{table.path} holds {len(names)} {word} ({some(map(shown, names))}); choose one as "
            f"{one}, or import a study of each with {arg('by', table.scope)}"
        )
    tables = [("", table)] if by is None else _split(table, by)
    return {value: to_sweep(part, source.columns, source.metric) for value, part in tables}


def format_of(source: ImportSource) -> str:
    """Return the format of READERS that a source's name and contents show. Raises UsageError."""
    if is_url(source.name) or is_sqlite(source.path):
        tables = tables_of(source.name)
        if "lrwd_sweep_schema" in tables:
            raise UsageError(
                f"{shown_name(source.name)} is a store of lrwd-sweep and needs no import; read it with "
                f"{arg('storage')}"
            )
        return "mlflow" if tables >= MLFLOW_TABLES else "optuna"
    if source.path.is_dir():
        if source.template:
            return "paths"
        if is_mlflow_folder(source.path):
            return "mlflow"
        raise UsageError(
            f"{source.name} is a directory, but not one of MLflow; say with {arg('from')} which files in it "
            "are runs, as 'lr{lr}_wd{weight_decay}.csv:val_loss'"
        )
    beginning = _beginning(source.path)
    first = beginning.partition("\n")[0]
    if beginning[:1] in ("{", "["):
        return "optuna" if '"op_code"' in first else "json"
    if is_chart([name.strip('" \r') for name in re.split('"?,"?', first)]):
        return "wandb"
    return _SHOWN_BY.get(source.path.suffix.lower(), "csv")


def _beginning(path: Path) -> str:
    """Return a file's first line that is not blank, cut if it is very long; nothing if it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            lines = iter(partial(file.readline, 10_000_000), "")
            return next((line for line in lines if line.strip()), "").lstrip()
    except OSError:
        return ""
