"""A table of runs as a sweep: a full lattice, and the trials of the runs that ended."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from lrwd_sweep.errors import UsageError, arg, shown
from lrwd_sweep.science.lattice import Cell, Lattice, canonical
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store.imports.imported_run import ImportedRun, parse_runs
from lrwd_sweep.store.imports.run_states import StateColumn, state_columns
from lrwd_sweep.store.imports.run_table import (
    OF_A_RUN,
    SHOWN_FAULTS,
    RowFault,
    RunTable,
    SweepContext,
    fault_lines,
    higher_is_better_source,
    is_number,
    number,
    read_context,
    some,
)
from lrwd_sweep.store.trials import Lane

MOST_LANES_PER_ROW = 2  # a table that lacks more than half is not a lattice; a random search lacks millions

FLOAT32 = 1e-6  # relative: a few float32 steps of 1.2e-7
DIGITS = 4  # a value with at least as many digits can be the rounding of another; 0.1 is not that of 0.12
NEAR = 0.02  # relative: finer than any lattice, as coarse as float16, bfloat16 and two or three digits


@dataclass(frozen=True, slots=True)
class ImportedSweep:
    """A lattice and the trials of its runs that ended."""

    trials: tuple[Trial, ...]
    lattice: Lattice
    seeds: tuple[int, ...]
    metric: str = "value"
    context: SweepContext = field(default_factory=SweepContext)
    notes: tuple[str, ...] = ()  # merged rates, and runs without a result


def to_sweep(table: RunTable, columns: Mapping[str, str], metric: str) -> ImportedSweep:
    """Build the sweep of a table of runs. Raises UsageError with a line per kind of fault.

    `columns` maps known names to columns. `metric` is what the value measures; a further column that holds
    only numbers is a metric of its own. Without a seed column all rows have seed 0. A value that is not
    finite is a diverged lane; a run that did not finish, by a column of states, has no trial. Rates that
    differ by rounding are merged.
    """
    names = table.column_names(columns)
    texts = table.columns()
    context, unclear = read_context(names, texts, columns)
    of_a_run = {name: column for name, column in names.items() if name in OF_A_RUN}
    used = {*of_a_run.values(), *context.columns}
    further = {column: texts[column] for column in table.header if column and column not in used}
    states, unknown = state_columns(further, columns.get("status"))
    table.refuse(unclear + unknown)
    read, invalid, faults = parse_runs(table, of_a_run, states)
    table.refuse(fault_lines(faults))
    runs, merges = _merged(read)
    seed_hint = f"name the column of seeds with {arg('columns')} seed=COLUMN"
    remedy = "keep one row of each run" if "seed" in names else seed_hint
    table.refuse(fault_lines(_repeated(runs, read, remedy) or _contradictions(runs, metric)))
    lanes = _lanes(runs)
    lattice, seeds = _extent(table, lanes, states)
    on_lattice = {
        (cell, seed): run
        for (cell, seed), run in lanes.items()
        if cell.lr in lattice.lr and cell.weight_decay in lattice.weight_decay and seed in seeds
    }
    _check_lattice(table, lattice, seeds, on_lattice)
    kept = sorted((run for run in on_lattice.values() if run.status is not None), key=lambda run: run.line)
    left_out = Counter(invalid) + Counter(run.word for run in read) - Counter(run.word for run in kept)
    state_names = {state.name for state in states}
    numeric = [column for column in further if column not in state_names and _is_metric(kept, column)]
    return ImportedSweep(
        tuple(run.trial(metric, numeric) for run in kept),
        lattice,
        seeds,
        metric,
        replace(context, higher=higher_is_better_source(metric, of_a_run["value"], further)),
        (*merges, *_state_notes(states, left_out, kept)),
    )


def _merged(runs: Sequence[ImportedRun]) -> tuple[list[ImportedRun], list[str]]:
    """Return the runs with one rate for those that differ by rounding, and notes of the merges."""
    lr = merged_rates(run.cell.lr for run in runs)
    decay = merged_rates(run.cell.weight_decay for run in runs)
    cells = (run.cell for run in runs)
    merged = (Cell(lr.get(c.lr, c.lr), decay.get(c.weight_decay, c.weight_decay)) for c in cells)
    notes = [_merge_note(axis, kept) for axis, kept in (("lr", lr), ("weight_decay", decay)) if kept]
    return [replace(run, cell=cell) for run, cell in zip(runs, merged, strict=True)], notes


def _repeated(runs: Sequence[ImportedRun], read: Sequence[ImportedRun], remedy: str) -> list[RowFault]:
    """Find runs with a result whose lane has one already; `read` are the `runs` before merging rates."""
    first: dict[Lane, tuple[int, Cell]] = {}
    faults = []
    for run, original in zip(runs, read, strict=True):
        if run.has_result:
            line, cell = first.setdefault((run.cell, run.seed), (run.line, original.cell))
            if line != run.line:
                rounded = "" if cell == original.cell else "; the rates are equal but for rounding"
                text = f"repeats line {line} ({_lane(run.cell, run.seed)}{rounded}); {remedy}"
                faults.append(RowFault(run.line, text, "repeats"))
    return faults


def _contradictions(runs: Sequence[ImportedRun], metric: str) -> list[RowFault]:
    """Find runs whose value differs from the column named as the metric; an export has both."""
    return [
        RowFault(
            run.line,
            f"value is {run.value!r} but column {shown(metric)} holds {shown(text)}; use another "
            f"{arg('metric')}",
            "contradicts",
        )
        for run in runs
        if run.status is Status.COMPLETE
        and (text := run.further.get(metric, ""))
        and not (is_number(text) and number(text) == run.value)
    ]


def _lanes(runs: Iterable[ImportedRun]) -> dict[Lane, ImportedRun]:
    """Return one run per lane: one with a result, else one that failed, else one that did not finish."""
    found: dict[Lane, ImportedRun] = {}
    for run in sorted(runs, key=lambda run: (not run.has_result, run.status is not Status.FAILED)):
        found.setdefault((run.cell, run.seed), run)
    return found


def _extent(
    table: RunTable, lanes: Mapping[Lane, ImportedRun], states: Sequence[StateColumn]
) -> tuple[Lattice, tuple[int, ...]]:
    """Return the lattice of all runs if they fill it, else of those with a result.

    A run that failed or did not finish may lie outside: it began a larger lattice, or was a test.
    """
    results = [run for run in lanes.values() if run.has_result]
    failed = [run for run in lanes.values() if run.status is Status.FAILED]
    if not results and not failed:
        words = some(f"{n} {shown(word)}" for word, n in Counter(run.word for run in lanes.values()).items())
        raise UsageError(
            f"{table.path}: no run has a result by {_named(states)} ({words}); {arg('columns')} status= uses "
            "every value"
        )
    seeds = {run.seed for run in results + failed}
    every = [run for run in lanes.values() if run.seed in seeds]
    lattice = _lattice(every)
    if len(lattice) * len(seeds) == len(every) or not results:
        return lattice, tuple(sorted(seeds))
    return _lattice(results), tuple(sorted({run.seed for run in results}))


def _lattice(runs: Sequence[ImportedRun]) -> Lattice:
    return Lattice(tuple(run.cell.lr for run in runs), tuple(run.cell.weight_decay for run in runs))


def _check_lattice(
    table: RunTable, lattice: Lattice, seeds: Sequence[int], lanes: Mapping[Lane, ImportedRun]
) -> None:
    """Refuse a table that lacks lanes of its lattice, and name rates that are nearly equal."""
    size = len(lattice) * len(seeds)
    if size == len(lanes):
        return
    near = _nearly_equal(lanes, size - len(lanes))
    if near or size > MOST_LANES_PER_ROW * len(lanes) + SHOWN_FAULTS:
        remedy = near or "import a grid; a random search has no surface to analyse"
        if not near and len({cell for cell, _ in lanes}) == len(lattice):
            remedy = "the cells do not share their seeds: number them 0, 1, … in each cell"
        raise UsageError(
            f"{table.path}: {len(lanes)} rows are not a lattice: {len(lattice.lr)} learning rates, "
            f"{len(lattice.weight_decay)} weight decays and {len(seeds)} seed{'s' * (len(seeds) != 1)} make "
            f"{size} runs; {remedy}"
        )
    lacking = next((cell, seed) for cell in lattice.cells() for seed in seeds if (cell, seed) not in lanes)
    others = size - len(lanes) - 1
    more = f" (and {others} more)" if others else ""
    raise UsageError(
        f"{table.path}: there is no row for {_lane(*lacking)}{more}; a lattice needs every combination: "
        "for a run that did not finish, write a row with missing in a column status"
    )


def _nearly_equal(lanes: Mapping[Lane, ImportedRun], lacking: int) -> str:
    """List rates that are nearly equal, if the rows would fill a lattice better with one rate for each."""
    lr = _near_groups(cell.lr for cell, _ in lanes)
    decay = _near_groups(cell.weight_decay for cell, _ in lanes)
    rough = {(lr[cell.lr], decay[cell.weight_decay], seed) for cell, seed in lanes}
    size = math.prod(len(set(axis)) for axis in zip(*rough, strict=True))
    if size - len(rough) >= lacking or size > MOST_LANES_PER_ROW * len(rough) + SHOWN_FAULTS:
        return ""
    pairs = {
        axis: [f"{a!r} and {b!r}" for a, b in pairwise(sorted(groups)) if groups[a] == groups[b]]
        for axis, groups in (("lr", lr), ("weight_decay", decay))
    }
    named = "; ".join(f"{axis} {some(texts, 3)}" for axis, texts in pairs.items() if texts)
    return f"these are nearly equal: {named}; write each rate in one way"


def _near_groups(values: Iterable[float]) -> dict[float, float]:
    """Map each value to the least one that it is within `NEAR` of."""
    groups: dict[float, float] = {}
    first = -1.0
    for value in sorted({*values}):
        if value > first * (1 + NEAR):
            first = value
        groups[value] = first
    return groups


def _is_metric(runs: Sequence[ImportedRun], column: str) -> bool:
    """Return whether a column holds only numbers; an empty field is a run without one."""
    texts = [run.further[column] for run in runs if run.status is Status.COMPLETE and run.further[column]]
    return bool(texts) and all(map(is_number, texts))


def _state_notes(
    states: Sequence[StateColumn], left_out: Mapping[str, int], kept: Sequence[ImportedRun]
) -> list[str]:
    """Describe the treatment of runs without a result."""
    failed = Counter(run.word for run in kept if run.status is Status.FAILED)
    parts = [
        f"{some(f'{n} {word}' for word, n in counts.items())} {what}"
        for counts, what in ((left_out, "left out, without a result"), (failed, "counted as failed"))
        if counts
    ]
    return [f"{_named(states)}: {'; '.join(parts)}; --columns status= uses every value"] if parts else []


def _named(states: Sequence[StateColumn]) -> str:
    return f"column{'s' * (len(states) != 1)} {some(shown(state.name) for state in states)}"


def _lane(cell: Cell, seed: int) -> str:
    return f"lr {cell.lr!r}, weight_decay {cell.weight_decay!r}, seed {seed}"


def equal_but_for_rounding(low: float, high: float) -> bool:
    """Return whether two positive values are one in float32, or one is the other at its own 4+ digits.

    >>> equal_but_for_rounding(0.1, 0.10000000149), equal_but_for_rounding(0.0003162, 0.000316227766)
    (True, True)
    >>> equal_but_for_rounding(0.1, 0.1001), equal_but_for_rounding(0.12, 0.123)
    (False, False)
    """
    return high - low <= FLOAT32 * high or _rounds_to(low, high) or _rounds_to(high, low)


def merged_rates(values: Iterable[float]) -> dict[float, float]:
    """Return the rate to read for each canonical value that is a rounding of another.

    Of a group, keep the value that the others are roundings of, else the most frequent one.
    """
    counts = Counter(value for value in values if value > 0)
    groups: list[list[float]] = []
    for value in sorted(counts):
        if groups and equal_but_for_rounding(groups[-1][-1], value):
            groups[-1].append(value)
        else:
            groups.append([value])
    kept = {value: min(group, key=lambda v: _rank(v, group, counts)) for group in groups for value in group}
    return {value: other for value, other in kept.items() if value != other}


def _merge_note(axis: str, merged: Mapping[float, float]) -> str:
    """Describe the merged rates of an axis."""
    return f"{axis} equal but for rounding: " + some(
        (f"{a!r} is read as {b!r}" for a, b in merged.items()), 3
    )


def _rounds_to(rough: float, exact: float) -> bool:
    digits = _digits(rough)
    return digits >= DIGITS and float(f"{exact:.{digits}g}") == rough


def _digits(value: float) -> int:
    return len(repr(value).partition("e")[0].replace(".", "").strip("0"))


def _float32(value: float) -> float:
    return canonical(struct.unpack("f", struct.pack("f", value))[0]) if value < 3e38 else value


def _rank(value: float, group: list[float], counts: Mapping[float, int]) -> tuple[bool, bool, int, int]:
    others = [other for other in group if other != value]
    return (
        any(value == _float32(other) for other in others),
        any(_rounds_to(value, other) for other in others),
        -counts[value],
        _digits(value),
    )
