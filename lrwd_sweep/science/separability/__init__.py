"""Separability: can α and λ be tuned one at a time on this surface, and if not, along which line together?

`analyse` and `compare` are the two questions; the numbers of a surface are the fields of `Separability`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.separability.analysis import Analysis, Settings
from lrwd_sweep.science.separability.basin import Contrast, is_flat
from lrwd_sweep.science.separability.bootstrap import Estimate
from lrwd_sweep.science.separability.comparison import PairedDifferences, compare
from lrwd_sweep.science.separability.regret import LrSensitivity, SequentialRegret, TransferRegret
from lrwd_sweep.science.separability.ridge import RidgeCentre, RidgeTimescale
from lrwd_sweep.science.separability.verdict import (
    MARGIN,
    NoiseTest,
    Verdict,
    checked_margin,
    interval_verdict,
    point_verdict,
    possible_verdicts,
    seeds_to_settle,
    too_near_margin,
)
from lrwd_sweep.science.surface import Bool, Float, Surface

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
    "top_tilt",
]

TOP = 10
LEFT_OUT = "needs cells that a refined lattice leaves out"
_NONE = Estimate(None, reason="not analysed")


@dataclass(frozen=True, slots=True)
class AtBasin:
    """The verdict at another size of the basin."""

    basin: float  # its quantile; its tolerance, where the analysis was given one
    verdict: Verdict
    ridge_slope: Estimate


@dataclass(frozen=True, slots=True)
class Separability:
    """Every metric of one surface. Indices (i, j) are those of the surface given, baseline column included.

    The baseline λ = 0 takes part only in `baseline_gain` and `expected_best`.
    """

    verdict: Verdict
    point_verdict: Verdict
    reason: str  # why undetermined; or a caution; may be empty
    noise_test: NoiseTest | None  # verdict undetermined unless it passes; None without a test
    ridge_slope: (
        Estimate  # s = d log2 λ* / d log2 α, on which the verdict rests; windowed if `windowed` says so
    )
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
    rows_on_edge: dict[str, int]  # by side, number of the basin's rows with their best λ there, if many
    baseline_gain: Estimate  # best λ = 0 mean minus best λ > 0 mean: above 0, decay helps
    robustness: tuple[AtBasin, ...]  # at half and at double the basin

    # The verdict's margin, and the verdicts that the slope's interval leaves open.
    margin: float = MARGIN  # m
    margin_octaves: float = (
        0.0  # over this lattice λ* of a separable surface moves by at most as many octaves
    )
    allowed: tuple[Verdict, ...] = ()  # verdicts that the interval of s holds; empty without an interval
    seeds_to_settle: int | None = None  # estimate; None if settled, without an interval, or too near
    too_near_margin: bool = False  # undetermined, and s too near the margin for any number of seeds

    # Other slopes, and the shape of the ridge.
    windowed: bool = False  # the ridge leaves the λ axis: s follows it in a window of two octaves
    three_cell_slope: Estimate = _NONE  # s of three-cell minima, drawn towards 0 if `windowed`
    slope_from_rows: Estimate = _NONE  # s with the interval of its rows (HC3), whatever the number of seeds
    verdict_from_rows: Verdict = Verdict.UNDETERMINED  # from that interval; not a verdict on seeds
    ridge_centre: RidgeCentre | None = None  # the point of the ridge that is known best; gives τ*
    bow: Estimate = _NONE  # octaves of λ by which the ridge's middle lies below the chord of its ends
    contour_slope: Estimate = _NONE  # of the basin's wall, if no row has an interior minimum

    # Costs of simpler tuning and the value to expect, in the metric's units.
    sequential_regret: tuple[SequentialRegret, ...] = ()  # the learning rate first, then the decay first
    lr_sensitivity: LrSensitivity | None = None
    expected_best: Estimate = (
        _NONE  # of new seeds at the best cell, λ = 0 included; in the metric's direction
    )
    contrast: Contrast | None = None  # of a lattice too small for a ridge slope
    best_by_row: tuple[tuple[int, int], ...] = ()  # (row, column) of every row's best λ > 0

    @property
    def product_not_excluded(self) -> bool:
        """Tell if the verdict is coupled and the interval overlaps that of product-coupled."""
        return self.verdict is Verdict.COUPLED and Verdict.PRODUCT_COUPLED in self.allowed

    @property
    def excluded(self) -> tuple[Verdict, ...]:
        """The verdicts that no value in the interval of s would give; empty without an interval."""
        determined = [verdict for verdict in Verdict if verdict is not Verdict.UNDETERMINED]
        return tuple(verdict for verdict in determined if self.allowed and verdict not in self.allowed)


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
    slope, ridge, from_rows = analysis.ridge_slope, analysis.ridge(), analysis.slope_from_rows()
    edge = _sides(_best_mask(analysis))
    robustness = tuple(_at_other_basins(analysis))
    top = _top(analysis, TOP)
    mask = np.zeros(surface.inside.shape, dtype=bool)
    mask[:, offset:] = analysis.basin.mask
    whole, cost = _whole(analysis), analysis.lr_sensitivity()
    open_ = analysis.verdict is Verdict.UNDETERMINED and not analysis.lost_in_noise()
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
        transfer_regret=tuple(_transfer(analysis)),
        interaction_share=whole(analysis.interaction_share()),
        top10_tilt=top_tilt(analysis.log_lr, analysis.log_decay, top),
        top10=tuple((i, j + offset) for i, j in top),
        basin=mask,
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


def _whole(analysis: Analysis) -> Callable[[Estimate], Estimate]:
    """Return what replaces an estimate that needs every cell, if a refined lattice has left out some."""
    part = analysis.positive
    if not part.is_refined or (part.inside | part.out).all():
        return lambda estimate: estimate
    return lambda _: Estimate(None, reason=LEFT_OUT)


def _transfer(analysis: Analysis) -> Iterator[TransferRegret]:
    """Yield T(Δ); undetermined if a refined lattice has left out the transferred cell of a pair."""
    whole, pairs = _whole(analysis), analysis.regrets.pairs
    every = dict(zip(pairs.octaves, np.diff(pairs.starts, append=len(pairs.source)), strict=True))
    for found in analysis.regrets.transfer():
        lost = found.pairs + found.pairs_out < every[found.octaves]
        yield replace(found, estimate=whole(found.estimate)) if lost else found


def _best_by_row(analysis: Analysis) -> tuple[tuple[int, int], ...]:
    """List (row, column of the surface) of the best λ > 0 of every row with a cell that counts."""
    y = np.where(analysis.positive.inside, analysis.positive.mean, np.inf)
    rows = np.flatnonzero(analysis.positive.inside.any(axis=1))
    return tuple((int(i), int(y[i].argmin()) + analysis.offset) for i in rows)


def _top(analysis: Analysis, count: int) -> list[tuple[int, int]]:
    """List the `count` best cells with λ > 0, best first; ties go to the smaller index."""
    inside = analysis.positive.inside
    order = np.argsort(np.where(inside, analysis.positive.mean, np.inf), axis=None, kind="stable")
    chosen = order[: min(count, int(inside.sum()))]
    return [divmod(int(k), inside.shape[1]) for k in chosen]


def _best_mask(analysis: Analysis) -> Bool:
    """Mark the best cell with λ > 0; none on a flat surface, where any cell is as good."""
    inside = analysis.positive.inside
    mask = np.zeros_like(inside)
    if not is_flat(analysis.positive.mean[inside]):
        mask[_top(analysis, 1)[0]] = True
    return mask


def _sides(mask: Bool) -> tuple[str, ...]:
    """Name the sides of the λ > 0 lattice that a mask touches; an axis that was held fixed has none."""
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
    """Return s with λ and with w = λ/α on the axis: s_w = s_λ − 1 exactly, under any schedule.

    The factors that stand beside α, 1/√N of normalised decay and 1/(1−β₁) of SGDP, only shift the axis. A
    coupled λ′ is neither λ nor w; nor is fixed or corrected decay, unless η = 1 throughout.
    """
    shift = {DecayRule.INDEPENDENT: 0.0, DecayRule.LR_SCALED: 1.0}.get(rule)
    if slope is None or shift is None:
        return {"independent": None, "lr-scaled": None}
    return {"independent": slope + shift, "lr-scaled": slope + shift - 1}


def top_tilt(
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
    x, y = (
        axis[list(index)] for axis, index in zip((log_lr, log_decay), zip(*cells, strict=True), strict=True)
    )
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    if size == 0:
        return Estimate(None, reason=f"the {TOP} best cells lie in one row or column")
    return Estimate(float(np.clip(x @ y / size, -1, 1)))


def _at_other_basins(analysis: Analysis) -> Iterator[AtBasin]:
    """Give the verdict at half and at double the basin, whose quantile ends at 1."""
    for factor in (0.5, 2.0):
        quantile = min(analysis.settings.quantile * factor, 1.0)
        given = analysis.settings.tolerance
        tolerance = None if given is None else given * factor
        other = analysis.with_basin(quantile, tolerance)
        size = quantile if tolerance is None else tolerance
        yield AtBasin(size, other.verdict, other.ridge_slope)


def _reason(analysis: Analysis, edge: tuple[str, ...], robustness: tuple[AtBasin, ...]) -> str:
    """Say why the verdict is undetermined, then what to be careful about."""
    verdict = analysis.verdict
    parts = [_why_undetermined(analysis.ridge_slope)] if verdict is Verdict.UNDETERMINED else []
    if edge:
        parts.append(f"the best cell is on the edge of the lattice ({', '.join(edge)})")
    if analysis.ridge_slope.value is not None:
        parts += _leaves_the_axis(analysis)
    changed = [other for other in robustness if other.verdict is not verdict]
    parts += [f"with the basin at {other.basin:.3g} the verdict is {other.verdict}" for other in changed]
    return "; ".join(parts)


def _leaves_the_axis(analysis: Analysis) -> Iterator[str]:
    """Say that much of the ridge lies on the λ axis' ends, or beyond."""
    if found := analysis.rows_on_edge:
        what = "which draws the slope towards 0: a longer axis there would tell"
        if analysis.windowed:
            what = "the slope is that of a window that follows the ridge: a longer axis there would settle it"
        yield (
            f"the best wd of {sum(found.values())} of {np.sum(analysis.basin.rows)} rows is on the edge "
            f"({', '.join(found)}), {what}"
        )


def _why_undetermined(slope: Estimate) -> str:
    """Say what the slope lacks for a verdict: an interval, an effect of λ, or an interval that decides."""
    if slope.reason or slope.low is None or slope.high is None:
        return slope.reason
    return f"noise: the slope's interval {slope.low:.2f} to {slope.high:.2f} allows more than one verdict"
