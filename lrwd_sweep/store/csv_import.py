"""A user's sweep as a CSV file: `lr,weight_decay,seed,value`, further columns if any, one row per run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store import near_rates
from lrwd_sweep.store.csv_context import Context, higher_is_said, read_context
from lrwd_sweep.store.csv_file import (
    OF_A_RUN,
    SHOWN_FAULTS,
    Fault,
    column_names,
    read_records,
    refuse,
    told_once,
)
from lrwd_sweep.store.csv_row import Fields, Row
from lrwd_sweep.store.csv_text import is_number, number, shown, some
from lrwd_sweep.store.run_states import RunState, StateColumn, run_state, state_columns

MOST_LANES_PER_ROW = 2  # a lattice that lacks more than half is none; a random search would lack millions

Lane = tuple[Cell, int]


@dataclass(frozen=True, slots=True)
class Sweep:
    """A lattice and the trials of those runs that ended."""

    trials: tuple[Trial, ...]
    lattice: Lattice
    seeds: tuple[int, ...]
    metric: str = "value"
    context: Context = field(default_factory=Context)  # what the file says about the sweep as a whole
    notes: tuple[str, ...] = ()  # what was done to its rates and rows


def read_csv(path: Path, columns: Mapping[str, str] | None = None, *, metric: str = "value") -> Sweep:
    """The sweep over a full lattice. `columns` names the file's columns, as in {"lr": "learning_rate"}.

    `metric` is what the value measures; a further column is a metric of its own name when all it holds are
    numbers, and is left aside otherwise. Without a seed column every row has seed 0. A value that is not
    finite is a diverged lane. A run that did not finish, as a column of states says, has no trial. Rates that
    are equal but for rounding are one. Raises UsageError with one line for each kind of fault.
    """
    columns = columns or {}
    header, records = read_records(path)
    names = column_names(path, header, columns)
    texts = {
        column: [fields[k] for _, fields in records if len(fields) == len(header)]
        for k, column in enumerate(header)
    }
    context, unclear = read_context(names, texts, columns)
    of_a_run = {name: column for name, column in names.items() if name in OF_A_RUN}
    further = {
        column: texts[column]
        for column in header
        if column and column not in {*of_a_run.values(), *context.columns}
    }
    states, unknown = state_columns(further, columns.get("status"))
    refuse(path, unclear + unknown)
    rows, placeless, faults = _rows(header, records, of_a_run, states)
    refuse(path, told_once(faults))
    merged, merges = _without_rounding(rows)
    remedy = "keep one row of each run"
    if "seed" not in names:
        remedy = f"name the column of seeds with {arg('columns')} seed=COLUMN"
    refuse(path, told_once(_repeated(rows, merged, remedy) or _contradictions(merged, metric)))
    lanes = _lanes(merged)
    lattice, seeds = _extent(path, lanes, states)
    there = _on(lattice, seeds, lanes)
    _check_lattice(path, lattice, seeds, there)
    kept = sorted((row for row in there.values() if row.status is not None), key=lambda row: row.line)
    left_out = Counter(placeless) + Counter(row.word for row in rows)
    left_out -= Counter(row.word for row in kept)
    numeric = [
        column
        for column in further
        if column not in {state.name for state in states} and _all_numbers(kept, column)
    ]
    return Sweep(
        tuple(row.trial(metric, numeric) for row in kept),
        lattice,
        seeds,
        metric,
        replace(context, higher=higher_is_said(metric, of_a_run["value"], further)),
        (*merges, *_told(states, left_out, kept)),
    )


def _rows(
    header: Sequence[str],
    records: Sequence[tuple[int, list[str]]],
    names: Mapping[str, str],
    states: Sequence[StateColumn],
) -> tuple[list[Row], list[str], list[Fault]]:
    """The rows; the states of runs without a result that have no place either; the faults."""
    rows: list[Row] = []
    placeless: list[str] = []
    faults: list[Fault] = []
    for line, texts in records:
        if len(texts) != len(header):
            fields_there = f"there are {len(texts)} fields under a header of {len(header)}"
            faults.append(Fault(line, fields_there, "fields"))
            continue
        by_column = dict(zip(header, texts, strict=True))
        known = {name: by_column[column] for name, column in names.items()}
        state, word = run_state(states, by_column)
        fields = Fields(line, known, by_column)
        if row := fields.row(state, word):
            rows.append(row)
        elif state in (RunState.UNFINISHED, RunState.FAILED):
            placeless.append(word)
        else:
            faults += fields.faults
    return rows, placeless, faults


def _without_rounding(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows with one rate for those that are equal but for rounding, and what was done in words."""
    lr = near_rates.one_for_each(row.cell.lr for row in rows)
    weight_decay = near_rates.one_for_each(row.cell.weight_decay for row in rows)
    merged = [
        replace(
            row,
            cell=Cell(
                lr.get(row.cell.lr, row.cell.lr),
                weight_decay.get(row.cell.weight_decay, row.cell.weight_decay),
            ),
        )
        for row in rows
    ]
    axes = {"lr": lr, "weight_decay": weight_decay}
    return merged, [near_rates.told(axis, kept) for axis, kept in axes.items() if kept]


def _repeated(rows: Sequence[Row], merged: Sequence[Row], remedy: str) -> list[Fault]:
    """Runs with a result whose lane has one already; `merged` are the `rows` without rounding."""
    first: dict[Lane, tuple[int, Cell]] = {}
    faults = []
    for row, read in zip(merged, rows, strict=True):
        if row.has_result:
            line, cell = first.setdefault((row.cell, row.seed), (row.line, read.cell))
            if line != row.line:
                rounded = "" if cell == read.cell else "; the rates are equal but for rounding"
                what = f"repeats line {line} ({_lane(row.cell, row.seed)}{rounded}); {remedy}"
                faults.append(Fault(row.line, what, "repeats"))
    return faults


def _contradictions(rows: Sequence[Row], metric: str) -> list[Fault]:
    """Rows whose value is not what their column of the metric's own name says; an export has both."""
    return [
        Fault(
            row.line,
            f"the value is {row.value!r} but {shown(metric)[1:-1]} is {shown(text)[1:-1]}; "
            f"use another {arg('metric')}",
            "contradicts",
        )
        for row in rows
        if row.status is Status.COMPLETE
        and (text := row.further.get(metric, ""))
        and not (is_number(text) and number(text) == row.value)
    ]


def _lanes(rows: Iterable[Row]) -> dict[Lane, Row]:
    """One row for each lane: that with a result, else one that failed, else one that did not finish."""
    found: dict[Lane, Row] = {}
    for row in sorted(rows, key=_severity):
        found.setdefault((row.cell, row.seed), row)
    return found


def _severity(row: Row) -> int:
    return 0 if row.has_result else 1 if row.status is Status.FAILED else 2


def _extent(
    path: Path, lanes: Mapping[Lane, Row], states: Sequence[StateColumn]
) -> tuple[Lattice, tuple[int, ...]]:
    """The lattice of all rows where they are one, else of those with a result.

    A run that failed or did not finish may lie anywhere: it was the first of a larger lattice, or a try.
    """
    results = [row for row in lanes.values() if row.has_result]
    failed = [row for row in lanes.values() if row.status is Status.FAILED]
    if not results and not failed:
        words = some(f"{n} {shown(word)}" for word, n in Counter(row.word for row in lanes.values()).items())
        raise UsageError(
            f"{path}: no run has a result, says {_columns(states)} ({words}); "
            f"{arg('columns')} status= takes every value"
        )
    seeds = {row.seed for row in results + failed}
    every = [row for row in lanes.values() if row.seed in seeds]
    lattice = _lattice(every)
    if len(lattice) * len(seeds) == len(every) or not results:
        return lattice, tuple(sorted(seeds))
    return _lattice(results), tuple(sorted({row.seed for row in results}))


def _on(lattice: Lattice, seeds: Iterable[int], lanes: Mapping[Lane, Row]) -> dict[Lane, Row]:
    """Those of the lanes that lie on the lattice."""
    lr, weight_decay, seeds = {*lattice.lr}, {*lattice.weight_decay}, {*seeds}
    return {
        (cell, seed): row
        for (cell, seed), row in lanes.items()
        if cell.lr in lr and cell.weight_decay in weight_decay and seed in seeds
    }


def _lattice(rows: Sequence[Row]) -> Lattice:
    return Lattice(tuple(row.cell.lr for row in rows), tuple(row.cell.weight_decay for row in rows))


def _check_lattice(path: Path, lattice: Lattice, seeds: Sequence[int], there: Mapping[Lane, Row]) -> None:
    """Refuse a file that lacks lanes of the product of its values, with rates that are nearly the same."""
    lanes = len(lattice) * len(seeds)
    if lanes == len(there):
        return
    near = _near(there, lanes - len(there))
    if near or lanes > MOST_LANES_PER_ROW * len(there) + SHOWN_FAULTS:
        remedy = near or "import a grid, a random search has no surface to judge"
        if not near and len({cell for cell, _ in there}) == len(lattice):
            remedy = "the cells do not share their seeds: number them 0, 1, … in each cell"
        raise UsageError(
            f"{path}: {len(there)} rows are not a lattice, {len(lattice.lr)} learning rates and "
            f"{len(lattice.weight_decay)} weight decays at {len(seeds)} seed{'s' * (len(seeds) != 1)} make "
            f"{lanes} runs; {remedy}"
        )
    lacking = next((cell, seed) for cell in lattice.cells() for seed in seeds if (cell, seed) not in there)
    others = lanes - len(there) - 1
    more = f" (and {others} more)" if others else ""
    raise UsageError(
        f"{path}: there is no row for {_lane(*lacking)}{more}; a lattice needs every combination: "
        "for a run that did not finish, write a row with missing in a column status"
    )


def _near(there: Mapping[Lane, Row], lacking: int) -> str:
    """The rates that are nearly the same, where with one for each the rows would be nearer to a lattice."""
    cells = [cell for cell, _ in there]
    lr = near_rates.grouped(cell.lr for cell in cells)
    weight_decay = near_rates.grouped(cell.weight_decay for cell in cells)
    rough = {(lr[cell.lr], weight_decay.get(cell.weight_decay, 0.0), seed) for cell, seed in there}
    lanes = (
        len({a for a, _, _ in rough}) * len({b for _, b, _ in rough}) * len({seed for _, _, seed in rough})
    )
    if lanes - len(rough) >= lacking or lanes > MOST_LANES_PER_ROW * len(rough) + SHOWN_FAULTS:
        return ""
    pairs = {"lr": near_rates.near_pairs(lr), "weight_decay": near_rates.near_pairs(weight_decay)}
    named = "; ".join(f"{axis} {some(names, 3)}" for axis, names in pairs.items() if names)
    return f"these are nearly the same: {named}; where they mean one rate, write it in one way"


def _all_numbers(rows: Sequence[Row], column: str) -> bool:
    """Whether a further column can be a metric; an empty field means that a run has none."""
    texts = [row.further[column] for row in rows if row.status is Status.COMPLETE and row.further[column]]
    return bool(texts) and all(map(is_number, texts))


def _told(states: Sequence[StateColumn], left_out: Mapping[str, int], kept: Sequence[Row]) -> list[str]:
    """What became of runs without a result, in words."""
    failed = Counter(row.word for row in kept if row.status is Status.FAILED)
    said = [
        f"{some(f'{n} {word}' for word, n in counts.items())} {what}"
        for counts, what in ((left_out, "left out, without a result"), (failed, "counted as failed"))
        if counts
    ]
    return [f"{_columns(states)}: {'; '.join(said)}; --columns status= takes every value"] if said else []


def _columns(states: Sequence[StateColumn]) -> str:
    return f"column{'s' * (len(states) != 1)} {some(shown(state.name) for state in states)}"


def _lane(cell: Cell, seed: int) -> str:
    return f"lr {cell.lr!r}, weight_decay {cell.weight_decay!r}, seed {seed}"
