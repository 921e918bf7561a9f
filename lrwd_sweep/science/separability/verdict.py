"""The verdict from the ridge slope's interval, if λ has a measurable effect at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, isfinite

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.science.separability.basin import ROUNDING
from lrwd_sweep.science.separability.bootstrap import MIN_SEEDS, Estimate
from lrwd_sweep.science.separability.quantiles import f_quantile

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

MARGIN = 0.25  # m, octaves of λ per octave of α
NO_EFFECT = "λ has no measurable effect within rows"
LEVEL = 0.99  # without any effect of λ, one surface in a hundred passes, of values and of ranks
_TOO_NEAR = 0.05  # of the margin: no number of seeds settles the verdict
_MAX_MARGIN = 0.5  # from here on separable and product-coupled overlap


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


def interval_verdict(slope: Estimate, margin: float = MARGIN) -> Verdict:
    """Return the verdict on the slope's interval; undetermined without one."""
    if slope.low is None or slope.high is None:
        return Verdict.UNDETERMINED
    return _verdict(slope.low, slope.high, margin)


def point_verdict(slope: Estimate, margin: float = MARGIN) -> Verdict:
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


def possible_verdicts(slope: Estimate, margin: float = MARGIN) -> tuple[Verdict, ...]:
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


def seeds_to_settle(slope: Estimate, seeds: int, margin: float = MARGIN) -> int | None:
    """Return about how many seeds would settle an undetermined slope, R (half/(m − |s|))².

    None without an interval, and if s is too near the margin for any number of seeds.
    """
    if slope.value is None or slope.low is None or slope.high is None or too_near_margin(slope, margin):
        return None
    half, room = (slope.high - slope.low) / 2, abs(margin - abs(slope.value))
    return max(ceil(seeds * (half / room) ** 2), seeds + 1, MIN_SEEDS)


def too_near_margin(slope: Estimate, margin: float = MARGIN) -> bool:
    """Tell if |s| lies within 0.05 of the margin, so that no number of seeds would settle the verdict."""
    return slope.value is not None and abs(margin - abs(slope.value)) < _TOO_NEAR


@dataclass(frozen=True, slots=True)
class NoiseTest:
    """The F test of cells within rows against seed × cell within rows, of values and of their ranks."""

    f: float
    f_of_ranks: float | None  # of ranks within row and seed; None if all seeds agree on them
    freedom: tuple[int, int]  # degrees of freedom of numerator and denominator
    needed: float  # the 99 % quantile of F with this freedom

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
        places = next((n for n in range(2, 9) if f"{self.needed:.{n}f}" not in self._rounded(n)), 9)
        first, second = self.freedom
        f, ranks = self._rounded(places)
        return f"F({first}, {second}) = {f}, of ranks {ranks}, {self.needed:.{places}f} needed"

    def _rounded(self, places: int) -> tuple[str, str]:
        ranks = "∞" if self.f_of_ranks is None else f"{self.f_of_ranks:.{places}f}"
        return f"{self.f:.{places}f}", ranks


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
    return NoiseTest(
        (seeds - 1) * between / noise, f_of_ranks, (first, second), f_quantile(LEVEL, first, second)
    )


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
