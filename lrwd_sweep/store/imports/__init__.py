"""Sweeps of other programs. A format is a file with a reader of its runs, and a line of READERS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lrwd_sweep.store.imports.csv_reader import read_csv
from lrwd_sweep.store.imports.imported_spec import import_spec, open_direction, open_rule
from lrwd_sweep.store.imports.imported_sweep import ImportedSweep, to_sweep
from lrwd_sweep.store.imports.run_table import RunTable

__all__ = ["READERS", "ImportedSweep", "import_spec", "open_direction", "open_rule", "read_sweep"]

READERS: dict[str, Callable[[Path], RunTable]] = {
    "csv": read_csv,
}


def read_sweep(
    path: Path, columns: Mapping[str, str] | None = None, *, metric: str = "value", form: str = "csv"
) -> ImportedSweep:
    """Read a sweep in a format of READERS; see `to_sweep`. Raises UsageError."""
    return to_sweep(READERS[form](path), columns or {}, metric)
