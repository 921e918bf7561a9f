"""A CSV file as header, rows and the columns that are asked for."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrwd_sweep.errors import UnknownName, UsageError, arg
from lrwd_sweep.store.csv_text import shown, some

REQUIRED = ("lr", "weight_decay", "value")
OF_A_RUN = (*REQUIRED, "seed", "detail")
OF_THE_SWEEP = ("decay_rule", "direction", "cap")
OPTIONAL = ("seed", "status", "detail", *OF_THE_SWEEP)
SHOWN_FAULTS = 10
_SHOWN_COLUMNS = 12


def read_records(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and every row that is not blank with its line number (a quoted row's last)."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name a CSV file that can be read") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 CSV") from None
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    records: list[tuple[int, list[str]]] = []
    try:
        for fields in lines:
            if any(texts := [field.strip() for field in fields]):
                records.append((lines.line_num, texts))  # noqa: PERF401 - line_num belongs to the loop
    except csv.Error as error:
        raise UsageError(f"{path}: line {lines.line_num}: {error}; check the quotes") from None
    if len(records) < 2:
        fault = "there are no rows under the header" if records else "the file is empty"
        raise UsageError(f"{path}: {fault}; write lr,weight_decay,seed,value and one row for each run")
    return records[0][1], records[1:]


def column_names(path: Path, header: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The file's column for each thing that it tells; an optional one that `columns` maps to "" is not read.

    Raises UsageError.
    """
    known = dict.fromkeys([*REQUIRED, *OPTIONAL])
    for name, column in columns.items():
        if name not in known:
            raise UnknownName("column", name, known)
        if not column and name in REQUIRED:
            raise UsageError(
                f"{arg('columns')} {name}= names no column; write {name}=COLUMN, or leave it out"
            )
    taken = {column for name, column in columns.items() if column}
    asked = {
        name: columns.get(name, name)
        for name in known
        if columns.get(name, name) and (name in REQUIRED or name in columns or name not in taken)
    }
    there = some(map(shown, header), _SHOWN_COLUMNS)
    lacking = {
        name: column
        for name, column in asked.items()
        if column not in header and (name in REQUIRED or name in columns)
    }
    faults = []
    if lacking:
        named = ",".join(f"{name}={_likely(name, header)}" for name in lacking)
        faults.append(
            f"there is no column {' or '.join(map(shown, lacking.values()))}, only {there}; "
            f"name {'it' if len(lacking) == 1 else 'them'} with {arg('columns', named)}"
        )
    faults += [f"two columns are named {shown(name)}" for name in _doubled(header)]
    faults += [
        f"column {shown(column)} is to be two things; see {arg('columns')}"
        for column in _doubled([*asked.values()])
    ]
    refuse(path, faults)
    return {name: column for name, column in asked.items() if column in header}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one line of the file."""

    line: int
    what: str  # with the line's own values
    kind: str  # the same for all faults that one remedy mends


def told_once(faults: Sequence[Fault]) -> list[str]:
    """A line for each kind of fault: the first of the kind, and how many more there are."""
    first: dict[str, Fault] = {}
    for fault in faults:
        first.setdefault(fault.kind, fault)
    counts = Counter(fault.kind for fault in faults)
    return [
        f"line {fault.line}: {fault.what}{_more(counts[kind] - 1, 'line')}" for kind, fault in first.items()
    ]


def _more(count: int, what: str) -> str:
    return f" (and {count} more {what}{'s' * (count != 1)})" if count else ""


def refuse(path: Path, faults: Sequence[str]) -> None:
    """Raise UsageError with the first faults, one line each, if there are any."""
    if faults:
        left = len(faults) - SHOWN_FAULTS
        more = [f"and {left} more"] if left > 0 else []
        raise UsageError("\n".join(f"{path}: {fault}" for fault in [*faults[:SHOWN_FAULTS], *more]))


def _delimiter(text: str) -> str:
    """What the header is cut by (names hold no delimiters, numbers might); a comma when in doubt."""
    header = text.lstrip().partition("\n")[0]
    return max(",;\t", key=header.count)


def _likely(name: str, header: Sequence[str]) -> str:
    """The one column that is spelt like `name` but for case and punctuation, else a placeholder."""
    found = [column for column in header if _letters(column) == _letters(name)]
    return found[0] if len(found) == 1 and "," not in found[0] else "COLUMN"


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _doubled(names: list[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
