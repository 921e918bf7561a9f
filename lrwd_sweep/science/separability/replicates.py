"""Every statistic of a surface under every resample of its seeds, in one pass over the resampled means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lrwd_sweep.science.separability.basin import Basin
from lrwd_sweep.science.separability.bootstrap import HALVES, Estimate, Resamples
from lrwd_sweep.science.separability.regret import Pairs, Transfers, halves, transfer_regret, transfers
from lrwd_sweep.science.separability.ridge import Minima, row_minima
from lrwd_sweep.science.surface import Bool, Float, Surface

CROSS_SCORED_SEEDS = 4  # with as many, transfer regret chooses λ on half of the seeds and scores on the rest
IN_SAMPLE = "in sample: lies high"
_HELD = 1_000_000  # numbers held at a time: 8 MB an array


@dataclass(frozen=True, eq=False)
class Replicates:
    """The statistics of one surface: of the sample in row 0, of S resamples after it.

    Every resample recomputes the seed means and from them each statistic whole: row minima, ĵ, best cells.
    Held fixed at the sample's: which cells count, the basin's cells, and so the rows that may carry the
    ridge, and how much each row weighs in the slope. A basin found anew in each resample changed no interval
    of the slope in simulation. A fixed one makes its fits linear in the seeds: one fit serves all resamples.
    The intervals of the interaction share and of the reverse slope are therefore conditional on the sample's
    basin: that other seeds would have another one is not in them.
    """

    rows: Minima  # (1 + S, I) the optimum λ* of every row
    columns: Minima  # (1 + S, J) the optimum α* of every column with λ > 0
    best: Float  # (1 + S,) smallest mean with λ > 0; infinite where no cell counts
    baseline: Float  # (1 + S,) smallest mean with λ = 0; infinite where no cell counts
    regrets: Regrets

    @classmethod
    def of(cls, surface: Surface, basin: Basin, resamples: Resamples) -> Replicates:
        """The replicates of `surface`; `basin` is that of its part with λ > 0 and says which rows pair up."""
        everything, positive = _Cells.of(surface), _Cells.of(surface.without_baseline())
        chunks = _chunks(resamples.weights, everything.inside.size)
        parts = [_part(everything, positive, some) for some in chunks]
        rows, columns, best, baseline = zip(*parts, strict=True)
        return cls(
            rows=Minima.joined(rows),
            columns=Minima.joined(columns),
            best=np.concatenate(best),
            baseline=np.concatenate(baseline),
            regrets=Regrets.of(positive, Pairs.of(positive.log_lr, basin.rows), len(resamples.mass)),
        )


@dataclass(frozen=True, eq=False)
class Regrets:
    """Transfer regret under resamples of its own.

    Where λ is chosen on half of the seeds and scored on the others, each half is resampled by itself: a mean
    over a half has the noise of a half. In sample there are no resamples: noise alone makes the regret lie
    high, and an interval around it would miss the truth.
    """

    in_sample: bool  # λ is chosen and scored on the same seeds
    values: Float  # (1 + S, D) at the distances of `pairs`
    resamples: Resamples
    pairs: Pairs
    pairs_in: list[int]  # (D,) pairs in the sample's mean
    pairs_out: list[int]  # (D,) pairs left out of it: the transferred cell diverged or reached its cap

    @classmethod
    def of(cls, cells: _Cells, pairs: Pairs, count: int) -> Regrets:
        """T(Δ) of the sample and of `count` resamples."""
        seeds = len(cells.values)
        in_sample = seeds < CROSS_SCORED_SEEDS
        resamples = Resamples.draw(seeds, 0) if in_sample else Resamples.draw(seeds, count, HALVES)
        chunks = _chunks(resamples.weights, max(cells.inside.size, len(pairs.source)))
        values = [transfer_regret(_ways(cells, pairs, some), pairs) for some in chunks]
        ways = _ways(cells, pairs, resamples.weights[:1])
        valid = np.logical_and.reduce([way.valid[0] for way in ways])
        out = np.logical_or.reduce([cells.out[pairs.target, way.cell[0]] for way in ways])
        counts = pairs.count(valid), pairs.count(out & ~valid)
        return cls(in_sample, np.concatenate(values), resamples, pairs, *counts)

    def estimates(self) -> Iterator[Estimate]:
        """T(Δ) at each distance, see `regret.transfer_regret`."""
        for replicates in self.values.T:
            yield self.estimate(replicates, "at this distance no transferred cell counts")

    def estimate(self, replicates: Float, undefined: str) -> Estimate:
        """A statistic of regrets with its interval; in sample its value alone."""
        found = self.resamples.estimate(replicates, undefined)
        return replace(found, reason=IN_SAMPLE) if self.in_sample and found.value is not None else found


@dataclass(frozen=True, eq=False)
class _Cells:
    """What a pass reads of a surface."""

    log_lr: Float  # (I,)
    weight_decay: Float  # (J,)
    inside: Bool  # (I, J) cells that count
    out: Bool  # (I, J) cells that diverged or reached the cap
    values: Float  # (R, I·J), 0 where a cell does not count

    @classmethod
    def of(cls, surface: Surface) -> _Cells:
        inside = surface.inside
        values = np.where(inside[..., None], surface.values, 0.0).reshape(inside.size, len(surface.seeds)).T
        return cls(np.log2(surface.lr), surface.weight_decay, inside, surface.out, values)

    def means(self, weights: Float) -> Float:
        """Weighted seed means (S, I, J), infinite where a cell does not count."""
        means = (weights @ self.values).reshape(len(weights), *self.inside.shape)
        means[:, ~self.inside] = np.inf
        return means


def _part(everything: _Cells, positive: _Cells, weights: Float) -> tuple[Minima, Minima, Float, Float]:
    """Minima of rows and of columns, best and baseline under some rows of `weights`."""
    means = everything.means(weights)
    zero = everything.weight_decay == 0
    y = means[:, :, ~zero]
    return (
        row_minima(y, np.log2(positive.weight_decay)),
        row_minima(y.transpose(0, 2, 1), positive.log_lr),
        y.min(axis=(1, 2), initial=np.inf),
        means[:, :, zero].min(axis=(1, 2), initial=np.inf),
    )


def _ways(cells: _Cells, pairs: Pairs, weights: Float) -> tuple[Transfers, ...]:
    """λ chosen and scored on all seeds; with enough of them on either half and the other."""
    if weights.shape[1] < CROSS_SCORED_SEEDS:
        y = cells.means(weights)
        return (transfers(y, y, pairs),)
    first, second = (cells.means(half) for half in halves(weights))
    return transfers(first, second, pairs), transfers(second, first, pairs)


def _chunks(weights: Float, size: int) -> Iterator[Float]:
    """Rows of weights, as many at a time as keep arrays of (rows, size) small."""
    step = max(_HELD // max(size, 1), 1)
    return (weights[start : start + step] for start in range(0, len(weights), step))
