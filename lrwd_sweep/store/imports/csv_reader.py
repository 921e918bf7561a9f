"""Runs in a CSV file: a header, then a row per run; separated by commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrwd_sweep.errors import UsageError
from lrwd_sweep.store.imports.run_table import BLOCK, RunTable, as_texts
from lrwd_sweep.store.imports.source import ImportSource

if TYPE_CHECKING:
    import _csv

_SHARED = 50_000  # distinct texts of a column up to which equal ones are one object


def read_csv(source: ImportSource) -> RunTable:
    """Read the header and all rows that are not blank. Raises UsageError."""
    path = source.path
    try:
        with path.open("rb") as raw:
            whole = raw if raw.seekable() else io.BytesIO(raw.read())
            file = io.TextIOWrapper(whole, "utf-8-sig", newline="")
            try:
                return _table(path, file)
            except UnicodeDecodeError:  # its position is that in a part of the file
                whole.seek(0)
                fault = _first_fault(whole.read())
                raise UsageError(f"{path}: byte {fault} is not UTF-8; save the file as UTF-8 CSV") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name a CSV file that can be read") from None


def _table(path: Path, file: io.TextIOWrapper) -> RunTable:
    first = next((line.strip("\n") for line in file if line.strip()), "")
    file.seek(0)
    delimiter = max(",;\t", key=first.count)  # a comma if in doubt; rows may hold decimal commas
    lines = csv.reader(file, delimiter=delimiter, strict=True)
    places = array("q")
    ragged: list[tuple[str, list[str]]] = []
    try:
        header = next(([*map(str.strip, fields)] for fields in lines if any(map(str.strip, fields))), [])
        columns = [_Column() for _ in header]
        rows = _whole_rows(lines, len(header), places, ragged)
        while block := list(islice(rows, BLOCK)):
            for column, texts in zip(columns, zip(*block, strict=True), strict=True):
                column.extend(texts)
    except csv.Error as error:
        raise UsageError(f"{path}: line {lines.line_num}: {error}; check the quotes") from None
    if not places and not ragged:
        fault = "there are no rows below the header" if header else "the file is empty"
        raise UsageError(f"{path}: {fault}; write lr,weight_decay,seed,value and a row per run")
    columns.reverse()
    found = [as_texts(columns.pop().texts) for _ in header]  # one at a time, to save memory
    return RunTable(path, header, found, np.array(places), ragged, written=True)


def _whole_rows(
    lines: _csv.Reader, width: int, places: array[int], ragged: list[tuple[str, list[str]]]
) -> Iterator[list[str]]:
    """Yield the rows of `width` fields and note their lines; keep others, unless blank, in `ragged`."""
    for fields in lines:
        if len(fields) == width and (fields[0].strip() or any(map(str.strip, fields))):
            places.append(lines.line_num)
            yield fields
        elif len(fields) != width and any(map(str.strip, fields)):
            ragged.append((f"line {lines.line_num}", [*map(str.strip, fields)]))


class _Column:
    """The texts of a column; equal ones are one object if there are few distinct ones."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._known: dict[str, str] = {}

    def extend(self, texts: Sequence[str]) -> None:
        """Add texts without the blanks around them."""
        stripped = [*map(str.strip, texts)]
        if len(self._known) <= _SHARED:
            stripped = [*map(self._known.setdefault, stripped, stripped)]
        self.texts += stripped


def _first_fault(raw: bytes) -> int:
    try:
        raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return error.start
    return 0
