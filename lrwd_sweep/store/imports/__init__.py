"""Sweeps of other programs. A format is a file with a reader of its runs, and a line of READERS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lrwd_sweep.errors import UnknownName, UsageError, arg, brief
from lrwd_sweep.store.imports.csv_reader import read_csv
from lrwd_sweep.store.imports.foreign_database import is_sqlite, is_url, tables_of
from lrwd_sweep.store.imports.imported_study import ImportedStudy, open_direction, open_rule, to_study
from lrwd_sweep.store.imports.imported_sweep import ImportedSweep, to_sweep
from lrwd_sweep.store.imports.json_reader import read_json
from lrwd_sweep.store.imports.optuna_reader import read_optuna
from lrwd_sweep.store.imports.path_template import read_paths
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
    "json": read_json,
    "optuna": read_optuna,
    "paths": read_paths,
}
_SHOWN_BY = {".json": "json", ".jsonl": "json", ".ndjson": "json"}


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
    return rows_of(joined([_read(source, form or format_of(source)) for source in sources]), where)


def _read(source: Source, form: str) -> RunTable:
    try:
        return READERS[form](source)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:  # another structure
        raise UsageError(
            f"{source.name} cannot be read as {form} ({type(error).__name__}: {brief(error)}); name another "
            f"{arg('format')}, or repair the file"
        ) from None


def to_sweeps(table: RunTable, source: Source, by: str | None = None) -> dict[str, ImportedSweep]:
    """Return the sweep of a table as "", or those of each value of the column `by`. Raises UsageError."""
    tables = {"": one_scope(table)} if by is None else split(table, by)
    return {value: to_sweep(part, source.columns, source.metric) for value, part in tables.items()}


def format_of(source: Source) -> str:
    """Return the format of READERS that a source's name and contents show. Raises UsageError."""
    if source.template and source.path.is_dir():
        return "paths"
    if is_url(source.name) or is_sqlite(source.path):
        tables = tables_of(source.name)
        if "lrwd_sweep_schema" in tables:
            raise UsageError(
                f"{source.name} is a store of lrwd-sweep and needs no import; read it with {arg('storage')}"
            )
        return "optuna"
    beginning = _beginning(source.path)
    if beginning.startswith(b"{") and b'"op_code"' in beginning.partition(b"\n")[0]:
        return "optuna"
    return "json" if beginning[:1] in (b"{", b"[") else _SHOWN_BY.get(source.path.suffix.lower(), "csv")


def _beginning(path: Path) -> bytes:
    """Return the first characters of a file without a byte order mark; none of one that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return b""
