"""Every statistic of a surface under every resample of its seeds, in one pass over the resampled means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrwd_sweep.separability.basin import Basin
from lrwd_sweep.separability.bootstrap import Resamples
from lrwd_sweep.separability.regret import Pairs, Transfers, halves, transfer_regret, transfers
from lrwd_sweep.separability.ridge import Minima, row_minima
from lrwd_sweep.surface import Bool, Float, Surface

CROSS_SCORED_SEEDS = 4  # with as many, transfer regret chooses λ on half of the seeds and scores on the rest
_HELD = 1_000_000  # numbers held at a time: 8 MB an array


@dataclass(frozen=True, eq=False)
class Replicates:
    """The statistics of one surface: of the sample in row 0, of S resamples after it.

    Every resample recomputes the seed means and from them each statistic whole: row minima, ĵ, best cells.
    Held fixed at the sample's: which cells count, the basin's cells, and so the rows that may carry the
    ridge. Found anew in each resample they changed no interval of the slope in simulation, and fixed they
    make the basin's fits linear in the seeds: one fit serves all resamples.
    """

    rows: Minima  # (1 + S, I) the optimum λ* of every row
    columns: Minima  # (1 + S, J) the optimum α* of every column with λ > 0
    regret: Float  # (1 + S, D) at the distances of `pairs`
    best: Float  # (1 + S,) smallest mean with λ > 0; infinite where no cell counts
    baseline: Float  # (1 + S,) smallest mean with λ = 0; infinite where no cell counts
    pairs: Pairs
    pairs_in: list[int]  # (D,) pairs in the sample's mean
    pairs_out: list[int]  # (D,) pairs left out of it: the transferred cell diverged or reached its cap

    @classmethod
    def of(cls, surface: Surface, basin: Basin, resamples: Resamples) -> Replicates:
        """The replicates of `surface`; `basin` is that of its part with λ > 0 and says which rows pair up."""
        pairs = Pairs.of(np.log2(surface.lr), basin.rows)
        everything, positive = _Cells.of(surface), _Cells.of(surface.without_baseline())
        held = max(everything.inside.size, len(pairs.source))
        parts = [_part(everything, positive, pairs, some) for some in _chunks(resamples.weights, held)]
        return cls(
            rows=Minima.joined([part.rows for part in parts]),
            columns=Minima.joined([part.columns for part in parts]),
            regret=np.concatenate([part.regret for part in parts]),
            best=np.concatenate([part.best for part in parts]),
            baseline=np.concatenate([part.baseline for part in parts]),
            pairs=pairs,
            pairs_in=parts[0].pairs_in,
            pairs_out=parts[0].pairs_out,
        )


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


def _part(everything: _Cells, positive: _Cells, pairs: Pairs, weights: Float) -> Replicates:
    """The replicates under some rows of `weights`."""
    means = everything.means(weights)
    zero = everything.weight_decay == 0
    y = means[:, :, ~zero]
    ways = _ways(positive, y, pairs, weights)
    valid = np.logical_and.reduce([way.valid[0] for way in ways])
    out = np.logical_or.reduce([positive.out[pairs.target, way.cell[0]] for way in ways])
    return Replicates(
        rows=row_minima(y, np.log2(positive.weight_decay)),
        columns=row_minima(y.transpose(0, 2, 1), positive.log_lr),
        regret=transfer_regret(ways, pairs),
        best=y.min(axis=(1, 2), initial=np.inf),
        baseline=means[:, :, zero].min(axis=(1, 2), initial=np.inf),
        pairs=pairs,
        pairs_in=pairs.count(valid),
        pairs_out=pairs.count(out & ~valid),
    )


def _ways(cells: _Cells, y: Float, pairs: Pairs, weights: Float) -> tuple[Transfers, ...]:
    """λ chosen and scored on all seeds; with enough of them on either half and the other."""
    if weights.shape[1] < CROSS_SCORED_SEEDS:
        return (transfers(y, y, pairs),)
    first, second = (cells.means(half) for half in halves(weights))
    return transfers(first, second, pairs), transfers(second, first, pairs)


def _chunks(weights: Float, size: int) -> Iterator[Float]:
    """Rows of weights, as many at a time as keep arrays of (rows, size) small."""
    step = max(_HELD // max(size, 1), 1)
    return (weights[start : start + step] for start in range(0, len(weights), step))
