"""The verdict from the ridge slope's interval, if λ has a measurable effect at all, and the whole answer."""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, inf, isfinite

import numpy as np

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.science.separability.bootstrap import MIN_SEEDS, Estimate, f99
from lrwd_sweep.science.separability.regret import Contrast, LrSensitivity, SequentialRegret, TransferRegret
from lrwd_sweep.science.separability.ridge import RidgeCentre
from lrwd_sweep.science.surface import ROUNDING, Bool, Float

MARGIN = 0.25  # m, octaves of λ per octave of α
NO_EFFECT = "λ has no measurable effect within rows"
_TOO_NEAR = 0.05  # of the margin: no number of seeds settles the verdict
_MAX_MARGIN = 0.5  # from here on separable and product-coupled overlap
_FLAT = 1e-9  # a curvature below this share of the largest is rounding


class Verdict(StrEnum):
    """The conclusion from the interval of the ridge slope s, given that λ has an effect within rows.

    An interval within (−m, m) is an equivalence test at 5 % (two one-sided tests). Without a measurable
    effect the verdict is undetermined for every interval, see `noise_test`.
    """

    SEPARABLE = "separable"  # s within (−m, m), m = 0.25
    PRODUCT_COUPLED = "product-coupled"  # s within (−1−m, −1+m): only the product αλ matters
    COUPLED = "coupled"  # s excludes (−m, m), but is not product-coupled
    UNDETERMINED = "undetermined"


def checked_margin(margin: float) -> float:
    """Return the margin m of a verdict. Raises UsageError unless 0 < m ≤ 0.5."""
    if not (isfinite(margin) and 0 < margin <= _MAX_MARGIN):
        raise UsageError(f"{arg('margin', margin)} is not above 0 and at most {_MAX_MARGIN}")
    return margin


def interval_verdict(slope: Estimate, margin: float) -> Verdict:
    """Return the verdict on the slope's interval; undetermined without one."""
    if slope.low is None or slope.high is None:
        return Verdict.UNDETERMINED
    return _verdict(slope.low, slope.high, margin)


def point_verdict(slope: Estimate, margin: float) -> Verdict:
    """Return the verdict of the point estimate without its interval."""
    if slope.value is None:
        return Verdict.UNDETERMINED
    return _verdict(slope.value, slope.value, margin)


def _verdict(low: float, high: float, m: float) -> Verdict:
    if low > -m and high < m:
        return Verdict.SEPARABLE
    if low > -1 - m and high < -1 + m:
        return Verdict.PRODUCT_COUPLED
    if high <= -m or low >= m:
        return Verdict.COUPLED
    return Verdict.UNDETERMINED


def possible_verdicts(slope: Estimate, margin: float) -> tuple[Verdict, ...]:
    """Return the verdicts on all the values that the slope's interval holds; none without an interval."""
    if slope.low is None or slope.high is None:
        return ()
    low, high, m = slope.low, slope.high, margin
    held = {
        Verdict.SEPARABLE: low < m and high > -m,
        Verdict.PRODUCT_COUPLED: low < -1 + m and high > -1 - m,
        Verdict.COUPLED: low <= -1 - m or high >= m or (low <= -m and high >= -1 + m),
    }
    return tuple(verdict for verdict, allowed in held.items() if allowed)


def seeds_to_settle(slope: Estimate, seeds: int, margin: float) -> int | None:
    """Return about how many seeds would settle an undetermined slope, R (half/(m − |s|))².

    None without an interval, and if s is too near the margin for any number of seeds.
    """
    if slope.value is None or slope.low is None or slope.high is None or too_near_margin(slope, margin):
        return None
    half, room = (slope.high - slope.low) / 2, abs(margin - abs(slope.value))
    return max(ceil(seeds * (half / room) ** 2), seeds + 1, MIN_SEEDS)


def too_near_margin(slope: Estimate, margin: float) -> bool:
    """Tell if |s| lies within 0.05 of the margin, so that no number of seeds would settle the verdict."""
    return slope.value is not None and abs(margin - abs(slope.value)) < _TOO_NEAR


@dataclass(frozen=True, slots=True)
class NoiseTest:
    """The F test of cells within rows against seed × cell within rows, of values and of their ranks."""

    f: float
    f_of_ranks: float | None  # of ranks within row and seed; None if all seeds agree on them
    freedom: tuple[int, int]  # degrees of freedom of numerator and denominator
    needed: float  # F's 99 % quantile: without any effect of λ one surface in a hundred passes

    @property
    def passed(self) -> bool:
        """Tell if λ has a measurable effect; without one the verdict is undetermined."""
        return self.f_of_ranks is None or max(self.f, self.f_of_ranks) >= self.needed

    @property
    def reason(self) -> str:
        """Say why the verdict is undetermined, with the numbers; empty if the test passes."""
        return "" if self.passed else f"{NO_EFFECT}: {self.text}"

    @property
    def text(self) -> str:
        """Write `F(110, 220) = 0.91, of ranks 1.02, 1.45 needed`, with the decimals that tell them apart."""
        numbers = self.f, inf if self.f_of_ranks is None else self.f_of_ranks, self.needed
        for places in range(2, 10):
            f, ranks, needed = (f"{number:.{places}f}".replace("inf", "∞") for number in numbers)
            if needed not in (f, ranks):
                break
        return f"F({self.freedom[0]}, {self.freedom[1]}) = {f}, of ranks {ranks}, {needed} needed"


def noise_test(
    y: Float,  # (I, J, R)
    inside: Bool,  # (I, J) cells that count
) -> NoiseTest | None:
    """Compute F = [R Σ m²/(n−I′)] / [Σ (d−m)²/((R−1)(n−I′))] over the n cells that count, in I′ rows.

    d_rij is y_rij less the mean of y_r over row i's cells that count, m_ij the mean of d_rij over the seeds.
    Levels of rows drop out of d, and so do row × seed offsets: they do not move an argmin over λ.
    Dimensionless; invariant to y → cy + d with c > 0, to adding any f(α) to a seed, and to how λ is spaced.
    About 1 for y = f(α) + noise.

    One variance serves all cells, so a single row of unstable training hides the effect of λ in the others.
    So the same F is taken of ranks within each row and seed (for one row this is Friedman's test in Iman and
    Davenport's form, 1980), which no value can dominate. Either is enough.

    None if nothing can be tested: one seed, no row with two cells, or seeds that agree within rows to
    rounding.
    """
    seeds = y.shape[2]
    cells = int(inside.sum())
    freedom = cells - int(inside.any(axis=1).sum())
    if seeds < 2 or not freedom:
        return None
    within = np.where(inside[..., None], y, 0.0)
    largest = float(np.abs(within).max())
    within = within / (largest or 1.0)  # squares of absurdly large values overflow
    between, noise = _spreads(within, inside)
    if noise <= ROUNDING**2 * freedom * (seeds - 1):
        return None
    ranked_between, ranked_noise = _spreads(_ranks(within, inside), inside)
    first, second = freedom, (seeds - 1) * freedom
    f_of_ranks = (seeds - 1) * ranked_between / ranked_noise if ranked_noise else None
    return NoiseTest((seeds - 1) * between / noise, f_of_ranks, (first, second), f99(first, second))


def _spreads(y: Float, inside: Bool) -> tuple[float, float]:
    """Return R Σ m² and Σ (d−m)²."""
    count = np.maximum(inside.sum(axis=1), 1)
    d = y - (np.where(inside[..., None], y, 0.0).sum(axis=1) / count[:, None])[:, None, :]
    d = d[inside]  # (n, R)
    m = d.mean(axis=1, keepdims=True)
    return d.shape[1] * float((m**2).sum()), float(((d - m) ** 2).sum())


def _ranks(y: Float, inside: Bool) -> Float:
    """Rank the cells that count within row and seed, (I, J, R); ties share their rank."""
    found = np.zeros_like(y)
    for i, counts in enumerate(inside):
        row = y[i, counts]  # (J′, R)
        above = (row[:, None] > row[None]).sum(axis=1)
        same = (row[:, None] == row[None]).sum(axis=1)
        found[i, counts] = above + (same - 1) / 2
    return found


def curvature_coupling(
    y: Float,  # (n, R) the basin's cells, seed by seed
    log_lr: Float,  # (n,) a = log2 α of these cells
    log_decay: Float,  # (n,) l = log2 λ
    weights: Float,  # (S, R)
) -> Float:
    """Compute ρ = H_al/√(H_aa H_ll) of the basin's least-squares quadratic, (S,); NaN if undefined.

    Dimensionless. |ρ| < 1 for a bowl, 0 for one along the axes; |ρ| ≥ 1 is a ridge or a saddle. Tuning one
    parameter at a time shrinks the distance to a bowl's optimum by ρ² per sweep; s·s′ = ρ² on an exact
    quadratic. Undefined unless H_aa > 0, H_ll > 0 and the cells fix all six coefficients. Invariant to
    shifting and stretching either axis and to y → cy + d with c > 0.

    It misleads if the basin is not a quadratic (a wall on one side bends H), and it says little if a large
    basin reaches far from the optimum.
    """
    undefined = np.full(len(weights), np.nan)
    if len(y) < 6:
        return undefined
    u, v = (x - x.mean() for x in (log_lr, log_decay))
    u, v = (x / (np.abs(x).max() or 1.0) for x in (u, v))  # ρ does not change, the fit is better conditioned
    design = np.stack([u**2 / 2, u * v, v**2 / 2, u, v, np.ones_like(u)], axis=1)
    coefficients, _, rank, _ = np.linalg.lstsq(design, y - y.mean(axis=0), rcond=1e-10)
    if rank < 6:
        return undefined
    aa, al, ll = coefficients[:3] @ weights.T
    least = _FLAT * np.maximum.reduce([np.abs(aa), np.abs(al), np.abs(ll)])
    bowl = (aa > least) & (ll > least)
    return np.where(bowl, al / np.sqrt(np.where(bowl, aa * ll, 1.0)), np.nan)


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
