"""Refinement: the lanes of a lattice that its verdict needs, decided from those that are trained.

A pure function of a partly trained surface, so that whole refinements are simulated without training.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from lrwd_sweep.science.lattice import FIRST_SEEDS, coarse_indices
from lrwd_sweep.science.separability.analysis import Analysis, Settings
from lrwd_sweep.science.separability.bootstrap import MIN_SEEDS, t95
from lrwd_sweep.science.separability.ridge import OCTAVES
from lrwd_sweep.science.separability.verdict import Verdict, noise_test, possible_verdicts
from lrwd_sweep.science.surface import MIN_CELLS, Bool, CellStatus, Float, Surface, basin_limit, median
from lrwd_sweep.science.trial import Direction

FURTHER = 2  # seeds that are added at a time
EARLY = 1.5  # times the interval must decide while seeds are left: there are several looks
_POOLED = 6  # independent differences that the variance of a row's differences pools
_MANY_ON_EDGE = 0.25  # of the rows, from which on a window follows the ridge


class Left(StrEnum):
    """The reason why a cell has no lane."""

    COLUMN = "column"  # its decay is away from the best of its row
    ROW = "row"  # its row does not reach the basin
    BUDGET = "budget"  # the next round, which asks for it, has more lanes than the budget holds


@dataclass(frozen=True, eq=False)
class Refinement:
    """The lanes that the rules ask for, given those that are trained."""

    todo: Bool  # (I, J, R) lanes of the present round that did not end; empty once refinement is over
    asked: Bool  # (I, J, R) lanes of all rounds so far
    seeds: tuple[int, ...]  # the first seeds, which every cell that can hold the ridge has
    settled: bool  # the verdict is determined
    unfit: int  # lanes of a next round that the budget does not hold; 0 if none is left out
    left: dict[tuple[int, int], Left]  # the cells without any lane, once refinement is over


def refine(
    surface: Surface,  # of all seeds; lanes that were not trained are missing
    *,
    budget: int | None = None,  # most lanes; None: any number
    settings: Settings | None = None,  # its margin is the verdict's
) -> Refinement:
    """Replay the rounds of a refinement up to the first that is not trained.

    1. Coarse: every second row and column, ends included, with the first two seeds.
    2. Cells: in every row that can reach the basin, those that can be the row's minimum, and their
       neighbours, until no round adds any (`ridge_cells`); with the first three seeds.
    3. Verdict: if λ has an effect (`noise_test`) and an interval of the slope EARLY times as wide allows one
       verdict only, it is settled, and refinement is over. "Coupled" beside which product-coupled is not
       excluded is not. Once all seeds are used, the ordinary verdict counts.
    4. Seeds: else the cells of step 2, found anew with what is known by now, get two more seeds, and so on
       from step 2, until all seeds are used.

    A round that would exceed the budget is not begun. Every decision follows from the lanes of earlier
    rounds only: an interrupted refinement continues as if it had not been interrupted, and the seeds of a
    decision are whole, so that the surface of these seeds is an ordinary one with cells left out. A row
    whose least cell has an untrained neighbour has no interior minimum, and carries no slope.
    """
    settings, most = settings or Settings(), len(surface.seeds)
    ended = np.isin(surface.lanes, (CellStatus.COMPLETE.value, CellStatus.DIVERGED.value))
    asked, unfit = np.zeros((2, *surface.lanes.shape), dtype=bool)
    cells, whole, settled = coarse_cells(surface), min(FIRST_SEEDS, most), False
    for level in sorted({whole, *range(MIN_SEEDS, most, FURTHER), most}):
        while True:
            new = np.zeros_like(asked)
            new[cells, :level] = True
            new &= ~asked
            if not new.any():
                break
            if budget is not None and np.count_nonzero(asked | new) > budget:
                unfit = new
                break
            asked |= new
            if (asked & ~ended).any():
                return Refinement(asked & ~ended, asked, surface.seeds[:whole], settled, 0, {})
            if level < min(MIN_SEEDS, most):
                break
            cells = cells | ridge_cells(_seen(surface, asked))
        if unfit.any():
            break
        whole = level
        seen = _seen(surface, asked).with_seeds(surface.seeds[:level])
        settled = _is_settled(seen, settings, early=level < most)
        if settled:
            break
        cells = ridge_cells(_seen(surface, asked))
    known = ended[asked[..., whole - 1]].all(axis=0)  # of seeds of an earlier, whole lattice too
    while whole < most and known[whole]:
        whole += 1
    left = _left(ended.any(axis=2), unfit.any(axis=2), cells.any(axis=1))
    nothing = np.zeros_like(asked)
    return Refinement(nothing, asked, surface.seeds[:whole], settled, int(unfit.sum()), left)


def _is_settled(seen: Surface, settings: Settings, *, early: bool) -> bool:
    """Tell if the verdict is determined; with seeds left only if an interval EARLY times as wide agrees."""
    part = seen.minimized().without_baseline()
    noise = noise_test(part.values, part.inside)
    if noise is not None and not noise.passed:  # before the bootstrap, which takes most time
        return False
    found = Analysis.of(seen, settings)
    slope = found.ridge_slope
    if not early or slope.value is None or slope.low is None or slope.high is None:
        return found.verdict is not Verdict.UNDETERMINED
    half = EARLY * (slope.high - slope.low) / 2
    wide = replace(slope, low=slope.value - half, high=slope.value + half)
    return len(possible_verdicts(wide, settings.margin)) == 1


def coarse_cells(surface: Surface) -> Bool:
    """Mark every second row and column, (I, J), with the ends; λ = 0 is a column besides."""
    found = np.zeros(surface.lanes.shape[:2], dtype=bool)
    first = int(np.count_nonzero(surface.weight_decay == 0))
    rows = coarse_indices(len(surface.lr))
    columns = [*range(first), *(first + j for j in coarse_indices(len(surface.weight_decay) - first))]
    found[np.ix_(rows, columns)] = True
    return found


def ridge_cells(surface: Surface) -> Bool:
    """Mark the cells that the slope may need, (I, J), among those that did not diverge or reach the cap.

    Values of untrained cells are presumed (`with_presumed`). A row counts if its least value reaches the
    basin at quantile ½; an untrained row if the next row on either side does. In such a row: its least cell;
    each cell that is not worse beyond doubt; and their neighbours, so that the minimum of every resample is
    bracketed. Beyond doubt is a one-sided paired t test at 5 % over the seeds that both cells have, with the
    median variance of the row's differences, which counts as six independent ones. If more than a quarter
    of the rows have their least cell on a side, every cell within two octaves of a row's least, for the
    window that follows a ridge out of the lattice. Of λ = 0, the best cell and its neighbours.
    """
    surface = with_presumed(surface).minimized()
    found, first = np.zeros(surface.out.shape, dtype=bool), int(np.count_nonzero(surface.weight_decay == 0))
    filled, trained = surface.presumed, ~np.isnan(surface.mean_so_far) & ~surface.out
    assert filled is not None, "presumed above"
    if first and (zero := np.where(np.isfinite(filled[:, 0]), filled[:, 0], np.inf)).min() < np.inf:
        found[_beside(np.arange(len(zero)) == zero.argmin()), 0] = True
    y, part = np.where(np.isfinite(filled), filled, np.inf)[:, first:], found[:, first:]
    finite = y[np.isfinite(y)]
    if finite.size < MIN_CELLS:
        part[:] = True
        return found & ~surface.out
    least, limit = y.min(axis=1), basin_limit(finite, 0.5)
    reaches = least <= limit
    rows = np.flatnonzero(np.where(trained[:, first:].any(axis=1), reaches, _beside(reaches)))
    axis = np.log2(surface.weight_decay[first:])
    low = y.argmin(axis=1)
    follows = np.isin(low[rows], (0, len(axis) - 1)).sum() > _MANY_ON_EDGE * len(rows)
    reach = OCTAVES + median(np.diff(axis)) if follows and len(axis) > 1 else 0.0
    for i in rows:
        near = np.abs(axis - axis[low[i]]) <= reach
        part[i] = near | _beside(_undecided(surface.values[i, first:], trained[i, first:]) | near)
    return found & ~surface.out


def with_presumed(surface: Surface) -> Surface:
    """Return the surface with a presumed value for every cell, (I, J): its mean so far if it is trained.

    Else the linear interpolation between the trained cells of its row, or beyond them between rows;
    infinitely bad beside a cell that is out, NaN if nothing is known.
    """
    y = np.where(surface.out, np.inf, surface.minimized().mean_so_far)
    axis, columns = np.log2(surface.lr), np.arange(len(surface.weight_decay), dtype=np.float64)
    first = int(np.count_nonzero(surface.weight_decay == 0))
    filled = y.copy()
    for row in filled:
        row[first:] = _interpolated(columns[first:], row[first:])
    for column in filled.T:
        column[:] = _interpolated(axis, column)
    return replace(surface, presumed=-filled if surface.direction is Direction.MAXIMIZE else filled)


def _interpolated(x: Float, y: Float) -> Float:
    """Fill NaN between known values; infinite between two of which one is."""
    known = ~np.isnan(y)
    if not known.any():
        return y
    lost = np.interp(x, x[known], np.isinf(y[known]), left=np.nan, right=np.nan)
    sound = np.interp(x, x[known], np.where(np.isinf(y[known]), 0.0, y[known]), left=np.nan, right=np.nan)
    return np.where(known, y, np.where(lost > 0, np.inf, sound))


def _undecided(
    y: Float,  # (J, R) a row seed by seed, NaN if not trained
    trained: Bool,  # (J,)
) -> Bool:
    """Mark the cells of a row that are not worse than its least beyond doubt, (J,)."""
    if not trained.any():
        return trained
    mean = np.array([np.nanmean(each) if here else np.inf for each, here in zip(y, trained, strict=True)])
    d = y - y[mean.argmin()]  # (J, R)
    count = np.where(trained, np.isfinite(d).sum(axis=1), 0)
    if count.max() < 2:
        return trained
    several = np.flatnonzero((count > 1) & (np.arange(len(y)) != mean.argmin()))
    if not len(several):
        return trained
    variance = median(np.array([np.nanvar(d[j], ddof=1) for j in several]))
    doubt = [t95(_POOLED * (n - 1)) * np.sqrt(variance / n) if n > 1 else np.inf for n in count]
    shown = np.array([np.nanmean(each) if n else np.inf for each, n in zip(d, count, strict=True)])
    return trained & (shown <= doubt)


def _beside(marked: Bool) -> Bool:
    """Mark neighbours too, (n,)."""
    found = marked.copy()
    found[1:] |= marked[:-1]
    found[:-1] |= marked[1:]
    return found


def _seen(surface: Surface, asked: Bool) -> Surface:
    """Return the surface with only the lanes that were asked for, and presumed values."""
    values = np.where(asked, surface.values, np.nan)
    lanes = np.where(asked, surface.lanes, CellStatus.MISSING.value)
    return with_presumed(replace(surface, values=values, lanes=lanes))


def _left(trained: Any, unfit: Any, rows: Any) -> dict[tuple[int, int], Left]:
    """Say why the cells without a lane have none; `rows` (I,) hold a cell of the last round."""
    return {
        (int(i), int(j)): Left.BUDGET if unfit[i, j] else Left.COLUMN if rows[i] else Left.ROW
        for i, j in np.argwhere(~trained)
    }
