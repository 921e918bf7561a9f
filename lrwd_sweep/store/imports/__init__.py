"""Sweeps of other programs. A format is a file with a reader of its runs, and a line of READERS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.store.imports.csv_reader import read_csv
from lrwd_sweep.store.imports.imported_study import ImportedStudy, open_direction, open_rule, to_study
from lrwd_sweep.store.imports.imported_sweep import ImportedSweep, to_sweep
from lrwd_sweep.store.imports.run_table import RunTable
from lrwd_sweep.store.imports.source import Source, joined, one_scope, open_scope, rows_of, split

__all__ = [
    "READERS",
    "ImportedStudy",
    "ImportedSweep",
    "Source",
    "open_direction",
    "open_rule",
    "open_scope",
    "read_sweep",
    "read_table",
    "rows_of",
    "to_study",
    "to_sweeps",
]

READERS: dict[str, Callable[[Source], RunTable]] = {
    "csv": read_csv,
}


def read_sweep(
    path: Path, columns: Mapping[str, str] | None = None, *, metric: str = "value", form: str | None = None
) -> ImportedSweep:
    """Read the only sweep of a file; see `to_sweep`. Raises UsageError."""
    source = Source(str(path), columns=columns or {}, metric=metric)
    return to_sweeps(read_table([source], form), source)[""]


def read_table(
    sources: Sequence[Source], form: str | None = None, where: Sequence[tuple[str, str]] = ()
) -> RunTable:
    """Read the runs of sources in which each column of `where` has its value.

    `form` is a format of READERS (default: by name and contents). Raises UsageError.
    """
    if form is not None and form not in READERS:
        raise UnknownName("format", form, [*READERS])
    return rows_of(joined([READERS[form or format_of(source)](source) for source in sources]), where)


def to_sweeps(table: RunTable, source: Source, by: str | None = None) -> dict[str, ImportedSweep]:
    """Return the sweep of a table as "", or those of each value of the column `by`. Raises UsageError."""
    tables = {"": one_scope(table)} if by is None else split(table, by)
    return {value: to_sweep(part, source.columns, source.metric) for value, part in tables.items()}


def format_of(source: Source) -> str:
    """Return the format of READERS that a source's name and contents show. Raises UsageError."""
    return "csv"
