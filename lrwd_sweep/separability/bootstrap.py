"""The bootstrap over seeds: which resamples, and the interval that their replicates give.

A resample gives every seed a weight, the same in every cell. The first row of weights is always the sample
itself, so that one function computes a statistic and all its replicates alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb, factorial, isfinite, prod, sqrt

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

MIN_SEEDS = 3  # fewer have no interval
_MAX_UNDEFINED = 0.1  # more resamples without a value than the interval may err: no interval


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 90 % interval; None where undetermined, and then `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @property
    def has_interval(self) -> bool:
        """Whether `low` and `high` are numbers."""
        return self.low is not None and self.high is not None

    def excludes(self, value: float) -> bool:
        """Whether the interval exists and `value` lies outside it."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def t95(nu: float) -> float:
    """Student's t at level 0.95 for ν ≥ 2 degrees of freedom, to 0.3 % (Abramowitz & Stegun 26.7.5).

    >>> round(t95(4), 3), round(t95(1e9), 3)
    (2.132, 1.645)
    """
    z = 1.6448536269514722
    g = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / nu**power for power, term in enumerate(g, start=1))


@dataclass(frozen=True, eq=False)
class Resamples:
    """The sample and its bootstrap resamples, as weights of the seeds."""

    weights: Float  # (1 + S, R), rows sum to 1; row 0 is the sample itself
    mass: Float  # (S,) probability of each resample, summing to 1; empty where there is no interval

    @classmethod
    def draw(cls, seeds: int, count: int) -> Resamples:
        """Resamples of R = `seeds` with replacement: every one with its probability where there are at
        most `count` different ones (R ≤ 6 for 1,000), `count` random ones from a fixed stream otherwise.

        Fewer than three seeds have no resamples, nor has `count` = 0.
        """
        sample = np.full((1, seeds), 1 / max(seeds, 1))
        if seeds < MIN_SEEDS or not count:
            return cls(sample, np.empty(0))
        if comb(2 * seeds - 1, seeds) <= count:
            drawn = combinations_with_replacement(range(seeds), seeds)
            counts = np.array([np.bincount(each, minlength=seeds) for each in drawn])
            ways = [factorial(seeds) / prod(factorial(int(k)) for k in row) for row in counts]
            mass = np.array(ways) / seeds**seeds
        else:
            counts = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), size=count)
            mass = np.full(count, 1 / count)
        return cls(np.vstack([sample, counts / seeds]), mass)

    def estimate(self, replicates: Float, undefined: str) -> Estimate:
        """A statistic and its 90 % interval, from the statistic under every row of `weights`, (1 + S,).

        x ± √(R/(R−1)) · t_{.95,ν} · SE, the bootstrap's standard error expanded for few seeds (Hesterberg
        2015). SE² = V + U, where V is the part linear in the weights and U the rest, and
        ν = SE⁴ / (V²/(R−1) + U²/(S−R)) (Welch, Satterthwaite).

        Why not percentiles: R = 3 seeds have ten different resamples, whose range covers the truth of a
        linear statistic in exactly 75 % of all cases at whatever level. Why ν: an argmin over noisy cells
        is far from linear in the seeds; its SE is then better known than from R−1 degrees of freedom, and
        t_{.95,R−1} would cover 99 %. NaN marks an undefined statistic: of the sample, no value (`undefined`
        says why); of more than a tenth of the resamples, no interval.
        """
        value, replicates = float(replicates[0]), replicates[1:]
        if not isfinite(value):
            return Estimate(None, reason=undefined)
        if not len(self.mass):
            return Estimate(value, reason=too_few_seeds(self.weights.shape[1]))
        defined = np.isfinite(replicates)
        lost = float(self.mass[~defined].sum())
        if lost > _MAX_UNDEFINED:
            return Estimate(value, reason=f"noise: undefined in {lost:.0%} of the resamples, so no interval")
        half = self._half_width(replicates[defined], self.mass[defined], self.weights[1:][defined])
        return Estimate(value, value - half, value + half)

    @staticmethod
    def _half_width(replicates: Float, mass: Float, weights: Float) -> float:
        seeds = weights.shape[1]
        mass = mass / mass.sum()
        deviation = replicates - mass @ replicates
        total = float(mass @ deviation**2)  # SE²
        if total == 0:
            return 0.0
        # Under the multinomial cov(x, w_r) = (u_r − ū)/R² for the influences u, and V = Σ(u_r − ū)²/R².
        covariance = (mass * deviation) @ (weights - 1 / seeds)
        linear = min(float(seeds**2 * (covariance**2).sum()), total)
        rest = total - linear
        nu = total**2 / (linear**2 / (seeds - 1) + rest**2 / max(len(replicates) - seeds, 1))
        return sqrt(seeds / (seeds - 1) * total) * t95(nu)


def too_few_seeds(seeds: int) -> str:
    """Why there is no interval."""
    return f"too few seeds for an interval: {seeds}, at least {MIN_SEEDS} are needed"
