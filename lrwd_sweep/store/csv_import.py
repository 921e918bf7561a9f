"""Somebody's sweep as a CSV file: `lr,weight_decay,seed,value`, further columns if any, one row per lane."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from lrwd_sweep.decay import DecayRule
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.lattice import Cell, Lattice
from lrwd_sweep.optimizer import Optimizer
from lrwd_sweep.spec import Kind, StudySpec
from lrwd_sweep.store.csv_row import Fields, Row, is_number, number
from lrwd_sweep.trial import Status, Trial

REQUIRED = ("lr", "weight_decay", "value")
OPTIONAL = ("seed", "status", "detail")
SHOWN_FAULTS = 10
MOST_LANES_PER_ROW = 2  # a lattice that lacks more than half is none; a random search would lack millions


def read_csv(path: Path, columns: Mapping[str, str] | None = None, *, metric: str = "value") -> list[Trial]:
    """The trials of a full lattice. `columns` names the file's columns, as in {"lr": "learning_rate"}.

    `metric` is what the value measures; a further column is a metric of its own name when all it holds are
    numbers, and is left aside otherwise. Without a seed column every row has seed 0. A value that is not
    finite is a diverged lane. Raises UsageError with one line for each fault of the file.
    """
    header, records = _read_records(path)
    names = _column_names(path, header, columns or {})
    faults: list[str] = []
    rows: list[Row] = []
    for line, texts in records:
        if len(texts) != len(header):
            faults.append(f"line {line}: there are {len(texts)} fields under a header of {len(header)}")
            continue
        by_column = dict(zip(header, texts, strict=True))
        known = {name: by_column.pop(column) for name, column in names.items()}
        fields = Fields(line, known, by_column)
        if row := fields.row():
            rows.append(row)
        faults += fields.faults
    _refuse(path, faults or _repeated(rows) or _contradictions(rows, metric))
    _check_lattice(path, rows)
    numeric = [
        column for column in header if column and column not in names.values() and _all_numbers(rows, column)
    ]
    return [row.trial(metric, numeric) for row in rows]


def import_spec(
    trials: Sequence[Trial], optimizer: str, *, decay_rule: str | None = None, metric: str = "value"
) -> StudySpec:
    """The specification of an imported study: its lattice and seeds are those of `trials`.

    Raises UsageError when `optimizer` is a free label without a `decay_rule`, or contradicts it.
    """
    lattice = Lattice(
        tuple(trial.cell.lr for trial in trials), tuple(trial.cell.weight_decay for trial in trials)
    )
    seeds = tuple(sorted({trial.seed for trial in trials}))
    return StudySpec(Kind.IMPORT, _optimizer(optimizer, decay_rule), lattice, seeds, metric, training=None)


def _optimizer(name: str, decay_rule: str | None) -> Optimizer:
    if decay_rule is not None and decay_rule not in list(DecayRule):
        raise UnknownName("decay rule", decay_rule, DecayRule)
    if not name.strip():
        raise UsageError(f"--optimizer {name!r} is empty; name the optimizer that was swept")
    try:
        known = Optimizer.parse(name)
    except UnknownName as unknown:
        if decay_rule is None:
            rules = ", ".join(DecayRule)
            raise UsageError(f"{unknown} (for any other, add --decay-rule: one of {rules})") from None
        return Optimizer(None, DecayRule(decay_rule), name.strip())
    if decay_rule not in (None, known.rule):
        raise UsageError(f"--decay-rule {decay_rule} contradicts --optimizer {name}, which is {known.rule}")
    return known


def _read_records(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
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


def _delimiter(text: str) -> str:
    """What the header is cut by (names hold no delimiters, numbers might); a comma when in doubt."""
    header = text.lstrip().partition("\n")[0]
    return max(",;\t", key=header.count)


def _column_names(path: Path, header: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The file's column for each thing that a row tells. Raises UsageError."""
    for name in columns:
        if name not in REQUIRED + OPTIONAL:
            raise UnknownName("column", name, REQUIRED + OPTIONAL)
    asked = {name: columns.get(name, name) for name in REQUIRED + OPTIONAL}
    there = ", ".join(repr(name) for name in header)
    faults = [
        f"there is no column {column!r}, only {there}; name it with --columns {name}=COLUMN"
        for name, column in asked.items()
        if column not in header and (name in REQUIRED or name in columns)
    ]
    faults += [f"two columns are named {name!r}" for name in _doubled(header)]
    faults += [
        f"column {column!r} is to be two things; see --columns" for column in _doubled([*asked.values()])
    ]
    _refuse(path, faults)
    return {name: column for name, column in asked.items() if column in header}


def _doubled(names: list[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name and names.count(name) > 1]


def _all_numbers(rows: list[Row], column: str) -> bool:
    """Whether a further column can be a metric; an empty field means that a run has none."""
    texts = [row.further[column] for row in rows if row.further[column]]
    return bool(texts) and all(map(is_number, texts))


def _repeated(rows: list[Row]) -> list[str]:
    first: dict[tuple[Cell, int], int] = {}
    return [
        f"line {row.line}: repeats line {earlier} ({_lane(row.cell, row.seed)})"
        for row in rows
        if (earlier := first.setdefault((row.cell, row.seed), row.line)) != row.line
    ]


def _contradictions(rows: list[Row], metric: str) -> list[str]:
    """Rows whose value is not what their column of the metric's own name says; an export has both."""
    return [
        f"line {row.line}: the value is {row.value!r} but {metric} is {text}; use another --metric"
        for row in rows
        if row.status is Status.COMPLETE
        and (text := row.further.get(metric, ""))
        and not (is_number(text) and number(text) == row.value)
    ]


def _check_lattice(path: Path, rows: list[Row]) -> None:
    """Refuse a file that lacks lanes of the product of its values. Rows hold no lane twice."""
    cells = [row.cell for row in rows]
    lattice = Lattice(tuple(cell.lr for cell in cells), tuple(cell.weight_decay for cell in cells))
    seeds = sorted({row.seed for row in rows})
    there = {(row.cell, row.seed) for row in rows}
    lanes = len(lattice) * len(seeds)
    if lanes > MOST_LANES_PER_ROW * len(there) + SHOWN_FAULTS:
        raise UsageError(
            f"{path}: {len(there)} rows are not a lattice, {len(lattice.lr)} learning rates and "
            f"{len(lattice.weight_decay)} weight decays at {len(seeds)} seed{'s' * (len(seeds) != 1)} make "
            f"{lanes} runs; import a grid, a random search has no surface to judge"
        )
    lacking = ((cell, seed) for cell in lattice.cells() for seed in seeds if (cell, seed) not in there)
    faults = [
        f"there is no row for {_lane(*lane)}; a lattice needs every combination"
        for lane in islice(lacking, SHOWN_FAULTS)
    ]
    _refuse(path, faults, lanes - len(there))


def _lane(cell: Cell, seed: int) -> str:
    return f"lr {cell.lr!r}, weight_decay {cell.weight_decay!r}, seed {seed}"


def _refuse(path: Path, faults: list[str], total: int | None = None) -> None:
    """Raise UsageError with the first faults, one line each, if there are any."""
    if faults:
        left = (total or len(faults)) - SHOWN_FAULTS
        more = [f"and {left} more"] if left > 0 else []
        raise UsageError("\n".join(f"{path}: {fault}" for fault in faults[:SHOWN_FAULTS] + more))
