"""Costs of simpler tuning, in the metric's units: moving α without λ, one at a time, and a wrong α."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.science.separability.bootstrap import CROSS_SCORED_SEEDS, Estimate, LeftOut
from lrwd_sweep.science.surface import Surface

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Index = NDArray[np.intp]

MAX_OCTAVES = 3.0
SAME_DISTANCE = 0.01  # distances within a hundredth of an octave are one distance
_HELD = 1_000_000  # numbers held at a time: 8 MB an array
_NO_INTERVAL = "no interval below four seeds"


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
class Cells:
    """The cells of a surface, flattened seed by seed, for one pass over resampled means."""

    log_lr: Float  # (I,)
    weight_decay: Float  # (J,)
    inside: Bool  # (I, J) cells that count
    out: Bool  # (I, J) cells that diverged or reached the cap
    values: Float  # (R, I·J), 0 if a cell does not count

    @classmethod
    def of(cls, surface: Surface) -> Cells:
        """Read a surface."""
        inside = surface.inside
        values = np.where(inside[..., None], surface.values, 0.0).reshape(inside.size, len(surface.seeds)).T
        return cls(np.log2(surface.lr), surface.weight_decay, inside, surface.out, values)

    def means(self, weights: Float) -> Float:
        """Return the weighted seed means (S, I, J), infinite if a cell does not count."""
        means = (weights @ self.values).reshape(len(weights), *self.inside.shape)
        means[:, ~self.inside] = np.inf
        return means


def chunks(weights: Float, size: int) -> Iterator[Float]:
    """Split rows of weights so that arrays of (rows, size) stay small."""
    step = max(_HELD // max(size, 1), 1)
    return (weights[start : start + step] for start in range(0, len(weights), step))


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
        if not self.octaves:
            return []
        return [int(n) for n in np.add.reduceat(marked.astype(np.intp), self.starts)]

    def mean(self, loss: Float, valid: Bool) -> Float:
        """Average the valid ones of (S, P) losses by distance, (S, D); NaN without one."""
        if not self.octaves:
            return np.empty((len(loss), 0))
        total = np.add.reduceat(np.where(valid, loss, 0.0), self.starts, axis=1)
        count = np.add.reduceat(valid.astype(np.float64), self.starts, axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Scored:
    """Losses of choices, scored on some seeds."""

    transfer: Float  # (S, P) y(k, ĵ(i)) − y(k, ĵ(k)) of every pair (i, k); 0 if the transferred cell is out
    valid: Bool  # (S, P)
    cell: Index  # (S, P) column of the transferred cell (k, ĵ(i))
    lr_first: Float  # (S, J) loss of tuning α at column j and then λ; 0 if column j has no cell
    decay_first: Float  # (S, I) loss of tuning λ at row i and then α; 0 if row i has no cell


def scored(
    choose: Float,  # (S, I, J) the means that choose, infinite if the cell is out
    score: Float,  # (S, I, J) the means that score; the same array in sample
    pairs: Pairs,
) -> Scored:
    """Choose λ in every row, α in every column and the best cell by `choose`; compare them by `score`."""
    at = np.arange(len(choose))[:, None]
    by_row, by_column = choose.argmin(axis=2), choose.argmin(axis=1)  # ĵ(i) (S, I), î(j) (S, J)
    own = np.take_along_axis(score, by_row[..., None], axis=2)[..., 0]  # (S, I) y(i, ĵ(i))
    cell = by_row[:, pairs.source]
    there = score[at, pairs.target, cell]
    valid = np.isfinite(there) & np.isfinite(own[:, pairs.target])
    loss = np.where(valid, there, 0.0) - np.where(valid, own[:, pairs.target], 0.0)
    best = choose.reshape(len(choose), -1).argmin(axis=1)[:, None]
    lowest = np.take_along_axis(score.reshape(len(choose), -1), best, axis=1)
    lr_first = score[at, by_column, np.take_along_axis(by_row, by_column, axis=1)]
    decay_first = score[at, np.take_along_axis(by_column, by_row, axis=1), by_row]
    with_column, with_row = np.isfinite(choose).any(axis=1), np.isfinite(choose).any(axis=2)
    return Scored(
        loss,
        valid,
        cell,
        np.where(with_column, lr_first - lowest, 0.0),
        np.where(with_row, decay_first - lowest, 0.0),
    )


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
            nothing = [
                np.empty((1 + len(left_out.resamples.mass), n)) for n in (0, *cells.inside.shape[::-1])
            ]
            return cls(left_out, pairs, nothing[0], [], [], nothing[1], nothing[2], starts)
        parts = []
        for weights in chunks(left_out.weights(), max(cells.inside.size, len(pairs.source))):
            ways = [
                scored(cells.means(choose), cells.means(score), pairs)
                for choose, score in left_out.ways(weights)
            ]
            valid = np.logical_and.reduce([way.valid for way in ways])
            loss = left_out.combine([np.where(valid, way.transfer, 0.0) for way in ways])
            parts.append(
                (
                    pairs.mean(loss, np.broadcast_to(valid, loss.shape)),
                    left_out.combine([way.lr_first for way in ways]),
                    left_out.combine([way.decay_first for way in ways]),
                )
            )
            if len(parts) == 1:  # its first row is the sample
                out = np.logical_or.reduce([cells.out[pairs.target, way.cell[0]] for way in ways])
                counts = pairs.count(valid[0]), pairs.count(out & ~valid[0])
        values, lr_first, decay_first = (np.concatenate(each) for each in zip(*parts, strict=True))
        return cls(left_out, pairs, values, *counts, lr_first, decay_first, starts)

    def transfer(self) -> Iterator[TransferRegret]:
        """Return T(Δ) at every distance of which at least one pair's transferred cell was trained."""
        undefined = "at this distance no transferred cell counts"
        for octaves, values, counted, out in zip(
            self.pairs.octaves, self.values.T, self.pairs_in, self.pairs_out, strict=True
        ):
            if counted or out:
                estimate = self.left_out.estimate(values, undefined)
                yield TransferRegret(octaves, estimate, counted, out, self.left_out.in_sample)

    def sequential(self, first: str, axis: Float, start: float | None) -> SequentialRegret:
        """Return SR from the value of `axis` nearest to `start` in octaves, or its mean over all values.

        No interval below four seeds: its scatter is large, and left-out scores of three seeds miss the part
        that the choices have in it.
        """
        losses, counts = (
            (self.lr_first, self.starts[0]) if first == "lr" else (self.decay_first, self.starts[1])
        )
        out = int(np.count_nonzero(~counts))
        if start is not None and axis.size:
            j = int(np.abs(np.log2(axis) - np.log2(start)).argmin())
            start, losses, counts = float(axis[j]), losses[:, [j]], counts[[j]]
            out = int(not counts[0])
        some = bool(counts.any())
        mean = losses[:, counts].mean(axis=1) if some else np.full(len(losses), np.nan)
        found = self.left_out.estimate(mean, "no cell at the start value counts")
        if self.left_out.fixed and found.value is not None:
            found = Estimate(found.value, reason=_NO_INTERVAL)
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
