"""Runs in a CSV file: a header, then a row per run; separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io

from lrwd_sweep.errors import UsageError
from lrwd_sweep.store.imports.run_table import RunTable
from lrwd_sweep.store.imports.source import ImportSource


def read_csv(source: ImportSource) -> RunTable:
    """Read the header and all rows that are not blank. Raises UsageError."""
    path = source.path
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name a CSV file that can be read") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 CSV") from None
    header = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # a comma if in doubt; rows may hold decimal commas
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[str, list[str]]] = []
    try:
        for fields in lines:
            if any(texts := [field.strip() for field in fields]):
                rows.append((f"line {lines.line_num}", texts))  # noqa: PERF401 - line_num belongs to the loop
    except csv.Error as error:
        raise UsageError(f"{path}: line {lines.line_num}: {error}; check the quotes") from None
    if len(rows) < 2:
        fault = "there are no rows below the header" if rows else "the file is empty"
        raise UsageError(f"{path}: {fault}; write lr,weight_decay,seed,value and a row per run")
    return RunTable(path, rows[0][1], rows[1:], written=True)
