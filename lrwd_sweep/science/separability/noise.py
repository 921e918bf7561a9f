"""The noise test: does λ have a measurable effect within the rows of a surface at all?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.science.separability.basin import ROUNDING

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

NO_EFFECT = "λ has no measurable effect within rows"
LEVEL = 0.99  # without any effect of λ, one surface in a hundred passes, of values and of ranks


@dataclass(frozen=True, slots=True)
class NoiseTest:
    """The F test of cells within rows against seed × cell within rows, of values and of their ranks."""

    f: float
    f_of_ranks: (
        float | None
    )  # of each value's rank within its row and seed; None where all seeds agree on them
    freedom: tuple[int, int]  # degrees of freedom of numerator and denominator
    needed: float  # the 99 % quantile of F with this freedom

    @property
    def passed(self) -> bool:
        """Whether λ has a measurable effect; where it has none the verdict is undetermined."""
        return self.f_of_ranks is None or max(self.f, self.f_of_ranks) >= self.needed

    @property
    def reason(self) -> str:
        """Why the verdict is undetermined, with the numbers; empty where the test passes."""
        return "" if self.passed else f"{NO_EFFECT}: {self.text}"

    @property
    def text(self) -> str:
        """`F(110, 220) = 0.91, of ranks 1.02, 1.45 needed`, with as many decimals as tell them apart."""
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
    """F = [R Σ m²/(n−I′)] / [Σ (d−m)²/((R−1)(n−I′))] over the n cells that count, in I′ rows.

    d_rij is y_rij less the mean of y_r over row i's cells that count, m_ij the mean of d_rij over the seeds.
    Levels of rows drop out of d. So do row × seed offsets, which are no noise: they move no argmin over λ.
    Dimensionless; invariant to y → cy + d with c > 0, to adding any f(α) to a seed, and to how λ is spaced.
    About 1 for y = f(α) + noise.

    One variance serves all cells, so that a single row of unstable training hides what λ does in the others.
    So the same F is taken of ranks within each row and seed (for one row this is Friedman's test in Iman and
    Davenport's form, 1980), which no value can dominate. Either is enough.

    None where nothing can be tested: one seed, no row with two cells, or seeds that agree within rows to
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
    return NoiseTest((seeds - 1) * between / noise, f_of_ranks, (first, second), _quantile(first, second))


def _spreads(y: Float, inside: Bool) -> tuple[float, float]:
    """R Σ m² and Σ (d−m)²."""
    count = np.maximum(inside.sum(axis=1), 1)
    d = y - (np.where(inside[..., None], y, 0.0).sum(axis=1) / count[:, None])[:, None, :]
    d = d[inside]  # (n, R)
    m = d.mean(axis=1, keepdims=True)
    return d.shape[1] * float((m**2).sum()), float(((d - m) ** 2).sum())


def _ranks(y: Float, inside: Bool) -> Float:
    """Each value's rank within its row and seed among the cells that count, (I, J, R); ties share theirs."""
    found = np.zeros_like(y)
    for i, counts in enumerate(inside):
        row = y[i, counts]  # (J′, R)
        above = (row[:, None] > row[None]).sum(axis=1)
        same = (row[:, None] == row[None]).sum(axis=1)
        found[i, counts] = above + (same - 1) / 2
    return found


def _quantile(first: int, second: int) -> float:
    """The value below which F lies with probability `LEVEL`."""
    from scipy.special import fdtri  # type: ignore[import-untyped]  # noqa: PLC0415 - slow to load

    return float(fdtri(first, second, LEVEL))
