"""Sweeps of other programs. A format is a file with a reader of its runs, and a line of READERS."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lrwd_sweep.errors import UnknownName, UsageError, arg, brief
from lrwd_sweep.store.imports.csv_reader import read_csv
from lrwd_sweep.store.imports.foreign_database import is_sqlite, is_url, shown_name, tables_of
from lrwd_sweep.store.imports.imported_study import ImportedStudy, open_direction, open_rule, to_study
from lrwd_sweep.store.imports.imported_sweep import ImportedSweep, to_sweep
from lrwd_sweep.store.imports.json_reader import read_json
from lrwd_sweep.store.imports.mlflow_reader import TABLES, is_file_store, read_mlflow
from lrwd_sweep.store.imports.optuna_reader import read_optuna
from lrwd_sweep.store.imports.path_template import read_paths
from lrwd_sweep.store.imports.run_table import RunTable
from lrwd_sweep.store.imports.source import ImportSource, joined, one_scope, open_scope, rows_of, split
from lrwd_sweep.store.imports.wandb_chart import is_chart, read_wandb_chart

__all__ = [
    "READERS",
    "ImportSource",
    "ImportedStudy",
    "ImportedSweep",
    "open_direction",
    "open_rule",
    "open_scope",
    "read_sweep",
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
_SHOWN_BY = {".json": "json", ".jsonl": "json", ".ndjson": "json"}


def read_sweep(
    path: Path, columns: Mapping[str, str] | None = None, *, metric: str = "value", form: str | None = None
) -> ImportedSweep:
    """Read the only sweep of a file; see `to_sweep`. Raises UsageError."""
    source = ImportSource(str(path), columns=columns or {}, metric=metric)
    return to_sweeps(read_table([source], form), source)[""]


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
    return rows_of(joined([_read(*pair) for pair in zip(sources, forms, strict=True)]), where)


def _read(source: ImportSource, form: str) -> RunTable:
    try:
        return READERS[form](source)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # another structure
        raise UsageError(
            f"{source.name} cannot be read as {form} ({type(error).__name__}: {brief(error)}); name another "
            f"{arg('format')}, or repair the file"
        ) from None


def to_sweeps(table: RunTable, source: ImportSource, by: str | None = None) -> dict[str, ImportedSweep]:
    """Return the sweep of a table as "", or those of each value of the column `by`. Raises UsageError."""
    tables = [("", one_scope(table))] if by is None else split(table, by)
    return {value: to_sweep(part, source.columns, source.metric) for value, part in tables}


def format_of(source: ImportSource) -> str:
    """Return the format of READERS that a source's name and contents show. Raises UsageError."""
    if is_url(source.name) or is_sqlite(source.path):
        return _format_of_database(source.name)
    if source.path.is_dir():
        return _format_of_folder(source)
    beginning = _beginning(source.path)
    first = beginning.partition("\n")[0]
    if beginning[:1] in ("{", "["):
        return "optuna" if '"op_code"' in first else "json"
    if is_chart([name.strip('" \r') for name in re.split('"?,"?', first)]):
        return "wandb"
    return _SHOWN_BY.get(source.path.suffix.lower(), "csv")


def _format_of_database(name: str) -> str:
    tables = tables_of(name)
    if "lrwd_sweep_schema" in tables:
        raise UsageError(
            f"{shown_name(name)} is a store of lrwd-sweep and needs no import; read it with {arg('storage')}"
        )
    return "mlflow" if tables >= TABLES else "optuna"


def _format_of_folder(source: ImportSource) -> str:
    if source.template:
        return "paths"
    if is_file_store(source.path):
        return "mlflow"
    raise UsageError(
        f"{source.name} is a directory, but not one of MLflow; say with {arg('from')} which files in it are "
        "runs, as 'lr{lr}_wd{weight_decay}.csv:val_loss'"
    )


def _beginning(path: Path) -> str:
    """Return a file's first line that is not blank, cut if it is very long; nothing if it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return next(
                (line for line in iter(partial(file.readline, 10_000_000), "") if line.strip()), ""
            ).lstrip()
    except OSError:
        return ""
