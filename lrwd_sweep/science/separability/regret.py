"""Transfer regret: what moving α costs when λ is not tuned again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.science.separability.bootstrap import HALVES

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Index = NDArray[np.intp]

MAX_OCTAVES = 3.0
SAME_DISTANCE = 0.01  # distances within a hundredth of an octave are one distance


@dataclass(frozen=True, eq=False)
class Pairs:
    """Ordered pairs of rows (i, k), sorted by their distance."""

    source: Index  # (P,) i, whose best λ is taken
    target: Index  # (P,) k, where it is used
    starts: Index  # (D,) first pair of each distance
    octaves: tuple[float, ...]  # (D,) the distances, ascending

    @classmethod
    def of(cls, axis: Float, rows: Bool) -> Pairs:
        """All pairs of the given rows up to three octaves apart, or at the smallest distance there is."""
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
        _, starts, size = np.unique(step, return_index=True, return_counts=True)
        mean = np.add.reduceat(distance, starts) / size
        return cls(i, k, starts, tuple(round(float(d), 9) for d in mean))

    def count(self, marked: Bool) -> list[int]:
        """How many pairs of each distance are marked, from (P,)."""
        if not self.octaves:
            return []
        return [int(n) for n in np.add.reduceat(marked.astype(np.intp), self.starts)]


@dataclass(frozen=True, eq=False)
class Transfers:
    """Every pair's regret under every resample."""

    loss: Float  # (S, P); 0 where the transferred cell is out
    valid: Bool  # (S, P)
    cell: Index  # (S, P) column of the transferred cell (k, ĵ(i))


def transfers(
    choose: Float,  # (S, I, J) the means that choose ĵ, infinite where the cell is out
    score: Float,  # (S, I, J) the means that score; the same array in sample
    pairs: Pairs,
) -> Transfers:
    """y(k, ĵ(i)) − y(k, ĵ(k)) for every pair (i, k)."""
    if not len(pairs.source):
        nothing = np.zeros((len(choose), 0))
        return Transfers(nothing, nothing.astype(bool), nothing.astype(np.intp))
    best = choose.argmin(axis=2)  # (S, I)
    scored = np.arange(len(choose))[:, None]
    own = np.take_along_axis(score, best[..., None], axis=2)[..., 0]  # (S, I) y(k, ĵ(k))
    cell = best[:, pairs.source]
    there = score[scored, pairs.target, cell]
    valid = np.isfinite(there) & np.isfinite(own[:, pairs.target])
    loss = np.where(valid, there, 0.0) - np.where(valid, own[:, pairs.target], 0.0)
    return Transfers(loss, valid, cell)


def transfer_regret(ways: tuple[Transfers, ...], pairs: Pairs) -> Float:
    """T(Δ): the mean over the pairs Δ octaves apart of y(k, ĵ(i)) − y(k, ĵ(k)), (S, D); NaN without a pair.

    In the metric's units, what it costs to move α by Δ octaves and keep λ; 0 for a separable surface.
    Invariant to shifting either axis, to y → y + d, and scales with y → cy. A pair whose transferred cell
    is out is left out of the mean. With `ways` of two half-samples a pair counts their average: λ chosen on
    one half of the seeds, scored on the other.

    It lies high where λ is chosen and scored on the same seeds (noise alone then costs something), low where
    pairs are out ("it diverges" is worse than any number), and it is 0 too where λ makes no difference.
    """
    if not pairs.octaves:
        return np.empty((len(ways[0].loss), 0))
    valid = np.logical_and.reduce([way.valid for way in ways])
    loss = np.where(valid, sum(way.loss for way in ways) / len(ways), 0.0)
    total = np.add.reduceat(loss, pairs.starts, axis=1)
    count = np.add.reduceat(valid.astype(np.float64), pairs.starts, axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def halves(weights: Float) -> tuple[Float, Float]:
    """The weights (S, R) split over the even and the odd seeds, each row summing to 1 again."""
    first, second = (np.zeros_like(weights) for _ in HALVES)
    for part, half in zip((first, second), HALVES, strict=True):
        part[:, half] = weights[:, half] / weights[:, half].sum(axis=1, keepdims=True)
    return first, second
