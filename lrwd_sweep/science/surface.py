"""A surface: a study's cells with seed means and standard errors; its basin, the cells near the optimum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.trial import Direction, Status, Trial

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Index = NDArray[np.intp]

MIN_CELLS = 10  # of a basin
ROUNDING = 1e-12  # differences below this share of the largest value are rounding, not shape


class CellStatus(StrEnum):
    """The worst status of a cell's seeds, in this order."""

    COMPLETE = "complete"
    MISSING = "missing"  # a seed was not trained yet
    FAILED = "failed"
    DIVERGED = "diverged"


_SEVERITY = {status: rank for rank, status in enumerate(CellStatus)}


def mean_and_error(
    values: Float,  # (…, R)
) -> tuple[Float, Float]:
    """Return mean and standard error over the last axis, (…); the error is NaN with fewer than two values.

    Each set of R values is first divided by a power of two, which is exact: sums and squares of very large
    values overflow.
    """
    count = values.shape[-1]
    _, exponent = np.frexp(np.abs(values).max(axis=-1))
    scaled = np.ldexp(values, -exponent[..., None])
    mean = np.ldexp(scaled.mean(axis=-1), exponent)
    if count < 2:
        return mean, np.full(mean.shape, np.nan)
    return mean, np.ldexp(scaled.std(axis=-1, ddof=1) / np.sqrt(count), exponent)


@dataclass(frozen=True, eq=False)
class Surface:
    """One metric over a lattice, seed by seed. All arrays are float64."""

    lr: Float  # (I,) ascending, above 0
    weight_decay: Float  # (J,) ascending; may begin with 0, the baseline column
    seeds: tuple[int, ...]  # (R,)
    values: Float  # (I, J, R); NaN where the lane did not complete
    lanes: NDArray[np.str_]  # (I, J, R) the CellStatus of every lane
    rule: DecayRule
    metric: str = "value"
    cap: float | None = None  # a cell that reaches this value is out
    normalized: bool = False  # the decay is λ_norm, to be divided by √N
    direction: Direction = Direction.MINIMIZE  # better end of the metric
    tau_of_one: float | None = None  # τ of decay 1, as a share of the run; None if unknown, or α decides it
    presumed: Float | None = None  # (I, J) of a refined lattice, values of the cells that it left untrained

    @classmethod
    def from_trials(
        cls,
        trials: Iterable[Trial],
        lattice: Lattice,
        seeds: tuple[int, ...],
        *,
        metric: str,
        rule: DecayRule,
        cap: float | None = None,
        normalized: bool = False,
        direction: Direction = Direction.MINIMIZE,
        tau_of_one: float | None = None,
    ) -> Surface:
        """Lay trials out on a lattice; ignore trials of other cells or seeds."""
        rows = {value: i for i, value in enumerate(lattice.lr)}
        columns = {value: j for j, value in enumerate(lattice.weight_decay)}
        layers = {seed: r for r, seed in enumerate(seeds)}
        shape = (len(rows), len(columns), len(layers))
        values = np.full(shape, np.nan)
        lanes = np.full(shape, CellStatus.MISSING.value, dtype="U8")
        for trial in trials:
            try:
                place = rows[trial.cell.lr], columns[trial.cell.weight_decay], layers[trial.seed]
            except KeyError:
                continue
            if trial.status is not Status.COMPLETE:
                lanes[place] = trial.status.value
            elif metric in trial.metrics:
                lanes[place] = trial.status.value
                values[place] = trial.metrics[metric]
        axes = np.array(lattice.lr), np.array(lattice.weight_decay)
        return cls(*axes, seeds, values, lanes, rule, metric, cap, normalized, direction, tau_of_one)

    @property
    def symbol(self) -> str:
        """Return the letter of the decay axis."""
        return "λ_norm" if self.normalized else self.rule.symbol

    @property
    def is_refined(self) -> bool:
        """True if cells without a lane were left out on purpose."""
        return self.presumed is not None

    @property
    def mean(self) -> Float:
        """Return the seed mean y, (I, J); NaN unless every seed of the cell is complete."""
        return mean_and_error(self.values)[0] if self.seeds else np.full(self.values.shape[:2], np.nan)

    @property
    def mean_so_far(self) -> Float:
        """Return the mean of the known seeds, (I, J); NaN without any, and if a seed diverged or failed."""
        known = np.isfinite(self.values)
        lost = np.isin(self.lanes, (CellStatus.DIVERGED.value, CellStatus.FAILED.value)).any(axis=2)
        count = np.where(lost, 0, known.sum(axis=2))
        share = np.where(known, self.values, 0.0) / np.maximum(count, 1)[..., None]  # no sum overflows
        mean = np.where(count > 0, share.sum(axis=2), np.nan)
        return np.where(np.isfinite(self.mean), self.mean, mean)  # the same bits if every seed is known

    @property
    def partial(self) -> Bool:
        """Return the cells of which some seeds have a value and others are missing, (I, J)."""
        return np.isfinite(self.mean_so_far) & ~np.isfinite(self.mean)

    @property
    def runs(self) -> tuple[int, int]:
        """Count the lanes that ended, diverged ones included, and all lanes."""
        ended = np.isin(self.lanes, (CellStatus.COMPLETE.value, CellStatus.DIVERGED.value))
        return int(ended.sum()), self.lanes.size

    @property
    def sem(self) -> Float:
        """Return the standard error of the seed mean, (I, J); NaN with fewer than two seeds."""
        if len(self.seeds) < 2:
            return np.full(self.values.shape[:2], np.nan)
        return mean_and_error(self.values)[1]

    @property
    def out(self) -> Bool:
        """Return the cells known to be bad, (I, J): a seed diverged, or reached or passed the cap."""
        diverged = (self.lanes == CellStatus.DIVERGED.value).any(axis=2)
        if self.cap is not None:
            worse = np.less_equal if self.direction is Direction.MAXIMIZE else np.greater_equal
            diverged = diverged | worse(self.values, self.cap).any(axis=2)
        return np.asarray(diverged)

    @property
    def inside(self) -> Bool:
        """Return the cells that count, (I, J): every seed complete and better than the cap."""
        return np.isfinite(self.mean) & ~self.out

    def status(self, i: int, j: int) -> CellStatus:
        """Return the worst status of the seeds of cell (i, j)."""
        found = [CellStatus(str(name)) for name in self.lanes[i, j]] or [CellStatus.MISSING]
        return max(found, key=_SEVERITY.__getitem__)

    def counts(self) -> dict[str, int]:
        """Count cells by status, and their total as "cells"."""
        left = np.ones(self.values.shape[:2], dtype=bool)
        counts = {}
        for status in reversed(CellStatus):
            of_status = left & (self.lanes == status.value).any(axis=2)
            counts[status.value] = int(of_status.sum())
            left &= ~of_status
        if not self.seeds:
            counts[CellStatus.MISSING.value] = int(left.sum())
        return {"cells": left.size} | {status.value: counts[status.value] for status in CellStatus}

    def best(self) -> tuple[int, int] | None:
        """Return the index (i, j) of the best mean of the cells that count, the smaller one of equals."""
        inside = self.inside
        if not inside.any():
            return None
        flat = int(np.argmin(np.where(inside, self.minimized().mean, np.inf)))
        return divmod(flat, len(self.weight_decay))

    def cell(self, i: int, j: int) -> Cell:
        """Return the cell at row i, column j."""
        return Cell(float(self.lr[i]), float(self.weight_decay[j]))

    def minimized(self) -> Surface:
        """Return the surface with lower as better: y and the cap change sign if higher was better."""
        if self.direction is Direction.MINIMIZE:
            return self
        cap = None if self.cap is None else -self.cap
        presumed = None if self.presumed is None else -self.presumed
        return replace(self, values=-self.values, cap=cap, direction=Direction.MINIMIZE, presumed=presumed)

    def without_baseline(self) -> Surface:
        """Return the surface without its λ = 0 column, which has no place on a log axis."""
        keep = self.weight_decay > 0
        if keep.all():
            return self
        return replace(
            self,
            weight_decay=self.weight_decay[keep],
            values=self.values[:, keep],
            lanes=self.lanes[:, keep],
            presumed=None if self.presumed is None else self.presumed[:, keep],
        )

    def with_seeds(self, seeds: tuple[int, ...]) -> Surface:
        """Return the surface with only these seeds, in this order."""
        if seeds == self.seeds:
            return self
        layers = [self.seeds.index(seed) for seed in seeds]
        return replace(self, seeds=seeds, values=self.values[..., layers], lanes=self.lanes[..., layers])


def blocks(surface: Surface) -> tuple[Float, Float]:
    """Return mean and worst value of the 3×3 block around every cell, (I, J) each.

    A cell on the edge of the λ > 0 lattice has unknown neighbors: NaN, as for a cell beside one that
    diverged, reached the cap, failed or is missing. The baseline λ = 0 has no place on a log axis and
    no neighbors.
    """
    y = np.where(surface.inside & (surface.weight_decay > 0), surface.mean, np.nan)
    mean, worst = np.full_like(y, np.nan), np.full_like(y, np.nan)
    if min(y.shape) >= 3:
        nine = sliding_window_view(y, (3, 3))
        farthest = nine.min if surface.direction is Direction.MAXIMIZE else nine.max
        with np.errstate(over="ignore"):
            mean[1:-1, 1:-1], worst[1:-1, 1:-1] = nine.mean(axis=(2, 3)), farthest(axis=(2, 3))
    return mean, worst


def most_forgiving(surface: Surface) -> tuple[int, int] | None:
    """Return the index (i, j) of the cell with the best mean over its 3×3 block, the smaller one of equals.

    It suits a task that differs a little, or α and λ that cannot be set exactly. None if no cell has a block.
    """
    mean, _ = blocks(surface.minimized())
    if np.isnan(mean).all():
        return None
    i, j = divmod(int(np.nanargmin(mean)), mean.shape[1])
    return i, j


def on_lattice(trials: Iterable[Trial], lattice: Lattice, metric: str) -> list[Trial]:
    """Move trials of a continuous search to their nearest lattice cells in log distance.

    Completed trials are averaged by cell and seed; without any, the cell keeps the first trial's status.
    """
    groups: dict[tuple[Cell, int], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((nearest(trial.cell, lattice), trial.seed), []).append(trial)
    moved = []
    for (cell, seed), group in groups.items():
        values = [trial.metrics[metric] for trial in group if metric in trial.metrics]
        if values:
            moved.append(Trial(cell, seed, Status.COMPLETE, {metric: sum(values) / len(values)}))
        else:
            moved.append(replace(group[0], cell=cell))
    return moved


def nearest(cell: Cell, lattice: Lattice) -> Cell:
    """Return the lattice cell at the smallest log distance, axis by axis; 0 is near only to 0."""

    def near(value: float, axis: Sequence[float]) -> float:
        if value <= 0:
            return min(axis)
        return min((at for at in axis if at > 0), key=lambda at: abs(math.log(at / value)))

    return Cell(near(cell.lr, lattice.lr), near(cell.weight_decay, lattice.weight_decay))


@dataclass(frozen=True, eq=False)
class Basin:
    """B: the cells with y ≤ y_min + τ; empty, with τ None, if fewer than ten cells count."""

    mask: Bool  # (I, J)
    tolerance: float | None  # τ, in the metric's units

    @property
    def rows(self) -> Bool:
        """Rows with a cell in B, (I,)."""
        return np.asarray(self.mask.any(axis=1))

    @property
    def columns(self) -> Bool:
        """Columns with a cell in B, (J,)."""
        return np.asarray(self.mask.any(axis=0))


def find_basin(
    surface: Surface,  # of λ > 0, lower is better
    quantile: float,
    tolerance: float | None = None,
) -> Basin:
    """Find the basin at `quantile` q, or at a given `tolerance` τ in the metric's units.

    τ is the smallest value at which B holds at least ⌈q·n⌉ of the n cells that count, and at least ten.
    Cells that were left untrained are among the n with their presumed values; B holds none of them.
    """
    mean, inside, presumed = surface.mean, surface.inside, surface.presumed
    values = mean[inside]
    if values.size < MIN_CELLS:
        return Basin(np.zeros_like(inside), None)
    lowest = float(values.min())
    if presumed is not None:
        values = np.concatenate([values, presumed[~inside & np.isfinite(presumed)]])
    if tolerance is not None:
        limit = lowest + tolerance
    else:
        limit = basin_limit(values, quantile)  # compared as it stands: no rounding drops a tie
        tolerance = limit - lowest
    return Basin(inside & (np.where(inside, mean, np.inf) <= limit), tolerance)


def basin_limit(values: Float, quantile: float) -> float:
    """Return the largest of the best ⌈q·n⌉ of n values, at least ten.

    >>> basin_limit(np.arange(40.0), 0.5), basin_limit(np.arange(12.0), 0.5)
    (19.0, 9.0)
    """
    k = min(max(math.ceil(quantile * values.size), MIN_CELLS), values.size)
    return float(np.partition(values, k - 1)[k - 1])


def median(values: Float) -> float:
    """Return the median of some values; numpy's own imports the whole of masked arrays.

    >>> median(np.array([3.0, 1.0, 2.0])), median(np.array([4.0, 1.0]))
    (2.0, 2.5)
    """
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def is_flat(y: Float) -> bool:
    """Tell if the values differ by no more than rounding."""
    return y.size == 0 or float(np.ptp(y)) <= ROUNDING * float(np.abs(y).max())
