"""One surface under analysis: its basin, its resamples, and each metric as an estimate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lrwd_sweep.science.separability.bootstrap import Cells, Estimate, LeftOut, Resamples, chunks
from lrwd_sweep.science.separability.regret import (
    Contrast,
    LrSensitivity,
    Regrets,
    SequentialRegret,
    contrast,
    expected_best,
    interaction_share,
    lr_sensitivity,
)
from lrwd_sweep.science.separability.ridge import (
    MIN_ROWS,
    Minima,
    RidgeCentre,
    RidgeLine,
    away_from_ends,
    contour_slope,
    follows_ridge,
    row_minima,
    windowed_minima,
)
from lrwd_sweep.science.separability.verdict import (
    MARGIN,
    NoiseTest,
    Verdict,
    curvature_coupling,
    interval_verdict,
    noise_test,
)
from lrwd_sweep.science.surface import MIN_CELLS, Basin, Bool, Float, Surface, find_basin, is_flat
from lrwd_sweep.science.trial import Direction

_MANY_ON_EDGE = 0.25  # share of the basin's rows


@dataclass(frozen=True, slots=True)
class Settings:
    """The user's choices for an analysis."""

    quantile: float = 0.5  # of the basin
    tolerance: float | None = None  # of the basin if it is given, in the metric's units
    resamples: int = 1000
    margin: float = MARGIN  # m of the verdict, octaves of λ per octave of α
    initial: float | Sequence[float] | None = None  # y₀, the value before the first step; per seed or for all
    start: tuple[float | None, float | None] = (None, None)  # α and λ at which tuning one at a time starts


@dataclass(frozen=True, eq=False)
class Replicates:
    """The statistics of one surface: of the sample in row 0, of S resamples after it.

    Every resample recomputes the seed means and from them each statistic whole: row minima, ĵ, best cells,
    the weight of each row in the slope. Held fixed at the sample's: which cells count, and the basin's
    cells, so that the same rows may carry the ridge. A basin found anew in each resample changed no interval
    of the slope in simulation. A fixed one makes its fits linear in the seeds: one fit serves all resamples.
    The intervals of the interaction share and of the reverse slope are therefore conditional on the sample's
    basin: that other seeds would have another one is not in them.
    """

    rows: Minima  # (1 + S, I) the optimum λ* of every row
    columns: Minima  # (1 + S, J) the optimum α* of every column with λ > 0
    best: Float  # (1 + S,) smallest mean with λ > 0; infinite if no cell counts
    baseline: Float  # (1 + S,) smallest mean with λ = 0; infinite if no cell counts
    tuned: Float  # (1 + S,) sensitivity to the learning rate with λ tuned; NaN without y₀
    fixed: Float  # (1 + S,) the same with λ fixed

    @classmethod
    def of(
        cls, everything: Cells, positive: Cells, resamples: Resamples, initial: Float | None
    ) -> Replicates:
        """Compute the replicates; `initial` is y₀ of every seed, (R,)."""
        zero, known = everything.weight_decay == 0, positive.inside | positive.out
        rows, columns, others = [], [], []
        for weights in chunks(resamples.weights, everything.inside.size):
            means = everything.means(weights)
            y = means[:, :, ~zero]
            rows.append(row_minima(y, np.log2(positive.weight_decay)))
            columns.append(row_minima(y.transpose(0, 2, 1), positive.log_lr))
            best = (each.min(axis=(1, 2), initial=np.inf) for each in (y, means[:, :, zero]))
            costs = np.full((2, len(y)), np.nan)
            if initial is not None:
                costs = np.stack(lr_sensitivity(y, known, weights @ initial))
            others.append((*best, *costs))
        numbers = (np.concatenate(parts) for parts in zip(*others, strict=True))
        return cls(Minima.joined(rows), Minima.joined(columns), *numbers)


@dataclass(frozen=True, eq=False)
class Analysis:
    """A surface with everything that its metrics share."""

    surface: Surface
    positive: Surface  # its part with λ > 0, on which all but the baseline is measured
    settings: Settings
    cells: tuple[Cells, Cells]  # of the surface, and of its part with λ > 0
    basin: Basin
    resamples: Resamples
    replicates: Replicates
    regrets: Regrets
    noise: NoiseTest | None  # of the λ > 0 part; None if there is nothing to test against
    negative: bool  # higher was better, and the metric changed its sign

    @classmethod
    def of(cls, surface: Surface, settings: Settings) -> Analysis:
        """Resample the surface.

        From here on lower is better: a metric of which higher is better changes its sign.
        """
        negative = surface.direction is Direction.MAXIMIZE
        initial = None
        if settings.initial is not None:
            initial = np.broadcast_to(np.asarray(settings.initial, np.float64), (len(surface.seeds),))
            initial = -initial if negative else initial
        surface = surface.minimized()
        positive = surface.without_baseline()
        basin = find_basin(positive, settings.quantile, settings.tolerance)
        seeds, count = len(surface.seeds), settings.resamples
        everything = Cells.of(surface)
        part = everything if positive is surface else Cells.of(positive)
        drawn = Resamples.draw(seeds, count)
        found = Replicates.of(everything, part, drawn, initial)
        regrets = Regrets.of(part, basin.rows, seeds, count)
        noise = noise_test(positive.values, positive.inside)
        cells = everything, part
        return cls(surface, positive, settings, cells, basin, drawn, found, regrets, noise, negative)

    @property
    def offset(self) -> int:
        """The column of the surface at which its λ > 0 part begins."""
        return len(self.surface.weight_decay) - len(self.positive.weight_decay)

    @cached_property
    def log_lr(self) -> Float:
        """a = log2 α, (I,)."""
        return np.log2(self.surface.lr)

    @cached_property
    def log_decay(self) -> Float:
        """l = log2 λ without the baseline, (J,)."""
        return np.log2(self.positive.weight_decay)

    @property
    def values(self) -> Float:
        """The basin's cells seed by seed, (n, R)."""
        return self.positive.values[self.basin.mask]

    @property
    def incomplete(self) -> bool:
        """Tell if the lattice is refined and has left out cells with λ > 0."""
        return self.positive.is_refined and not (self.positive.inside | self.positive.out).all()

    @cached_property
    def three_cell_line(self) -> RidgeLine:
        """The ridge of the rows' three-cell minima, away from the ends of the λ axis."""
        rows = self.basin.rows
        minima = away_from_ends(self.replicates.rows, self.log_decay, self.log_lr, rows)
        return RidgeLine.fit(minima, self.log_lr, rows)

    @cached_property
    def line(self) -> RidgeLine:
        """The ridge line that decides: where the ridge leaves the axis, in a window that follows it."""
        if not self.rows_on_edge or not follows_ridge(self.log_decay) or self.nothing_to_fit:
            return self.three_cell_line
        axes = self.log_decay, self.log_lr, self.basin.rows
        minima = Minima.joined(windowed_minima(y, *axes) for y in self._means())
        if np.count_nonzero(minima.curvature[0]) < MIN_ROWS:
            return self.three_cell_line
        return RidgeLine.fit(minima, self.log_lr, self.basin.rows)

    def _means(self) -> Iterator[Float]:
        """Yield the means of all resamples, (S, I, J), a part of them at a time."""
        part, weights = self.cells[1], self.resamples.weights
        return (part.means(some) for some in chunks(weights, part.inside.size))

    @property
    def windowed(self) -> bool:
        """Tell if the ridge leaves the axis, and a window that follows it gives the slope instead."""
        return self.line is not self.three_cell_line

    @cached_property
    def ridge_slope(self) -> Estimate:
        """s, see `RidgeLine`; if λ has no measurable effect within rows its reason says so."""
        return self._with_noise(self._slope(self.line, self.basin.rows, "weight decay", "rows"))

    @cached_property
    def three_cell_slope(self) -> Estimate:
        """s of the rows' three-cell minima, also where the ridge leaves the axis."""
        if not self.windowed:
            return self.ridge_slope
        return self._with_noise(self._slope(self.three_cell_line, self.basin.rows, "weight decay", "rows"))

    @cached_property
    def reverse_slope(self) -> Estimate:
        """s′, the same of the transposed surface; its interval is conditional on the sample's basin."""
        columns = self.basin.columns
        minima = away_from_ends(self.replicates.columns, self.log_lr, self.log_decay, columns)
        line = RidgeLine.fit(minima, self.log_decay, columns)
        return self._slope(line, columns, "learning rate", "columns")

    def _slope(self, line: RidgeLine, lines: Bool, over: str, names: str) -> Estimate:
        carried = int(np.count_nonzero(line.minima.curvature[0, lines]))
        undefined = self.nothing_to_fit or (
            f"the minimum over {over} is interior in {carried} of {int(lines.sum())} {names} of the basin, "
            f"at least {MIN_ROWS} are needed"
        )
        return self.resamples.estimate(line.slope, undefined)

    def _with_noise(self, slope: Estimate) -> Estimate:
        noise = "" if self.noise is None or self.nothing_to_fit else self.noise.reason
        return replace(slope, reason="; ".join(filter(None, (noise, slope.reason))))

    def ridge(self) -> tuple[tuple[int, float], ...]:
        """List (row, log2 λ*) of the rows that carry s."""
        minima = self.line.minima
        carried = np.flatnonzero(self.basin.rows & (minima.curvature[0] > 0))
        return tuple((int(i), float(minima.position[0, i])) for i in carried)

    def bow(self) -> Estimate:
        """Estimate how far the ridge bends, in octaves of λ, see `RidgeLine.fit`."""
        return self.resamples.estimate(self.line.bow, f"fewer than {MIN_ROWS + 1} rows carry the ridge")

    def centre(self) -> RidgeCentre | None:
        """Return the weighted centre of the ridge; None without a ridge."""
        found = self.resamples.estimate(self.line.height, "")
        return None if found.value is None else RidgeCentre(self.line.centre, found)

    def contour_slope(self) -> Estimate:
        """Estimate the slope of the basin's contour, if no row has an interior minimum."""
        tolerance = self.basin.tolerance
        if tolerance is None or self.nothing_to_fit or self.ridge():
            reason = self.nothing_to_fit or "rows have an interior minimum: the ridge slope says more"
            return Estimate(None, reason=reason)
        slopes = [contour_slope(y, self.log_decay, self.log_lr, tolerance) for y in self._means()]
        undefined = f"the basin's contour crosses fewer than {MIN_ROWS} rows between two cells"
        return self.resamples.estimate(np.concatenate(slopes), undefined)

    @cached_property
    def rows_on_edge(self) -> dict[str, int]:
        """The number of the basin's rows with their best λ on a side of the λ > 0 lattice, if these are many.

        Rows whose optimum is just outside carry the slope only when noise pulls it in, which draws s towards
        0. More than a quarter of the rows are many, beside a slope at least three; flat rows do not count.
        """
        last = self.positive.inside.shape[1] - 1
        y = np.where(self.positive.inside, self.positive.mean, np.inf)[self.basin.rows]
        shaped = y[[not is_flat(row[np.isfinite(row)]) for row in y]]
        best = shaped.argmin(axis=1) if last > 0 else np.empty(0)
        found = {f"weight_decay:{end}": int(np.sum(best == at)) for end, at in (("low", 0), ("high", last))}
        total, least = sum(found.values()), MIN_ROWS if np.isfinite(self.three_cell_line.slope[0]) else 1
        many = total >= least and total > _MANY_ON_EDGE * len(y)
        return {side: count for side, count in found.items() if count and many}

    def curvature_coupling(self) -> Estimate:
        """Estimate ρ, see `verdict.curvature_coupling`; a ridge or saddle says so as its reason."""
        i, j = np.nonzero(self.basin.mask)
        rho = curvature_coupling(self.values, self.log_lr[i], self.log_decay[j], self.resamples.weights)
        undefined = self.nothing_to_fit or "the basin fixes no quadratic with a minimum along both axes"
        found = self.resamples.estimate(rho, undefined)
        if found.value is not None and abs(found.value) >= 1 - 1e-9 and not found.reason:
            return replace(found, reason="a ridge: |ρ| ≥ 1, the basin's quadratic has no single minimum")
        return found

    def interaction_share(self) -> Estimate:
        """Estimate the masked share, see `regret.interaction_share`."""
        return interaction_share(self.values, self.basin.mask, self.resamples, self.nothing_to_fit)

    def baseline_gain(self) -> Estimate:
        """Estimate the gain of decay: the best λ = 0 mean minus the best λ > 0 mean, in the metric's units.

        Above 0, decay helps. Any real number; invariant to y → y + d, scales with y → cy. It flatters decay
        a little: the best of many λ > 0 cells is luckier than the best of the one λ = 0 column.
        """
        undefined = "no cell at a weight decay above 0 counts"
        if self.positive is self.surface:
            undefined = "the lattice has no column at weight decay 0"
        elif not np.isfinite(self.replicates.baseline[0]):
            undefined = "no cell at weight decay 0 counts"
        return self.resamples.estimate(self.replicates.baseline - self.replicates.best, undefined)

    def best_value(self) -> Float:
        """Return the smallest mean over all cells, λ = 0 included, (1 + S,)."""
        return np.minimum(self.replicates.best, self.replicates.baseline)

    def expected_best(self) -> Estimate:
        """Estimate the value of new seeds, see `regret.expected_best`; in the metric's own direction."""
        left_out = LeftOut.one_by_one(len(self.surface.seeds), self.settings.resamples)
        found = expected_best(self.cells[0], left_out)
        return found.negated() if self.negative else found

    def sequential_regret(self) -> tuple[SequentialRegret, ...]:
        """Estimate SR, the learning rate first and the decay first, see `regret.Regrets`."""
        lr, decay = self.settings.start
        return (
            self.regrets.sequential("lr", self.positive.weight_decay, decay),
            self.regrets.sequential("weight_decay", self.positive.lr, lr),
        )

    def lr_sensitivity(self) -> LrSensitivity:
        """Estimate the cost of a wrong α, see `regret.lr_sensitivity`; needs the value at initialisation."""
        tuned, fixed = self.replicates.tuned, self.replicates.fixed
        undefined = "the value at initialisation is not known"
        if self.settings.initial is not None:
            undefined = "no cell counts, or the value at initialisation is not above the best cell's"
        return LrSensitivity(
            *(self.resamples.estimate(each, undefined) for each in (tuned, fixed, fixed - tuned))
        )

    def contrast(self) -> Contrast | None:
        """Compute the interaction contrast, if the surface is too small for a ridge slope."""
        if int(self.positive.inside.sum()) >= MIN_CELLS and len(self.ridge()) >= MIN_ROWS:
            return None
        found = contrast(self.positive.values, self.positive.inside, self.log_lr, self.log_decay)
        if found is None:
            return None
        low, high = found.columns
        return replace(found, columns=(low + self.offset, high + self.offset))

    @cached_property
    def nothing_to_fit(self) -> str:
        """The reason why no metric of the basin exists at all; empty if some do."""
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
        """Tell if λ has no measurable effect within rows; the verdict is then undetermined."""
        return self.noise is not None and not self.noise.passed

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on the interval of s; undetermined if λ has no measurable effect within rows."""
        if self.lost_in_noise():
            return Verdict.UNDETERMINED
        return interval_verdict(self.ridge_slope, self.settings.margin)
