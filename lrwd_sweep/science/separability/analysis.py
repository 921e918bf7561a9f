"""One surface under analysis: its basin, its resamples, and each metric as an estimate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lrwd_sweep.science.separability.basin import MIN_CELLS, Basin, find_basin, is_flat
from lrwd_sweep.science.separability.bootstrap import Estimate, Resamples
from lrwd_sweep.science.separability.curvature import curvature_coupling
from lrwd_sweep.science.separability.interaction import interaction_share, signal
from lrwd_sweep.science.separability.noise import NoiseTest, noise_test
from lrwd_sweep.science.separability.replicates import Replicates
from lrwd_sweep.science.separability.ridge import MIN_ROWS, Minima, ridge_slope
from lrwd_sweep.science.separability.verdict import Verdict, interval_verdict
from lrwd_sweep.science.surface import Bool, Float, Surface

_MANY_ON_EDGE = 0.25  # share of the basin's rows


@dataclass(frozen=True, eq=False)
class Analysis:
    """A surface with everything that its metrics share."""

    surface: Surface
    positive: Surface  # its part with λ > 0, on which all but the baseline is measured
    quantile: float  # of the basin
    tolerance: float | None  # of the basin where it was given, in the metric's units
    basin: Basin
    resamples: Resamples
    replicates: Replicates
    noise: NoiseTest | None  # of the λ > 0 part; None where there is nothing to test against

    @classmethod
    def of(cls, surface: Surface, *, quantile: float, tolerance: float | None, resamples: int) -> Analysis:
        """Resample the surface; `quantile` and `tolerance` are those of `find_basin`.

        From here on lower is better: a metric of which higher is better changes its sign.
        """
        surface = surface.minimized()
        positive = surface.without_baseline()
        basin = find_basin(positive.mean, positive.inside, quantile, tolerance)
        drawn = Resamples.draw(len(surface.seeds), resamples)
        found = Replicates.of(surface, basin, drawn)
        noise = noise_test(positive.values, positive.inside)
        return cls(surface, positive, quantile, tolerance, basin, drawn, found, noise)

    def with_basin(self, quantile: float, tolerance: float | None) -> Analysis:
        """The same analysis with another basin; the transfer regret keeps the pairs of the first."""
        basin = find_basin(self.positive.mean, self.positive.inside, quantile, tolerance)
        return replace(self, quantile=quantile, tolerance=tolerance, basin=basin)

    @property
    def offset(self) -> int:
        """The column of the surface at which its λ > 0 part begins."""
        return len(self.surface.weight_decay) - len(self.positive.weight_decay)

    @property
    def log_lr(self) -> Float:
        """a = log2 α, (I,)."""
        return np.log2(self.surface.lr)

    @property
    def log_decay(self) -> Float:
        """l = log2 λ without the baseline, (J,)."""
        return np.log2(self.positive.weight_decay)

    @property
    def values(self) -> Float:
        """The basin's cells seed by seed, (n, R)."""
        return self.positive.values[self.basin.mask]

    def ridge_slope(self) -> Estimate:
        """s, see `ridge.ridge_slope`; where λ has no measurable effect within rows its reason says so."""
        found = self._slope(self.replicates.rows, self.log_lr, self.basin.rows, "weight decay", "rows")
        noise = "" if self.noise is None or self.nothing_to_fit() else self.noise.reason
        return replace(found, reason="; ".join(filter(None, (noise, found.reason))))

    def reverse_slope(self) -> Estimate:
        """s′, the same of the transposed surface; its interval is conditional on the sample's basin."""
        return self._slope(
            self.replicates.columns, self.log_decay, self.basin.columns, "learning rate", "columns"
        )

    def _slope(self, minima: Minima, axis: Float, lines: Bool, other: str, name: str) -> Estimate:
        carried = int(np.count_nonzero(minima.curvature[0, lines]))
        undefined = self.nothing_to_fit() or (
            f"the minimum over {other} is interior in {carried} of {int(lines.sum())} {name} of the basin, "
            f"at least {MIN_ROWS} are needed"
        )
        return self.resamples.estimate(ridge_slope(minima, axis, lines), undefined)

    def ridge(self) -> tuple[tuple[int, float], ...]:
        """(row, log2 λ*) of the rows that carry s."""
        minima, rows = self.replicates.rows, self.basin.rows
        carried = np.flatnonzero(rows & (minima.curvature[0] > 0))
        return tuple((int(i), float(minima.position[0, i])) for i in carried)

    def rows_on_edge(self) -> dict[str, int]:
        """How many of the basin's rows have their best λ on a side of the λ > 0 lattice, if these are many.

        Rows whose optimum is just outside carry the slope only when noise pulls it in, which draws s towards
        0. More than a quarter of the rows are many, beside a slope at least three; flat rows do not count.
        """
        last = self.positive.inside.shape[1] - 1
        y = np.where(self.positive.inside, self.positive.mean, np.inf)[self.basin.rows]
        shaped = y[[not is_flat(row[np.isfinite(row)]) for row in y]]
        best = shaped.argmin(axis=1) if last > 0 else np.empty(0)
        found = {f"weight_decay:{end}": int(np.sum(best == at)) for end, at in (("low", 0), ("high", last))}
        total, least = sum(found.values()), 1 if self.ridge_slope().value is None else MIN_ROWS
        many = total >= least and total > _MANY_ON_EDGE * len(y)
        return {side: count for side, count in found.items() if count and many}

    def curvature_coupling(self) -> Estimate:
        """ρ, see `curvature.curvature_coupling`; a ridge or saddle says so as its reason."""
        i, j = np.nonzero(self.basin.mask)
        rho = curvature_coupling(self.values, self.log_lr[i], self.log_decay[j], self.resamples.weights)
        undefined = self.nothing_to_fit() or "the basin fixes no quadratic with a minimum along both axes"
        found = self.resamples.estimate(rho, undefined)
        if found.value is not None and abs(found.value) >= 1 - 1e-9 and not found.reason:
            return replace(found, reason="a ridge: |ρ| ≥ 1, the basin's quadratic has no single minimum")
        return found

    def interaction_share(self) -> Estimate:
        """The masked share, see `interaction.interaction_share`."""
        i, j = np.nonzero(self.basin.mask)
        share = interaction_share(self.values, i, j, self.resamples.weights)
        undefined = self.nothing_to_fit() or (
            "the basin has no more cells than the additive fit has terms"
            if signal(self.values, self.resamples.weights[:1])[0] > 0
            else "noise: the basin's means spread no more than the seeds' residual variance spreads them"
        )
        found = self.resamples.estimate(share, undefined)
        if len(self.surface.seeds) == 1 and found.value is not None:
            return replace(found, reason="one seed: an upper bound, noise counts as interaction")
        return found

    def baseline_gain(self) -> Estimate:
        """The best λ = 0 mean minus the best λ > 0 mean: what decay gains, in the metric's units.

        Above 0, decay helps. Any real number; invariant to y → y + d, scales with y → cy. It flatters decay
        a little: the best of many λ > 0 cells is luckier than the best of the one λ = 0 column.
        """
        if self.positive is self.surface:
            undefined = "the lattice has no column at weight decay 0"
        elif not np.isfinite(self.replicates.baseline[0]):
            undefined = "no cell at weight decay 0 counts"
        else:
            undefined = "no cell at a weight decay above 0 counts"
        return self.resamples.estimate(self.replicates.baseline - self.replicates.best, undefined)

    def best_value(self) -> Float:
        """The smallest mean over all cells, λ = 0 included, (1 + S,)."""
        return np.minimum(self.replicates.best, self.replicates.baseline)

    def top(self, count: int) -> list[tuple[int, int]]:
        """The `count` best cells with λ > 0, best first; ties go to the smaller index."""
        inside = self.positive.inside
        order = np.argsort(np.where(inside, self.positive.mean, np.inf), axis=None, kind="stable")
        chosen = order[: min(count, int(inside.sum()))]
        return [divmod(int(k), inside.shape[1]) for k in chosen]

    def nothing_to_fit(self) -> str:
        """Why no metric of the basin exists at all, or nothing."""
        cells = int(self.positive.inside.sum())
        rows, columns = self.positive.inside.shape
        if cells < MIN_CELLS and min(rows, columns) < 2:
            return (
                f"not applicable to {rows} learning rate{'s' * (rows != 1)} × {columns} weight "
                f"decay{'s' * (columns != 1)} above 0: at least two of each are needed"
            )
        if cells < MIN_CELLS:
            return (
                f"too few cells: {cells} of {self.positive.inside.size} with weight decay above 0 "
                f"count, at least {MIN_CELLS} are needed"
            )
        if is_flat(self.positive.mean[self.basin.mask]):
            return "the basin is flat: all its cells have the same value"
        return ""

    def lost_in_noise(self) -> bool:
        """Whether λ has no measurable effect within rows; the verdict is then undetermined."""
        return self.noise is not None and not self.noise.passed

    def verdict(self) -> Verdict:
        """The verdict on the interval of s; undetermined where λ has no measurable effect within rows."""
        return Verdict.UNDETERMINED if self.lost_in_noise() else interval_verdict(self.ridge_slope())
