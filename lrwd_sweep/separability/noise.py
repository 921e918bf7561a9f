"""The noise test: whether λ has a measurable effect within the rows of a surface at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.separability.basin import ROUNDING

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

NO_EFFECT = "λ has no measurable effect within rows"
LEVEL = 0.99  # without any effect of λ, one surface in a hundred passes


@dataclass(frozen=True, slots=True)
class NoiseTest:
    """The F test of cells within rows against seed × cell within rows."""

    f: float
    freedom: tuple[int, int]  # degrees of freedom of numerator and denominator
    needed: float  # the 99 % quantile of F with this freedom

    @property
    def passed(self) -> bool:
        """Whether λ has a measurable effect; where it has none the verdict is undetermined."""
        return self.f >= self.needed

    @property
    def reason(self) -> str:
        """Why the verdict is undetermined, with the numbers; empty where the test passes."""
        return "" if self.passed else f"{NO_EFFECT}: {self.text}"

    @property
    def text(self) -> str:
        """`F(110, 220) = 0.91, 1.45 needed`, with as many decimals as tell the two apart."""
        places = next((n for n in range(2, 9) if f"{self.f:.{n}f}" != f"{self.needed:.{n}f}"), 9)
        first, second = self.freedom
        return f"F({first}, {second}) = {self.f:.{places}f}, {self.needed:.{places}f} needed"


def noise_test(
    y: Float,  # (I, J, R)
    inside: Bool,  # (I, J) cells that count
) -> NoiseTest | None:
    """F = [R Σ m²/(n−I′)] / [Σ (d−m)²/((R−1)(n−I′))] over the n cells that count, in I′ rows.

    d_rij is y_rij less the mean of y_r over row i's cells that count, m_ij the mean of d_rij over the seeds.
    Levels of rows drop out of d. So do row × seed offsets, which are no noise: they move no argmin over λ.
    Dimensionless; invariant to y → cy + d with c > 0, to adding any f(α) to a seed, and to how λ is spaced.
    About 1 for y = f(α) + noise.

    None where nothing can be tested: one seed, no row with two cells, or seeds that agree within rows to
    rounding. One variance serves all cells: F lies low where training is unstable in some rows, whose noise
    then hides the others (a cap takes them out), and high where a few cells are noisier than their rows.
    """
    seeds = y.shape[2]
    cells = int(inside.sum())
    freedom = cells - int(inside.any(axis=1).sum())
    if seeds < 2 or not freedom:
        return None
    within = np.where(inside[..., None], y, 0.0)
    largest = float(np.abs(within).max())
    within = within / (largest or 1.0)  # squares of absurdly large values overflow
    count = np.maximum(inside.sum(axis=1), 1)
    d = within - (within.sum(axis=1) / count[:, None])[:, None, :]
    d = d[inside]  # (n, R)
    m = d.mean(axis=1, keepdims=True)
    between = seeds * float((m**2).sum()) / freedom
    noise = float(((d - m) ** 2).sum()) / ((seeds - 1) * freedom)
    if noise <= ROUNDING**2:
        return None
    first, second = freedom, (seeds - 1) * freedom
    return NoiseTest(between / noise, (first, second), _quantile(first, second))


def _quantile(first: int, second: int) -> float:
    """The value below which F lies with probability `LEVEL`."""
    from scipy.special import fdtri  # type: ignore[import-untyped]  # noqa: PLC0415 - slow to load

    return float(fdtri(first, second, LEVEL))
