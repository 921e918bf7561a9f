"""Costs of simpler tuning, in the metric's units: moving α without λ, one at a time, and a wrong α.

Beside them the interaction that causes them: its share of a basin's variation, which no sum f(α) + g(λ)
follows, and its contrast on a lattice too small for a ridge slope.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import sqrt

import numpy as np

from lrwd_sweep.science.separability.bootstrap import (
    CROSS_SCORED_SEEDS,
    Cells,
    Estimate,
    LeftOut,
    Resamples,
    chunks,
    t95,
)
from lrwd_sweep.science.surface import Bool, Float, Index

MAX_OCTAVES = 3.0
SAME_DISTANCE = 0.01  # distances within a hundredth of an octave are one distance
LEFT_OUT = Estimate(None, reason="needs cells that a refined lattice leaves out")


@dataclass(frozen=True, slots=True)
class TransferRegret:
    """The mean cost of moving α by `octaves` without retuning λ, in the metric's units."""

    octaves: float
    estimate: Estimate
    pairs: int  # ordered pairs of rows in the mean
    pairs_out: int  # pairs left out because the transferred cell diverged or reached its cap
    in_sample: bool  # λ was chosen and scored on the same seeds: biased high, without an interval


@dataclass(frozen=True, slots=True)
class SequentialRegret:
    """The cost of tuning one parameter and then the other, once each, against the best cell."""

    first: str  # "lr" or "weight_decay": the parameter that is tuned first, at a start value of the other
    estimate: Estimate  # in the metric's units
    start: float | None  # value of the other axis at which tuning starts; None: the mean over all its values
    starts_out: int  # start values left out because no cell there counts
    in_sample: bool  # cells were chosen and scored on the same seeds: biased high


@dataclass(frozen=True, slots=True)
class LrSensitivity:
    """The mean cost of a wrong learning rate (Wortsman et al. 2023), in the metric's units."""

    tuned: Estimate  # with λ tuned in every row
    fixed: Estimate  # at the λ of the best cell
    difference: Estimate  # fixed − tuned: gain of retuning λ at a wrong learning rate


@dataclass(frozen=True, eq=False)
class Pairs:
    """Ordered pairs of rows (i, k), sorted by their distance."""

    source: Index  # (P,) i, whose best λ is taken
    target: Index  # (P,) k, where it is used
    starts: Index  # (D,) first pair of each distance
    octaves: tuple[float, ...]  # (D,) the distances, ascending

    @classmethod
    def of(cls, axis: Float, rows: Bool) -> Pairs:
        """Pair the given rows up to three octaves apart, or at the smallest distance there is."""
        chosen = np.flatnonzero(rows)
        i, k = (side.ravel() for side in np.meshgrid(chosen, chosen, indexing="ij"))
        i, k = i[i != k], k[i != k]
        if not len(i):
            nothing = np.empty(0, dtype=np.intp)
            return cls(nothing, nothing, nothing, ())
        distance = np.round(np.abs(axis[i] - axis[k]), 9)
        step = np.floor(distance / SAME_DISTANCE + 0.5)
        near = step <= max(MAX_OCTAVES / SAME_DISTANCE, step.min())
        i, k, distance, step = i[near], k[near], distance[near], step[near]
        order = np.argsort(step, kind="stable")
        i, k, distance, step = i[order], k[order], distance[order], step[order]
        starts = np.flatnonzero(np.diff(step, prepend=step[0] - 1))
        size = np.diff(starts, append=len(step))
        mean = np.add.reduceat(distance, starts) / size
        return cls(i, k, starts, tuple(round(float(d), 9) for d in mean))

    def count(self, marked: Bool) -> list[int]:
        """Count the marked pairs (P,) of each distance."""
        return np.add.reduceat(marked.astype(np.intp), self.starts).tolist() if self.octaves else []

    def mean(self, loss: Float, valid: Bool) -> Float:
        """Average the valid ones of (S, P) losses by distance, (S, D); NaN without one."""
        if not self.octaves:
            return np.empty((len(loss), 0))
        total = np.add.reduceat(np.where(valid, loss, 0.0), self.starts, axis=1)
        count = np.add.reduceat(valid.astype(np.float64), self.starts, axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _scored(
    choose: Float,  # (S, I, J) the means that choose, infinite if the cell is out
    score: Float,  # (S, I, J) the means that score; the same array in sample
    pairs: Pairs,
) -> tuple[Float, Bool, Index, Float, Float]:
    """Choose λ in every row, α in every column and the best cell by `choose`; compare them by `score`.

    Return the losses y(k, ĵ(i)) − y(k, ĵ(k)) of all pairs (i, k), (S, P), 0 if the transferred cell
    (k, ĵ(i)) is out; which are valid, (S, P); the column of that cell, (S, P); the losses of tuning α at
    column j and then λ, (S, J), and λ at row i and then α, (S, I), 0 if the column or row has no cell.
    """
    at = np.arange(len(choose))[:, None]
    by_row, by_column = choose.argmin(axis=2), choose.argmin(axis=1)  # ĵ(i) (S, I), î(j) (S, J)
    own = np.take_along_axis(score, by_row[..., None], axis=2)[..., 0]  # (S, I) y(i, ĵ(i))
    cell = by_row[:, pairs.source]
    there, here = score[at, pairs.target, cell], own[:, pairs.target]
    valid = np.isfinite(there) & np.isfinite(here)
    loss = np.where(valid, there, 0.0) - np.where(valid, here, 0.0)
    best = choose.reshape(len(choose), -1).argmin(axis=1)[:, None]
    lowest = np.take_along_axis(score.reshape(len(choose), -1), best, axis=1)
    lr_first = score[at, by_column, np.take_along_axis(by_row, by_column, axis=1)] - lowest
    decay_first = score[at, np.take_along_axis(by_column, by_row, axis=1), by_row] - lowest
    finite = np.isfinite(choose)
    lr_first = np.where(finite.any(axis=1), lr_first, 0.0)
    return loss, valid, cell, lr_first, np.where(finite.any(axis=2), decay_first, 0.0)


@dataclass(frozen=True, eq=False)
class Regrets:
    """Transfer and sequential regret of a surface, scored on left-out seeds, and their resamples.

    T(Δ) is the mean over the pairs of rows Δ octaves apart of y(k, ĵ(i)) − y(k, ĵ(k)), the cost of moving
    α by Δ octaves and keeping λ; 0 for a separable surface. SR(j₀) is y(î, ĵ) − min y, î = argmin_i y(i, j₀)
    and ĵ = argmin_j y(î, j), the cost of tuning α at the start j₀ and then λ; likewise λ first. SR is 0
    for a separable surface and for a perfect ridge too; its scatter is 4 to 6 times that of T(1). In the
    metric's units; invariant to shifting either axis and to y → y + d, scale with y → cy.

    A pair counts if its transferred cell counts in every way of leaving seeds out. T is biased low if pairs
    are out ("it diverges" is worse than any number), and is 0 too if λ makes no difference. In sample both
    are biased high by noise.
    """

    left_out: LeftOut
    pairs: Pairs
    values: Float  # (1 + S, D) T at the distances of `pairs`
    pairs_in: list[int]  # (D,) pairs in the sample's mean
    pairs_out: list[int]  # (D,) pairs left out of it: the transferred cell diverged or reached its cap
    lr_first: Float  # (1 + S, J) SR by start column
    decay_first: Float  # (1 + S, I) SR by start row
    starts: tuple[Bool, Bool]  # (J,), (I,) columns and rows with a cell that counts

    @classmethod
    def of(cls, cells: Cells, rows: Bool, seeds: int, count: int) -> Regrets:
        """Score the sample and `count` resamples; `rows` (I,) pair up."""
        pairs, left_out = Pairs.of(cells.log_lr, rows), LeftOut.draw(seeds, count)
        starts = np.asarray(cells.inside.any(axis=0)), np.asarray(cells.inside.any(axis=1))
        if not cells.inside.size:
            height, width = cells.inside.shape
            none, by_column, by_row = (
                np.empty((1 + len(left_out.resamples.mass), n)) for n in (0, width, height)
            )
            return cls(left_out, pairs, none, [], [], by_column, by_row, starts)
        parts = []
        for weights in chunks(left_out.weights(), max(cells.inside.size, len(pairs.source))):
            ways = left_out.ways(weights)
            scored = [_scored(cells.means(choose), cells.means(score), pairs) for choose, score in ways]
            losses, valids, columns, lr_first, decay_first = zip(*scored, strict=True)
            valid = np.logical_and.reduce(valids)
            loss = left_out.combine([np.where(valid, each, 0.0) for each in losses])
            mean = pairs.mean(loss, np.broadcast_to(valid, loss.shape))
            parts.append((mean, left_out.combine(lr_first), left_out.combine(decay_first)))
            if len(parts) == 1:  # its first row is the sample
                out = np.logical_or.reduce([cells.out[pairs.target, column[0]] for column in columns])
                counts = pairs.count(valid[0]), pairs.count(out & ~valid[0])
        values, by_column, by_row = (np.concatenate(each) for each in zip(*parts, strict=True))
        return cls(left_out, pairs, values, *counts, by_column, by_row, starts)

    def transfer(self, incomplete: bool) -> Iterator[TransferRegret]:
        """Return T(Δ) at every distance of which at least one pair's transferred cell was trained.

        It is undetermined if the lattice is `incomplete` and has left out the transferred cell of a pair.
        """
        every = self.pairs.count(np.ones(len(self.pairs.source), dtype=bool))
        for octaves, values, counted, out, whole in zip(
            self.pairs.octaves, self.values.T, self.pairs_in, self.pairs_out, every, strict=True
        ):
            if counted or out:
                estimate = self.left_out.estimate(values, "at this distance no transferred cell counts")
                estimate = LEFT_OUT if incomplete and counted + out < whole else estimate
                yield TransferRegret(octaves, estimate, counted, out, self.left_out.in_sample)

    def sequential(self, first: str, axis: Float, start: float | None) -> SequentialRegret:
        """Return SR from the value of `axis` nearest to `start` in octaves, or its mean over all values.

        No interval below four seeds: its scatter is large, and left-out scores of three seeds miss the part
        that the choices have in it.
        """
        at = 0 if first == "lr" else 1
        losses, counts = (self.lr_first, self.decay_first)[at], self.starts[at]
        out = int(np.count_nonzero(~counts))
        if start is not None and axis.size:
            j = int(np.abs(np.log2(axis) - np.log2(start)).argmin())
            start, losses, counts = float(axis[j]), losses[:, [j]], counts[[j]]
            out = int(not counts[0])
        mean = losses[:, counts].mean(axis=1) if counts.any() else np.full(len(losses), np.nan)
        found = self.left_out.estimate(mean, "no cell at the start value counts")
        if self.left_out.fixed and found.value is not None:
            found = Estimate(found.value, reason="no interval below four seeds")
        return SequentialRegret(first, found, start, out, self.left_out.in_sample)


def expected_best(
    cells: Cells,  # λ = 0 included
    left_out: LeftOut,
) -> Estimate:
    """Estimate new seeds' value at the chosen cell: chosen on all seeds but one, scored on that one.

    In the metric's units, lower being better. The smallest of many noisy means is optimistic; this is not,
    up to the one seed fewer that chooses.
    """
    if left_out.in_sample:
        return Estimate(None, reason=f"choosing and scoring on different seeds needs {CROSS_SCORED_SEEDS}")
    if not cells.inside.any():
        return Estimate(None, reason="no cell counts")
    found = []
    for choose, score in left_out.ways(left_out.weights()):
        best = int(cells.means(choose)[0].argmin())
        found.append(cells.means(score)[0].reshape(-1)[[best]])
    return left_out.estimate(left_out.combine(found), "")


def lr_sensitivity(
    y: Float,  # (S, I, J), infinite if the cell does not count
    known: Bool,  # (I, J) cells that count, and those that diverged or reached the cap
    initial: Float,  # (S,) y₀, the value at initialisation
) -> tuple[Float, Float]:
    """Return the mean over rows of min(y, y₀) − y*, with λ tuned in each row, and at the λ of y*, (S,) each.

    In the metric's units. 0 for a flat surface; (n−1)/n · (y₀ − y*) with all at y₀ but one row of n. A cell
    that is out counts y₀, a cell that was not trained does not count. Row minima of noisy means flatter, so
    that both lie low by about what the best cell's mean does.
    """
    if not known.any() or not y.size:
        nothing = np.full(len(y), np.nan)
        return nothing, nothing
    capped = np.minimum(y, initial[:, None, None])
    lowest = y.min(axis=(1, 2))
    lowest = np.where(initial >= lowest, lowest, np.nan)  # training that only made it worse
    rows = known.any(axis=1)
    tuned = np.where(known, capped, np.inf)[:, rows].min(axis=2).mean(axis=1) - lowest
    j = y.reshape(len(y), -1).argmin(axis=1) % y.shape[2]  # (S,) the column of y*
    at = np.take_along_axis(capped, j[:, None, None], axis=2)[..., 0]  # (S, I)
    counted = known[:, j].T  # (S, I)
    fixed = np.where(counted, at, 0.0).sum(axis=1) / counted.sum(axis=1) - lowest
    return tuned, fixed


def interaction_share(
    y: Float,  # (n, R) the basin's cells, seed by seed
    mask: Bool,  # (I, J) with n cells
    resamples: Resamples,
    undefined: str,  # why no metric of the basin exists; may be empty
) -> Estimate:
    """Estimate (RSS − df σ̂² Σw²) / (TSS − (n−1) σ̂² Σw²) of the additive row + column fit.

    Dimensionless; 0 for an additive surface, 1 for pure interaction; noise only scatters it around 0, below
    it too. df = n − rank. σ̂² is the variance of y without cell means and seed offsets: seeds share
    initialisation and data order across cells, so a common offset is no noise. The mean of R seeds has the
    noise σ̂²/R = σ̂² Σw² at w = 1/R; a resample that repeats seeds has more. Undefined if df is 0 or the
    denominator is not positive. Invariant to shifting and stretching either axis, to y → cy + d with c ≠ 0;
    the numerator to adding any f(a) + g(l) as long as the basin stays.

    It misleads if noise differs much between cells (one σ̂² serves all). It is too low if noise rather than
    shape decides which cells are in the basin (they are chosen for their luck), too high with one seed (noise
    counts as interaction: an upper bound), and it depends on how λ is written: a surface additive in
    (α, λ) is not additive in (α, λ/α). Its interval is conditional on the sample's basin.
    """
    weights, (cells, seeds) = resamples.weights, y.shape
    if not cells:
        return Estimate(None, reason=undefined)
    spread, noise = y - y.mean(axis=0), np.zeros(len(weights))
    if cells > 1 and seeds > 1:
        residual = y - y.mean(axis=1, keepdims=True)
        residual = residual - residual.mean(axis=0)
        variance = float((residual**2).sum() / ((cells - 1) * (seeds - 1)))
        noise = variance * (weights**2).sum(axis=1)
    total = _quadratic(spread, weights) - (cells - 1) * noise
    residual, rank = _additive_residual(spread, *np.nonzero(mask))
    unexplained = _quadratic(residual, weights) - (cells - rank) * noise
    defined = (total > 0) & (cells > rank)
    share = np.where(defined, unexplained / np.where(defined, total, 1.0), np.nan)
    undefined = undefined or (
        "the basin has no more cells than the additive fit has terms"
        if total[0] > 0
        else "noise: the basin's means spread no more than the seeds' residual variance spreads them"
    )
    found = resamples.estimate(share, undefined)
    if seeds == 1 and found.value is not None:
        return replace(found, reason="one seed: an upper bound, noise counts as interaction")
    return found


def _quadratic(y: Float, weights: Float) -> Float:
    """Sum (Σ_r w_r y_r)² over cells for every row of weights, through the R×R Gram matrix."""
    gram = y.T @ y
    return np.asarray(((weights @ gram) * weights).sum(axis=1))


def _additive_residual(y: Float, rows: Index, columns: Index) -> tuple[Float, int]:
    """Return the residual of y (n, R) after the row + column fit, and the fit's rank."""
    _, rows = np.unique(rows, return_inverse=True)
    _, columns = np.unique(columns, return_inverse=True)
    height, width = rows.max() + 1, columns.max() + 1
    # Normal equations: height + width unknowns, however many the cells.
    incidence = np.zeros((height, width))
    incidence[rows, columns] = 1
    normal = np.block(
        [[np.diag(incidence.sum(axis=1)), incidence], [incidence.T, np.diag(incidence.sum(axis=0))]]
    )
    sums = np.zeros((height + width, y.shape[1]))
    np.add.at(sums, rows, y)
    np.add.at(sums, height + columns, y)
    effects, _, rank, _ = np.linalg.lstsq(normal, sums, rcond=1e-10)
    return y - effects[rows] - effects[height + columns], int(rank)


@dataclass(frozen=True, slots=True)
class Contrast:
    """The interaction contrast of four cells: how much costlier a higher α makes a higher λ.

    [y(hi, hi) − y(hi, lo)] − [y(lo, hi) − y(lo, lo)], in the metric's units, lower being better. Indices are
    those of the surface given.
    """

    estimate: Estimate  # with Student's interval over seeds
    rows: tuple[int, int]  # lo and hi on the learning-rate axis
    columns: tuple[int, int]  # lo and hi on the weight-decay axis
    octaves: tuple[float, float]  # from lo to hi of α and of λ


def contrast(
    y: Float,  # (I, J, R), lower is better
    inside: Bool,  # (I, J) cells that count
    log_lr: Float,  # (I,) log2 α
    log_decay: Float,  # (J,) log2 λ
) -> Contrast | None:
    """Contrast the corners of the largest rectangle, in octaves², whose four corners count.

    Dimension of y; 0 for an additive surface; invariant to shifting the axes and to adding any f(α) + g(λ).
    None if there is no such rectangle, and below two seeds. Ties go to the smaller index.
    """
    seeds, largest, corners = y.shape[2], 0.0, None
    for i, k in combinations(range(len(log_lr)), 2):
        common = np.flatnonzero(inside[i] & inside[k])
        if len(common) < 2:
            continue
        lo, hi = int(common[0]), int(common[-1])
        area = float((log_lr[k] - log_lr[i]) * (log_decay[hi] - log_decay[lo]))
        if area > largest:
            largest, corners = area, (i, k, lo, hi)
    if corners is None or seeds < 2:
        return None
    i, k, lo, hi = corners
    by_seed = (y[k, hi] - y[k, lo]) - (y[i, hi] - y[i, lo])
    mean, half = float(by_seed.mean()), t95(seeds - 1) * float(by_seed.std(ddof=1)) / sqrt(seeds)
    octaves = float(log_lr[k] - log_lr[i]), float(log_decay[hi] - log_decay[lo])
    return Contrast(Estimate(mean, mean - half, mean + half), (i, k), (lo, hi), octaves)
