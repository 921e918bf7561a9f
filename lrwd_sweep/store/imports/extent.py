"""The lattice that runs fill, in the recorded convention of weight decay or another; or scattered points."""

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.errors import UsageError, arg, shown
from lrwd_sweep.science.lattice import Cell, Lattice, canonical
from lrwd_sweep.store.imports.imported_runs import ImportedRuns
from lrwd_sweep.store.imports.run_states import RunState, StateColumns
from lrwd_sweep.store.imports.run_table import SHOWN_FAULTS, some
from lrwd_sweep.store.trials import Lane

Axis = NDArray[np.float64]  # (runs,)

FLOAT32 = 1e-6  # relative: a few float32 steps of 1.2e-7
DIGITS = 4  # a value with at least as many digits can be the rounding of another; 0.1 is not that of 0.12
NEAR = 0.02  # relative: finer than any lattice, as coarse as float16, bfloat16 and two or three digits
DERIVED = 1e-3  # relative: the rounding of a product or quotient of two rates of four or more digits
MOST_LANES_PER_ROW = 2  # a table that lacks more than half is not a lattice; a random search lacks millions
LEAST_POINTS = 3  # fewer are not called scattered
NEARLY_FULL = 4  # runs per lane without one, at least
MOST_PER_AXIS = 11  # rows or columns on which scattered points are drawn


@dataclass(frozen=True, slots=True)
class Extent:
    """A lattice with its seeds, and the runs that lie on it, one per lane, in the order of the table."""

    lattice: Lattice
    seeds: tuple[int, ...]
    runs: ImportedRuns

    @property
    def size(self) -> int:
        return len(self.lattice) * len(self.seeds)

    @property
    def lacking(self) -> int:
        """Number of lanes without a run."""
        return self.size - len(self.runs)

    @property
    def is_nearly_full(self) -> bool:
        """True if less than a fifth of the lanes have no run."""
        return NEARLY_FULL * self.lacking <= len(self.runs)


def _lanes(runs: ImportedRuns) -> ImportedRuns:
    """Return one run per lane: one with a result, else one that failed, else one that did not finish."""
    lanes = runs.lanes()
    order = np.lexsort((np.where(runs.has_result, -RunState.DIVERGED, -runs.state), lanes))  # a stable sort
    first = np.diff(lanes[order], prepend=-1) != 0
    return runs if first.all() else runs.select(np.sort(order[first]))


def extent_of(runs: ImportedRuns, states: StateColumns) -> Extent:
    """Return the lattice of all runs if they fill it, else of those with a result.

    A run that failed or did not finish may lie outside: it began a larger lattice, or was a test.
    """
    lanes = _lanes(runs)
    results = lanes.select(lanes.has_result)
    trained = lanes.select(lanes.state != RunState.UNFINISHED)
    if not len(trained):
        raise _no_result(lanes, states)
    every = lanes.select(np.isin(lanes.seed, trained.seed))
    lattice, seeds = _lattice(every), tuple(np.unique(trained.seed).tolist())
    if len(lattice) * len(seeds) == len(every) or not len(results):
        return Extent(lattice, seeds, every)
    lattice, seeds = _lattice(results), tuple(np.unique(results.seed).tolist())
    on_it = np.isin(lanes.lr, lattice.lr) & np.isin(lanes.weight_decay, lattice.weight_decay)
    return Extent(lattice, seeds, lanes.select(on_it & np.isin(lanes.seed, seeds)))


def _no_result(runs: ImportedRuns, states: StateColumns) -> UsageError:
    words = some(f"{n} {shown(word)}" for word, n in Counter(runs.word).items())
    return UsageError(
        f"{runs.table.path}: no run has a result by {named(states)} ({words}); {arg('columns')} status= uses "
        "every value"
    )


def in_convention(runs: ImportedRuns, number_of: Callable[[Axis, Axis], Axis]) -> ImportedRuns:
    """Return the runs with another number on the decay axis, equal where it differs by rounding."""
    with np.errstate(all="ignore"):
        found = number_of(runs.lr, runs.weight_decay)
    values, place = np.unique(found, return_inverse=True)
    groups = near_groups(values.tolist(), DERIVED)
    starts, group = np.unique([groups[value] for value in values.tolist()], return_inverse=True)
    members = np.sort(values[place])
    bounds = [*np.searchsorted(members, starts).tolist(), len(members)]
    centres = [canonical(float(members[a + (b - a) // 2])) for a, b in pairwise(bounds)]
    return replace(runs, weight_decay=np.array(centres)[group[place]])


def scattered(runs: ImportedRuns, states: StateColumns) -> tuple[Extent, str]:
    """Return the lattice on which scattered points are drawn, its runs with a result, and a note."""
    lanes = _lanes(runs)
    lanes = lanes.select(lanes.has_result)
    if not len(lanes):
        raise _no_result(runs, states)
    points: dict[int, dict[int, int]] = {}  # indices of runs by cell and seed
    for k, (cell, seed) in enumerate(zip(lanes.cells().tolist(), lanes.seed.tolist(), strict=True)):
        points.setdefault(cell, {})[seed] = k
    if len({frozenset(seeds) for seeds in points.values()}) > 1:  # the points do not share their seeds
        points = {cell: dict(enumerate(seeds.values())) for cell, seeds in points.items()}
    fewest = min(points.values(), key=len)
    seeds = sorted(fewest)
    count = max(LEAST_POINTS, min(MOST_PER_AXIS, round(math.sqrt(len(points) / 2))))
    lattice = Lattice(_drawn_on(lanes.lr, count), _drawn_on(lanes.weight_decay, count))
    numbered = [(k, seed) for found in points.values() for seed, k in found.items() if seed in seeds]
    rows, numbers = np.array(numbered).T
    kept = replace(lanes.select(rows), seed=numbers)
    size = f"{len(lattice.lr)} × {len(lattice.weight_decay)}"
    return Extent(lattice, tuple(seeds), kept), (
        f"not a lattice: {len(points)} scattered points, as of a search, averaged on {size} cells; no cell "
        "has a neighbour of its own"
    )


def _drawn_on(values: Axis, count: int) -> tuple[float, ...]:
    """Return log-spaced values across the positive ones, or the values themselves if they are few."""
    known = np.unique(values).tolist()
    if len(known) <= count:
        return tuple(known)
    positive = [value for value in known if value > 0]
    low, high = positive[0], positive[-1]
    return (*[0.0] * (known[0] == 0), *(low * (high / low) ** (k / (count - 1)) for k in range(count)))


def _lattice(runs: ImportedRuns) -> Lattice:
    return Lattice(*(tuple(np.unique(axis).tolist()) for axis in (runs.lr, runs.weight_decay)))


def gap_note(extent: Extent) -> str:
    """Describe the lanes that a lattice lacks; "" for scattered points, which are none.

    Raises UsageError if the user writes a row for every run, and for rates that are nearly equal.
    """
    lattice, seeds, lanes = extent.lattice, extent.seeds, extent.runs
    table = lanes.table
    points = len(np.unique(lanes.cells()))
    near = _nearly_equal(lanes, extent.lacking)
    own_seeds = not near and points == len(lattice) and extent.size > MOST_LANES_PER_ROW * len(lanes)
    if near or own_seeds:
        remedy = near or "the cells do not share their seeds: number them 0, 1, … in each cell"
        raise UsageError(
            f"{table.path}: {len(lanes)} rows are not a lattice: {len(lattice.lr)} learning rates, "
            f"{len(lattice.weight_decay)} weight decays and {len(seeds)} seed{'s' * (len(seeds) != 1)} make "
            f"{extent.size} runs; {remedy}"
        )
    rows = len(lattice.lr), len(lattice.weight_decay)
    if points >= LEAST_POINTS and (
        extent.size > MOST_LANES_PER_ROW * len(lanes) + SHOWN_FAULTS or rows == (points, points)
    ):
        return ""
    lacking = _first_lacking(extent)
    others = extent.lacking - 1
    more = f" (and {others} more)" if others else ""
    if not table.written:
        return f"there is no run of {lane_text(*lacking)}{more}: missing"
    raise UsageError(
        f"{table.path}: there is no row for {lane_text(*lacking)}{more}; a lattice needs every combination: "
        "for a run that did not finish, write a row with missing in a column status"
    )


def _first_lacking(extent: Extent) -> Lane:
    """Return the first lane of the lattice that has no run."""
    axes = extent.lattice.lr, extent.lattice.weight_decay, extent.seeds
    runs = extent.runs
    places = [
        np.searchsorted(axis, values)
        for axis, values in zip(axes, (runs.lr, runs.weight_decay, runs.seed), strict=True)
    ]
    there = np.zeros([len(axis) for axis in axes], dtype=bool)
    there[tuple(places)] = True
    lr, decay, seed = np.unravel_index(int(np.argmin(there)), there.shape)
    return Cell(axes[0][lr], axes[1][decay]), axes[2][seed]


def _nearly_equal(lanes: ImportedRuns, lacking: int) -> str:
    """List rates that are nearly equal, if the rows would fill a lattice better with one rate for each."""
    lr, decay = near_groups(lanes.lr.tolist()), near_groups(lanes.weight_decay.tolist())
    axes = (lr.values(), decay.values(), lanes.seed.tolist())
    size = math.prod(len(set(axis)) for axis in axes)
    near = replace(
        lanes,
        lr=np.array([lr[value] for value in lanes.lr.tolist()]),
        weight_decay=np.array([decay[value] for value in lanes.weight_decay.tolist()]),
    )
    rough = np.unique(near.lanes())
    if size - len(rough) >= lacking or size > MOST_LANES_PER_ROW * len(rough) + SHOWN_FAULTS:
        return ""
    pairs = {
        axis: [f"{a!r} and {b!r}" for a, b in pairwise(sorted(groups)) if groups[a] == groups[b]]
        for axis, groups in (("lr", lr), ("weight_decay", decay))
    }
    named = "; ".join(f"{axis} {some(texts, 3)}" for axis, texts in pairs.items() if texts)
    return f"these are nearly equal: {named}; write each rate in one way"


def named(states: StateColumns) -> str:
    """List the columns of states."""
    return f"column{'s' * (len(states) != 1)} {some(map(shown, states))}"


def lane_text(cell: Cell, seed: int) -> str:
    return f"lr {cell.lr!r}, weight_decay {cell.weight_decay!r}, seed {seed}"


def equal_but_for_rounding(low: float, high: float) -> bool:
    """Return whether two positive values are one in float32, or one is the other at its own 4+ digits.

    >>> equal_but_for_rounding(0.1, 0.10000000149), equal_but_for_rounding(0.0003162, 0.000316227766)
    (True, True)
    >>> equal_but_for_rounding(0.1, 0.1001), equal_but_for_rounding(0.12, 0.123)
    (False, False)
    """
    return high - low <= FLOAT32 * high or _rounds_to(low, high) or _rounds_to(high, low)


def merge_rates(runs: ImportedRuns) -> tuple[ImportedRuns, list[str]]:
    """Return the runs with one rate for those that differ by rounding, and notes of the merges."""
    notes = []
    for axis in ("lr", "weight_decay"):
        values, place, counts = np.unique(getattr(runs, axis), return_inverse=True, return_counts=True)
        kept = merged_rates(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if kept:
            merged = (f"{a!r} is read as {b!r}" for a, b in kept.items())
            notes.append(f"{axis} equal but for rounding: {some(merged, 3)}")
            rates: Any = {axis: np.array([kept.get(v, v) for v in values.tolist()])[place]}
            runs = replace(runs, **rates)
    return runs, notes


def merged_rates(counts: Mapping[float, int]) -> dict[float, float]:
    """Return the rate to read for each canonical value that is a rounding of another.

    `counts` holds the runs of each. Of a group, keep the value that the others are roundings of, else the
    most frequent one.
    """
    groups: list[list[float]] = []
    for value in sorted(value for value in counts if value > 0):
        if groups and equal_but_for_rounding(groups[-1][-1], value):
            groups[-1].append(value)
        else:
            groups.append([value])
    kept = {value: min(group, key=lambda v: _rank(v, group, counts)) for group in groups for value in group}
    return {value: other for value, other in kept.items() if value != other}


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


def near_groups(values: Iterable[float], tolerance: float = NEAR) -> dict[float, float]:
    """Map each value to the least one that it is within a relative tolerance of."""
    groups: dict[float, float] = {}
    first = -1.0
    for value in sorted({*values}):
        if value > first * (1 + tolerance):
            first = value
        groups[value] = first
    return groups
