"""Separability: can α and λ be tuned one at a time on this surface, and if not, along which line together?

`analyse` and `compare` are the two questions; the numbers of a surface are the fields of `Separability`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp

import numpy as np

from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.separability.analysis import Analysis, Settings
from lrwd_sweep.science.separability.bootstrap import MIN_SEEDS, Estimate, LeftOut, Resamples
from lrwd_sweep.science.separability.regret import (
    LEFT_OUT,
    SAME_DISTANCE,
    Contrast,
    LrSensitivity,
    SequentialRegret,
    TransferRegret,
)
from lrwd_sweep.science.separability.ridge import RidgeCentre, RidgeTimescale, slope_from_rows
from lrwd_sweep.science.separability.verdict import (
    MARGIN,
    NO_EFFECT,
    AtBasin,
    NoiseTest,
    Separability,
    Verdict,
    checked_margin,
    interval_verdict,
    point_verdict,
    possible_verdicts,
    seeds_to_settle,
    too_near_margin,
)
from lrwd_sweep.science.surface import Bool, Float, Surface, find_basin, is_flat
from lrwd_sweep.science.trial import Direction

__all__ = [
    "AtBasin",
    "Contrast",
    "Estimate",
    "LrSensitivity",
    "NoiseTest",
    "PairedDifferences",
    "RidgeCentre",
    "RidgeTimescale",
    "Separability",
    "SequentialRegret",
    "TransferRegret",
    "Verdict",
    "analyse",
    "compare",
]

TOP = 10


def analyse(
    surface: Surface,
    *,
    basin_quantile: float = 0.5,
    basin_tolerance: float | None = None,
    resamples: int = 1000,
    margin: float = MARGIN,
    initial: float | Sequence[float] | None = None,
    start: tuple[float | None, float | None] = (None, None),
) -> Separability:
    """Compute all metrics of `surface` with their 90 % intervals.

    The basin is the best `basin_quantile` of the cells that count, or all within `basin_tolerance` (in the
    metric's units) of the best. `margin` is the verdict's m; `initial` the metric's value before the first
    step, for all seeds or per seed of the surface; `start` the α and the number on the decay axis at which
    tuning one at a time starts. The same surface always gives the same numbers. If something cannot be said
    the value is None and its `reason` tells why. Raises UsageError for a margin outside (0, 0.5].
    """
    settings = Settings(basin_quantile, basin_tolerance, resamples, checked_margin(margin), initial, start)
    with np.errstate(all="ignore"):  # absurdly large values overflow; the estimates catch what is not finite
        return _report(Analysis.of(surface, settings))


def _report(analysis: Analysis) -> Separability:
    surface, offset, margin = analysis.surface, analysis.offset, analysis.settings.margin
    slope, ridge = analysis.ridge_slope, analysis.ridge()
    from_rows = slope_from_rows(analysis.line.minima, analysis.log_lr, analysis.basin.rows)
    robustness, top = tuple(_at_other_basins(analysis)), _top(analysis)
    inside = analysis.positive.inside
    best = np.zeros_like(inside)
    if not is_flat(analysis.positive.mean[inside]):  # where any cell is as good
        best[top[0]] = True
    edge = _sides(best)
    basin = np.zeros(surface.inside.shape, dtype=bool)
    basin[:, offset:] = analysis.basin.mask
    cost = analysis.lr_sensitivity()
    open_ = analysis.verdict is Verdict.UNDETERMINED and not analysis.lost_in_noise()

    def whole(estimate: Estimate) -> Estimate:
        return LEFT_OUT if analysis.incomplete else estimate

    return Separability(
        verdict=analysis.verdict,
        point_verdict=point_verdict(slope, margin),
        reason=_reason(analysis, edge, robustness),
        noise_test=analysis.noise,
        ridge_slope=slope,
        ridge_rows=len(ridge),
        reverse_slope=whole(analysis.reverse_slope),
        ridge=ridge,
        slope_by_convention=_slope_by_convention(surface.rule, slope.value),
        curvature_coupling=analysis.curvature_coupling(),
        transfer_regret=tuple(analysis.regrets.transfer(analysis.incomplete)),
        interaction_share=whole(analysis.interaction_share()),
        top10_tilt=_top_tilt(analysis.log_lr, analysis.log_decay, top),
        top10=tuple((i, j + offset) for i, j in top),
        basin=basin,
        basin_tolerance=analysis.basin.tolerance,
        on_edge=edge,
        basin_on_edge=_sides(analysis.basin.mask),
        rows_on_edge=analysis.rows_on_edge,
        baseline_gain=analysis.baseline_gain(),
        robustness=robustness,
        margin=margin,
        margin_octaves=margin * float(np.ptp(analysis.log_lr)) if len(analysis.log_lr) else 0.0,
        allowed=possible_verdicts(slope, margin),
        seeds_to_settle=seeds_to_settle(slope, len(surface.seeds), margin) if open_ else None,
        too_near_margin=open_ and slope.has_interval and too_near_margin(slope, margin),
        windowed=analysis.windowed,
        three_cell_slope=analysis.three_cell_slope,
        slope_from_rows=from_rows,
        verdict_from_rows=interval_verdict(from_rows, margin),
        ridge_centre=analysis.centre(),
        bow=analysis.bow(),
        contour_slope=analysis.contour_slope(),
        sequential_regret=tuple(
            replace(each, estimate=whole(each.estimate)) for each in analysis.sequential_regret()
        ),
        lr_sensitivity=LrSensitivity(whole(cost.tuned), whole(cost.fixed), whole(cost.difference)),
        expected_best=analysis.expected_best(),
        contrast=analysis.contrast(),
        best_by_row=_best_by_row(analysis),
    )


def _best_by_row(analysis: Analysis) -> tuple[tuple[int, int], ...]:
    """List (row, column of the surface) of the best λ > 0 of every row with a cell that counts."""
    y = np.where(analysis.positive.inside, analysis.positive.mean, np.inf)
    rows = np.flatnonzero(analysis.positive.inside.any(axis=1))
    return tuple((int(i), int(y[i].argmin()) + analysis.offset) for i in rows)


def _top(analysis: Analysis) -> list[tuple[int, int]]:
    """List the ten best cells with λ > 0, best first; ties go to the smaller index."""
    inside = analysis.positive.inside
    order = np.argsort(np.where(inside, analysis.positive.mean, np.inf), axis=None, kind="stable")
    return [divmod(int(k), inside.shape[1]) for k in order[: min(TOP, int(inside.sum()))]]


def _sides(mask: Bool) -> tuple[str, ...]:
    """Name the sides of the λ > 0 lattice that a mask touches; an axis that was held fixed has none."""
    ends = {
        "lr:low": mask[:1],
        "lr:high": mask[-1:],
        "weight_decay:low": mask[:, :1],
        "weight_decay:high": mask[:, -1:],
    }
    fixed = [name for name, size in zip(("lr", "weight_decay"), mask.shape, strict=True) if size < 2]
    return tuple(side for side, cells in ends.items() if cells.any() and side.partition(":")[0] not in fixed)


def _slope_by_convention(rule: DecayRule, slope: float | None) -> dict[str, float | None]:
    """Return s with λ and with w = λ/α on the axis: s_w = s_λ − 1 exactly, under any schedule.

    The factors that stand beside α, 1/√N of normalised decay and 1/(1−β₁) of SGDP, only shift the axis. A
    coupled λ′ is neither λ nor w; nor is fixed or corrected decay, unless η = 1 throughout.
    """
    shift = {DecayRule.INDEPENDENT: 0.0, DecayRule.LR_SCALED: 1.0}.get(rule)
    if slope is None or shift is None:
        return {"independent": None, "lr-scaled": None}
    return {"independent": slope + shift, "lr-scaled": slope + shift - 1}


def _top_tilt(
    log_lr: Float,  # (I,)
    log_decay: Float,  # (J,)
    cells: list[tuple[int, int]],
) -> Estimate:
    """Compute Pearson's r of (log2 α, log2 λ) over the ten best cells, the paper's black circles.

    Dimensionless, −1 to 1; invariant to shifting and stretching either axis and to any increasing map of
    y. For comparison with the paper only: it misleads near a border, which cuts the circles off, and if the
    basin holds many more than ten cells.
    """
    if len(cells) < TOP:
        return Estimate(None, reason=f"only {len(cells)} cells count, the tilt needs {TOP}")
    i, j = np.array(cells).T
    x, y = (values - values.mean() for values in (log_lr[i], log_decay[j]))
    size = float(np.sqrt((x @ x) * (y @ y)))
    if size == 0:
        return Estimate(None, reason=f"the {TOP} best cells lie in one row or column")
    return Estimate(float(np.clip(x @ y / size, -1, 1)))


def _at_other_basins(analysis: Analysis) -> Iterator[AtBasin]:
    """Give the verdict at half and at double the basin, whose quantile ends at 1.

    The transfer regret keeps the pairs of the first basin.
    """
    for factor in (0.5, 2.0):
        quantile = min(analysis.settings.quantile * factor, 1.0)
        given = analysis.settings.tolerance
        tolerance = None if given is None else given * factor
        other = replace(analysis, basin=find_basin(analysis.positive, quantile, tolerance))
        size = quantile if tolerance is None else tolerance
        yield AtBasin(size, other.verdict, other.ridge_slope)


def _reason(analysis: Analysis, edge: tuple[str, ...], robustness: tuple[AtBasin, ...]) -> str:
    """Say why the verdict is undetermined, then what to be careful about."""
    slope, parts = analysis.ridge_slope, []
    if analysis.verdict is Verdict.UNDETERMINED:
        interval = f"the slope's interval {slope.low:.2f} to {slope.high:.2f}" if not slope.reason else ""
        parts.append(slope.reason or f"noise: {interval} allows more than one verdict")
    if edge:
        parts.append(f"the best cell is on the edge of the lattice ({', '.join(edge)})")
    if slope.value is not None and (found := analysis.rows_on_edge):
        what = "which draws the slope towards 0: a longer axis there would tell"
        if analysis.windowed:
            what = "the slope is that of a window that follows the ridge: a longer axis there would settle it"
        parts.append(
            f"the best wd of {sum(found.values())} of {np.sum(analysis.basin.rows)} rows is on the edge "
            f"({', '.join(found)}), {what}"
        )
    changed = [other for other in robustness if other.verdict is not analysis.verdict]
    parts += [f"with the basin at {other.basin:.3g} the verdict is {other.verdict}" for other in changed]
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class PairedDifferences:
    """Two surfaces, resampled by the same seeds; differences are b − a, the ratio is b/a."""

    slope_difference: Estimate
    distance_difference: Estimate  # |s_b| − |s_a|: below 0 if b is the closer to separable
    regret_ratio: Estimate
    best_difference: Estimate
    verdict: str  # one plain sentence that claims no more than the intervals do


def compare(
    a: Surface,
    b: Surface,
    *,
    name_a: str = "a",
    name_b: str = "b",
    basin_quantile: float = 0.5,
    basin_tolerance: float | None = None,
    resamples: int = 1000,
    margin: float = MARGIN,
) -> PairedDifferences:
    """Compare two surfaces, paired on the seeds that both have.

    Seeds share initialisation and data order across studies, so an effect of a seed on both cancels. With
    fewer than three common seeds the values come from all seeds of each, without intervals. Each slope is in
    its own study's decay convention. Raises UsageError for a margin outside (0, 0.5].
    """
    settings = Settings(basin_quantile, basin_tolerance, resamples, checked_margin(margin))

    def analysed(surface: Surface, count: int = resamples) -> Analysis:
        return Analysis.of(surface, replace(settings, resamples=count))

    common = tuple(seed for seed in a.seeds if seed in b.seeds)
    with np.errstate(all="ignore"):  # as in `analyse`
        own_a, own_b = analysed(a), analysed(b)
        if a.seeds == b.seeds and len(common) >= MIN_SEEDS:
            pair = _Pair(own_a, own_b)
        elif len(common) >= MIN_SEEDS:
            pair = _Pair(analysed(a.with_seeds(common)), analysed(b.with_seeds(common)))
        else:
            unpaired = f"too few common seeds for an interval: {len(common)}, at least {MIN_SEEDS} are needed"
            pair = _Pair(analysed(a, 0), analysed(b, 0), unpaired)
        slopes, best = pair.slope_difference(), pair.best_difference()
        if a.direction is not b.direction and best.value is not None:
            best = Estimate(None, reason="higher is better in one of them, lower in the other")
        elif a.direction is Direction.MAXIMIZE:
            best = best.negated()
        distance = pair.distance_difference()
        return PairedDifferences(
            slope_difference=slopes,
            distance_difference=distance,
            regret_ratio=pair.regret_ratio(),
            best_difference=best,
            verdict=f"{_standing(name_a, own_a)} and {_standing(name_b, own_b)}; "
            f"{_difference(slopes, distance)}",
        )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two analyses whose resamples match row by row; if they do not, `unpaired` says why."""

    a: Analysis
    b: Analysis
    unpaired: str = ""

    def slope_difference(self) -> Estimate:
        """Estimate s_b − s_a, octaves per octave; 0 if the ridges are parallel."""
        return self._estimate(self.b.line.slope - self.a.line.slope, "a ridge slope is undetermined")

    def distance_difference(self) -> Estimate:
        """Estimate |s_b| − |s_a|; below 0 if b is the closer to separable."""
        distances = np.abs(self.b.line.slope) - np.abs(self.a.line.slope)
        return self._estimate(distances, "a ridge slope is undetermined")

    def regret_ratio(self) -> Estimate:
        """Estimate T_b/T_a at the smallest distance that both have; below 1 if b forgives more.

        Dimensionless; the interval is that of the ratio's logarithm; none if the regrets are scored in
        sample. Undefined unless both are above 0, which excludes a surface that loses nothing.
        """
        if self._metrics_differ():
            return Estimate(None, reason=self._metrics_differ())
        regrets = self._regrets_at_common_distance()
        if regrets is None:
            return Estimate(None, reason="the two have no row distance in common")
        if self.a.incomplete or self.b.incomplete:
            return LEFT_OUT
        regret_a, regret_b = (np.where(regret > 0, regret, np.nan) for regret in regrets)
        undefined = "a transfer regret is undetermined or not above 0"
        return self._estimate(np.log(regret_b / regret_a), undefined, self.a.regrets.left_out).mapped(exp)

    def best_difference(self) -> Estimate:
        """Estimate the smallest mean of b minus that of a, in the metric's units; λ = 0 takes part.

        Each is the luckiest of many cells, so both flatter; a larger or noisier lattice flatters more.
        """
        if self._metrics_differ():
            return Estimate(None, reason=self._metrics_differ())
        difference = self.b.best_value() - self.a.best_value()
        return self._estimate(difference, "one of the two has no cell that counts")

    def _regrets_at_common_distance(self) -> tuple[Float, Float] | None:
        """Return T of a and of b, (1 + S,) each, at the smallest distance at which both have a pair."""
        a, b = self.a.regrets, self.b.regrets
        for d, octaves in enumerate(a.pairs.octaves):
            for e, other in enumerate(b.pairs.octaves):
                if abs(octaves - other) < SAME_DISTANCE and a.pairs_in[d] and b.pairs_in[e]:
                    return a.values[:, d], b.values[:, e]
        return None

    def _metrics_differ(self) -> str:
        metric_a, metric_b = self.a.surface.metric, self.b.surface.metric
        return "" if metric_a == metric_b else f"they are measured in {metric_a} and {metric_b}"

    def _estimate(
        self, replicates: Float, undefined: str, resampled: Resamples | LeftOut | None = None
    ) -> Estimate:
        found = (resampled or self.a.resamples).estimate(replicates, undefined)
        return replace(found, reason=self.unpaired) if self.unpaired and found.value is not None else found


def _standing(name: str, analysis: Analysis) -> str:
    """Write `adamw is separable (ridge slope 0.05)`."""
    slope = analysis.ridge_slope.value
    number = "no ridge slope" if slope is None else f"ridge slope {_number(slope)}"
    effect = f"; {NO_EFFECT}" if analysis.lost_in_noise() else ""
    return f"{name} is {analysis.verdict} ({number}{effect})"


def _difference(slopes: Estimate, distance: Estimate) -> str:
    """Describe the slope difference as far as its interval shows one."""
    if slopes.value is None or slopes.low is None or slopes.high is None:
        return f"whether their slopes differ is undetermined: {slopes.reason}"
    interval = f"90 % interval {_number(slopes.low)} to {_number(slopes.high)}"
    if not slopes.excludes(0):
        return f"a difference of their slopes is not shown ({_number(slopes.value)}, {interval})"
    text = f"their slopes differ by {_number(slopes.value)} ({interval})"
    if not distance.excludes(0):
        return text
    closer = "latter" if distance.high is not None and distance.high < 0 else "former"
    return f"{text}, the {closer} is the closer to separable"


def _number(value: float) -> str:
    """Write two decimals with a true minus, none before zero."""
    text = f"{value:.2f}"
    return text.replace("-", "−" if text.strip("-0.") else "")
