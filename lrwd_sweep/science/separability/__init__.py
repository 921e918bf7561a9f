"""Separability: can α and λ be tuned one at a time on this surface, and if not, along which line together?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.separability.analysis import Analysis
from lrwd_sweep.science.separability.basin import is_flat
from lrwd_sweep.science.separability.bootstrap import Estimate
from lrwd_sweep.science.separability.comparison import Comparison, compare
from lrwd_sweep.science.separability.noise import NoiseTest
from lrwd_sweep.science.separability.verdict import Verdict, point_verdict
from lrwd_sweep.science.surface import Bool, Float, Surface

__all__ = [
    "AtBasin",
    "Comparison",
    "Estimate",
    "NoiseTest",
    "Separability",
    "TransferRegret",
    "Verdict",
    "analyse",
    "compare",
    "top_tilt",
]

TOP = 10


@dataclass(frozen=True, slots=True)
class TransferRegret:
    """What moving α by `octaves` without retuning λ costs on average, in the metric's units."""

    octaves: float
    estimate: Estimate
    pairs: int  # ordered pairs of rows in the mean
    pairs_out: int  # pairs left out because the transferred cell diverged or reached its cap
    in_sample: bool  # λ was chosen and scored on the same seeds: it lies high, and has no interval


@dataclass(frozen=True, slots=True)
class AtBasin:
    """The verdict at another size of the basin."""

    basin: float  # its quantile; its tolerance, where the analysis was given one
    verdict: Verdict
    ridge_slope: Estimate


@dataclass(frozen=True, slots=True)
class Separability:
    """Every metric of one surface. Indices (i, j) are those of the surface given, baseline column included.

    The baseline λ = 0 takes part in `baseline_gain` alone.
    """

    verdict: Verdict
    point_verdict: Verdict
    reason: str  # why undetermined; or a caution; may be empty
    noise_test: (
        NoiseTest | None
    )  # where it does not pass, the verdict is undetermined; None where there is none
    ridge_slope: Estimate  # s = d log2 λ* / d log2 α
    ridge_rows: int  # rows that carried s
    reverse_slope: Estimate  # s′ = d log2 α* / d log2 λ
    ridge: tuple[tuple[int, float], ...]  # (row i, log2 λ*) of the rows that carried s
    slope_by_convention: dict[str, float | None]  # s as "independent" and as "lr-scaled"
    curvature_coupling: Estimate  # ρ
    transfer_regret: tuple[TransferRegret, ...]  # by distance
    interaction_share: Estimate
    top10_tilt: Estimate
    top10: tuple[tuple[int, int], ...]  # the ten best cells, best first
    basin: Bool  # (I, J)
    basin_tolerance: float | None  # τ, in the metric's units
    on_edge: tuple[str, ...]  # sides of the lattice the best cell lies on: "lr:low", "weight_decay:high", …
    basin_on_edge: tuple[str, ...]  # sides that the basin touches
    rows_on_edge: dict[str, int]  # by side, how many of the basin's rows have their best λ there, if many
    baseline_gain: Estimate  # best λ = 0 mean minus best λ > 0 mean: above 0, decay helps
    robustness: tuple[AtBasin, ...]  # at half and at double the basin


def analyse(
    surface: Surface,
    *,
    basin_quantile: float = 0.5,
    basin_tolerance: float | None = None,
    resamples: int = 1000,
) -> Separability:
    """All metrics of `surface` with their 90 % intervals.

    The basin is the best `basin_quantile` of the cells that count, or all within `basin_tolerance` (in the
    metric's units) of the best. The same surface always gives the same numbers. Where something cannot be
    said the value is None and its `reason` tells why; nothing is raised.
    """
    with np.errstate(all="ignore"):  # absurdly large values overflow; the estimates catch what is not finite
        analysis = Analysis.of(
            surface, quantile=basin_quantile, tolerance=basin_tolerance, resamples=resamples
        )
        return _report(analysis)


def _report(analysis: Analysis) -> Separability:
    surface, offset = analysis.surface, analysis.offset
    slope, ridge = analysis.ridge_slope(), analysis.ridge()
    edge = _sides(_best_mask(analysis))
    robustness = tuple(_at_other_basins(analysis))
    top = analysis.top(TOP)
    mask = np.zeros(surface.inside.shape, dtype=bool)
    mask[:, offset:] = analysis.basin.mask
    return Separability(
        verdict=analysis.verdict(),
        point_verdict=point_verdict(slope),
        reason=_reason(analysis, edge, robustness),
        noise_test=analysis.noise,
        ridge_slope=slope,
        ridge_rows=len(ridge),
        reverse_slope=analysis.reverse_slope(),
        ridge=ridge,
        slope_by_convention=_slope_by_convention(surface.rule, slope.value),
        curvature_coupling=analysis.curvature_coupling(),
        transfer_regret=_transfer_regret(analysis),
        interaction_share=analysis.interaction_share(),
        top10_tilt=top_tilt(analysis.log_lr, analysis.log_decay, top),
        top10=tuple((i, j + offset) for i, j in top),
        basin=mask,
        basin_tolerance=analysis.basin.tolerance,
        on_edge=edge,
        basin_on_edge=_sides(analysis.basin.mask),
        rows_on_edge=analysis.rows_on_edge(),
        baseline_gain=analysis.baseline_gain(),
        robustness=robustness,
    )


def _best_mask(analysis: Analysis) -> Bool:
    """The best cell with λ > 0; none on a surface that is flat, where any cell is as good."""
    inside = analysis.positive.inside
    mask = np.zeros_like(inside)
    if not is_flat(analysis.positive.mean[inside]):
        mask[analysis.top(1)[0]] = True
    return mask


def _sides(mask: Bool) -> tuple[str, ...]:
    """The sides of the λ > 0 lattice that a mask touches; an axis that was held fixed has none."""
    sides = {
        "lr": (mask[:1], mask[-1:]),
        "weight_decay": (mask[:, :1], mask[:, -1:]),
    }
    return tuple(
        f"{axis}:{side}"
        for axis, ends, size in zip(sides, sides.values(), mask.shape, strict=True)
        for side, cells in zip(("low", "high"), ends, strict=True)
        if size > 1 and cells.any()
    )


def _slope_by_convention(rule: DecayRule, slope: float | None) -> dict[str, float | None]:
    """s with λ and with w = λ/α on the axis: s_w = s_λ − 1 exactly, under any schedule.

    The factors that stand beside α, 1/√N of normalised decay and 1/(1−β₁) of SGDP, shift the axis alone. A
    coupled λ′ is neither λ nor w; nor is what the schedule leaves alone or squares, unless η = 1 throughout.
    """
    shift = {DecayRule.INDEPENDENT: 0.0, DecayRule.LR_SCALED: 1.0}.get(rule)
    if slope is None or shift is None:
        return {"independent": None, "lr-scaled": None}
    return {"independent": slope + shift, "lr-scaled": slope + shift - 1}


def _transfer_regret(analysis: Analysis) -> tuple[TransferRegret, ...]:
    """T(Δ) at every distance of which at least one pair's transferred cell was trained."""
    found = analysis.replicates.regrets
    return tuple(
        TransferRegret(octaves, estimate, counted, out, found.in_sample)
        for octaves, estimate, counted, out in zip(
            found.pairs.octaves, found.estimates(), found.pairs_in, found.pairs_out, strict=True
        )
        if counted or out
    )


def top_tilt(
    log_lr: Float,  # (I,)
    log_decay: Float,  # (J,)
    cells: list[tuple[int, int]],
) -> Estimate:
    """Pearson r of (log2 α, log2 λ) over the ten best cells, the paper's black circles.

    Dimensionless, −1 to 1; invariant to shifting and stretching either axis and to any increasing map of
    y. For comparison with the paper only: it lies near a border, which cuts the circles off, and where the
    basin holds many more than ten cells.
    """
    if len(cells) < TOP:
        return Estimate(None, reason=f"only {len(cells)} cells count, the tilt needs {TOP}")
    x, y = (
        axis[list(index)] for axis, index in zip((log_lr, log_decay), zip(*cells, strict=True), strict=True)
    )
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    if size == 0:
        return Estimate(None, reason=f"the {TOP} best cells lie in one row or column")
    return Estimate(float(np.clip(x @ y / size, -1, 1)))


def _at_other_basins(analysis: Analysis) -> Iterator[AtBasin]:
    """The verdict at half and at double the basin, whose quantile ends at 1."""
    for factor in (0.5, 2.0):
        quantile = min(analysis.quantile * factor, 1.0)
        tolerance = None if analysis.tolerance is None else analysis.tolerance * factor
        other = analysis.with_basin(quantile, tolerance)
        size = quantile if tolerance is None else tolerance
        yield AtBasin(size, other.verdict(), other.ridge_slope())


def _reason(analysis: Analysis, edge: tuple[str, ...], robustness: tuple[AtBasin, ...]) -> str:
    """Why the verdict is undetermined, then what to be careful about."""
    verdict = analysis.verdict()
    parts = [_why_undetermined(analysis.ridge_slope())] if verdict is Verdict.UNDETERMINED else []
    if edge:
        parts.append(f"the best cell is on the edge of the lattice ({', '.join(edge)})")
    if analysis.ridge_slope().value is not None:
        parts += _leaves_the_axis(analysis)
    changed = [other for other in robustness if other.verdict is not verdict]
    parts += [f"with the basin at {other.basin:.3g} the verdict is {other.verdict}" for other in changed]
    return "; ".join(parts)


def _leaves_the_axis(analysis: Analysis) -> Iterator[str]:
    """That much of the ridge lies on the λ axis' ends, or beyond."""
    if found := analysis.rows_on_edge():
        yield (
            f"the best wd of {sum(found.values())} of {np.sum(analysis.basin.rows)} rows is on the edge "
            f"({', '.join(found)}), which draws the slope towards 0: a longer axis there would tell"
        )


def _why_undetermined(slope: Estimate) -> str:
    """What the slope lacks for a verdict: an interval, an effect of λ, or an interval that decides."""
    if slope.reason or slope.low is None or slope.high is None:
        return slope.reason
    return f"noise: the slope's interval {slope.low:.2f} to {slope.high:.2f} allows more than one verdict"
