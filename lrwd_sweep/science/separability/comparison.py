"""The paired comparison of two surfaces: the same resampled seeds in both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp

import numpy as np

from lrwd_sweep.science.separability.analysis import Analysis, Settings
from lrwd_sweep.science.separability.bootstrap import MIN_SEEDS, Estimate, LeftOut, Resamples
from lrwd_sweep.science.separability.regret import SAME_DISTANCE
from lrwd_sweep.science.separability.verdict import MARGIN, NO_EFFECT, checked_margin
from lrwd_sweep.science.surface import Float, Surface
from lrwd_sweep.science.trial import Direction


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
            pair = Pair(own_a, own_b)
        elif len(common) >= MIN_SEEDS:
            pair = Pair(analysed(a.with_seeds(common)), analysed(b.with_seeds(common)))
        else:
            unpaired = f"too few common seeds for an interval: {len(common)}, at least {MIN_SEEDS} are needed"
            pair = Pair(analysed(a, 0), analysed(b, 0), unpaired)
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
class Pair:
    """Two analyses whose resamples match row by row; if they do not, `unpaired` says why."""

    a: Analysis
    b: Analysis
    unpaired: str = ""

    def slope_difference(self) -> Estimate:
        """Estimate s_b − s_a, octaves per octave; 0 if the ridges are parallel."""
        slope_a, slope_b = (_slope(side) for side in (self.a, self.b))
        return self._estimate(slope_b - slope_a, "a ridge slope is undetermined")

    def distance_difference(self) -> Estimate:
        """Estimate |s_b| − |s_a|; below 0 if b is the closer to separable."""
        slope_a, slope_b = (np.abs(_slope(side)) for side in (self.a, self.b))
        return self._estimate(slope_b - slope_a, "a ridge slope is undetermined")

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
        sides = (self.a.positive, self.b.positive)
        if any(side.is_refined and not (side.inside | side.out).all() for side in sides):
            return Estimate(None, reason="needs cells that a refined lattice leaves out")
        regret_a, regret_b = (np.where(regret > 0, regret, np.nan) for regret in regrets)
        undefined = "a transfer regret is undetermined or not above 0"
        found = self._estimate(np.log(regret_b / regret_a), undefined, self.a.regrets.left_out)
        value, low, high = (None if x is None else exp(x) for x in (found.value, found.low, found.high))
        return replace(found, value=value, low=low, high=high)

    def best_difference(self) -> Estimate:
        """Estimate the smallest mean of b minus that of a, in the metric's units; λ = 0 takes part.

        Each is the luckiest of many cells, so both flatter; a larger or noisier lattice flatters more.
        """
        if self._metrics_differ():
            return Estimate(None, reason=self._metrics_differ())
        best_a, best_b = (side.best_value() for side in (self.a, self.b))
        return self._estimate(best_b - best_a, "one of the two has no cell that counts")

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


def _slope(side: Analysis) -> Float:
    return side.line.slope


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
