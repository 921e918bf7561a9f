"""The bootstrap over seeds: resamples, intervals, and scoring on seeds that were left out of a choice.

A resample gives every seed a weight, the same in every cell. The first row of weights is always the sample
itself, so that one function computes a statistic and all its replicates alike. A statistic that takes the
seeds in groups, such as one half to choose and the other to score, has each group resampled by itself.

Quantiles of Student's t and of F are computed here: to import scipy costs more than a whole analysis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations_with_replacement, product
from math import comb, exp, factorial, isfinite, lgamma, log, log1p, prod, sqrt

import numpy as np

from lrwd_sweep.science.surface import Bool, Float, Surface

MIN_SEEDS = 3  # fewer have no interval
CROSS_SCORED_SEEDS = 3  # with as many, what is chosen on some seeds is scored on the others
TOGETHER = (slice(None),)  # one group of seeds
HALVES = (slice(0, None, 2), slice(1, None, 2))  # the even and the odd seeds
IN_SAMPLE = "in sample: lies high"
_MAX_UNDEFINED = 0.1  # more resamples without a value than the interval may err: no interval
_HELD = 1_000_000  # numbers held at a time: 8 MB an array
_Z95 = 1.644853626951472  # the normal distribution's quantile at 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 90 % interval; None if undetermined, with the `reason`."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @property
    def has_interval(self) -> bool:
        """Tell if `low` and `high` are numbers."""
        return self.low is not None and self.high is not None

    def excludes(self, value: float) -> bool:
        """Tell if the interval exists and `value` lies outside it."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def mapped(self, function: Callable[[float], float]) -> Estimate:
        """Return the same of an increasing function of the quantity."""
        value, low, high = (None if x is None else function(x) for x in (self.value, self.low, self.high))
        return replace(self, value=value, low=low, high=high)

    def negated(self) -> Estimate:
        """Return the same of the negative quantity."""
        return replace(self, low=self.high, high=self.low).mapped(lambda x: -x)


@dataclass(frozen=True, eq=False)
class Resamples:
    """The sample and its bootstrap resamples, as weights of the seeds."""

    weights: Float  # (1 + S, R), rows sum to 1; row 0 is the sample itself
    mass: Float  # (S,) probability of each resample, summing to 1; empty if there is no interval
    groups: tuple[slice, ...] = TOGETHER  # seeds that were resampled among themselves

    @classmethod
    def draw(cls, seeds: int, count: int, groups: tuple[slice, ...] = TOGETHER) -> Resamples:
        """Resample R = `seeds` with replacement, group by group.

        All resamples with their probabilities if at most `count` different ones exist (R ≤ 6 for 1,000,
        R ≤ 7 in halves), else `count` random ones from a fixed stream. Fewer than three seeds have no
        resamples, nor has `count` = 0.
        """
        sample = np.full((1, seeds), 1 / max(seeds, 1))
        if seeds < MIN_SEEDS or not count:
            return cls(sample, np.empty(0), groups)
        sizes = [len(range(seeds)[group]) for group in groups]
        if prod(comb(2 * size - 1, size) for size in sizes) <= count:
            drawn, chances = zip(*(_every_resample(size) for size in sizes), strict=True)
            counts = np.empty((prod(map(len, drawn)), seeds))
            for group, rows in zip(groups, zip(*product(*drawn), strict=True), strict=True):
                counts[:, group] = rows
            mass = np.array([prod(each) for each in product(*chances)])
        else:
            rng, counts = np.random.default_rng(0), np.empty((count, seeds))
            for group, size in zip(groups, sizes, strict=True):
                counts[:, group] = rng.multinomial(size, np.full(size, 1 / size), size=count)
            mass = np.full(count, 1 / count)
        return cls(np.vstack([sample, counts / seeds]), mass, groups)

    def estimate(self, replicates: Float, undefined: str) -> Estimate:
        """Return a statistic and its 90 % interval, from its values under every row of `weights`, (1 + S,).

        x ± √(R/(R−1)) · t_{.95,ν} · SE, the bootstrap's standard error expanded for few seeds (Hesterberg
        2015). SE² = V + U, where V is the part linear in the weights and U the rest, and
        ν = SE⁴ / (V²/(R−1) + U²/(S−R)) (Welch, Satterthwaite). If seeds are resampled in G groups, each
        spends a degree of freedom on its mean: R−G instead of R−1.

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
        if not isfinite(half):
            return Estimate(value, reason="the values are too large for an interval")
        return Estimate(value, value - half, value + half)

    def _half_width(self, replicates: Float, mass: Float, weights: Float) -> float:
        seeds = weights.shape[1]
        mass = mass / mass.sum()
        deviation = replicates - mass @ replicates
        total = float(mass @ deviation**2)  # SE²
        if total == 0:
            return 0.0
        # Under the multinomial cov(x, w_r) = (u_r − ū)/R² for the influences u, and V = Σ(u_r − ū)²/R²; in
        # groups too, as a seed's weight is 1/R of how often it was drawn.
        covariance = (mass * deviation) @ (weights - 1 / seeds)
        linear = min(float(seeds**2 * (covariance**2).sum()), total)  # V
        share, freedom = linear / total, seeds - len(self.groups)
        nu = 1 / (share**2 / freedom + (1 - share) ** 2 / max(len(replicates) - seeds, 1))
        return sqrt(seeds / freedom * total) * t95(nu)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Ways to choose on some seeds and to score on the others.

    From four seeds on, either half of the seeds chooses and the other scores. Each half is resampled by
    itself: a mean over a half has the noise of a half. With three seeds two choose and the third scores,
    three ways; the choices are held fixed and the three scores resampled. Fewer seeds choose and score in
    sample, without an interval: noise biases such a loss upwards.
    """

    resamples: Resamples
    fixed: bool  # choices are held fixed, and the ways' scores resampled
    in_sample: bool  # the same seeds choose and score

    @classmethod
    def draw(cls, seeds: int, count: int) -> LeftOut:
        """Split R = `seeds` seeds; `count` resamples at most."""
        if seeds > CROSS_SCORED_SEEDS:
            return cls(Resamples.draw(seeds, count, HALVES), fixed=False, in_sample=False)
        return cls.one_by_one(seeds, count)

    @classmethod
    def one_by_one(cls, seeds: int, count: int) -> LeftOut:
        """Leave out one seed at a time, whatever their number from three on."""
        few = seeds < CROSS_SCORED_SEEDS
        return cls(Resamples.draw(seeds, 0 if few else count), fixed=not few, in_sample=few)

    def weights(self) -> Float:
        """Return the weights under which `ways` are to be scored, (S, R)."""
        return self.resamples.weights[:1] if self.fixed else self.resamples.weights

    def ways(self, weights: Float) -> Iterator[tuple[Float, Float]]:
        """Split weights (S, R) into those that choose and those that score, (S, R), rows summing to 1."""
        seeds = weights.shape[1]
        if self.in_sample:
            yield weights, weights
        elif self.fixed:
            for out in np.eye(seeds):
                yield (1 - out)[None] / (seeds - 1), out[None]
        else:
            halves = [np.zeros_like(weights) for _ in HALVES]
            for part, half in zip(halves, HALVES, strict=True):
                part[:, half] = weights[:, half] / weights[:, half].sum(axis=1, keepdims=True)
            yield halves[0], halves[1]
            yield halves[1], halves[0]

    def combine(self, scores: Sequence[Float]) -> Float:
        """Average the ways' scores, (S, …) each, into the replicates of a statistic, (1 + S, …)."""
        if not self.fixed:
            return np.asarray(sum(scores) / len(scores))
        return np.tensordot(self.resamples.weights, np.concatenate(scores), axes=1)

    def estimate(self, replicates: Float, undefined: str) -> Estimate:
        """Return a statistic with its interval; in sample only its value."""
        found = self.resamples.estimate(replicates, undefined)
        return replace(found, reason=IN_SAMPLE) if self.in_sample and found.value is not None else found


def _every_resample(seeds: int) -> tuple[Float, list[float]]:
    """Count each seed in every different resample, (S, R), beside the resample's probability."""
    drawn = combinations_with_replacement(range(seeds), seeds)
    counts = np.array([np.bincount(each, minlength=seeds) for each in drawn])
    ways = (factorial(seeds) / prod(factorial(int(k)) for k in row) for row in counts)
    return counts.astype(np.float64), [each / seeds**seeds for each in ways]


def too_few_seeds(seeds: int) -> str:
    """Return the reason for a missing interval."""
    return f"too few seeds for an interval: {seeds}, at least {MIN_SEEDS} are needed"


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a surface, flattened seed by seed, for one pass over resampled means."""

    log_lr: Float  # (I,)
    weight_decay: Float  # (J,)
    inside: Bool  # (I, J) cells that count
    out: Bool  # (I, J) cells that diverged or reached the cap
    values: Float  # (R, I·J), 0 if a cell does not count

    @classmethod
    def of(cls, surface: Surface) -> Cells:
        """Read a surface."""
        inside = surface.inside
        values = np.where(inside[..., None], surface.values, 0.0).reshape(inside.size, len(surface.seeds)).T
        return cls(np.log2(surface.lr), surface.weight_decay, inside, surface.out, values)

    def means(self, weights: Float) -> Float:
        """Return the weighted seed means (S, I, J), infinite if a cell does not count."""
        means = (weights @ self.values).reshape(len(weights), *self.inside.shape)
        means[:, ~self.inside] = np.inf
        return means


def chunks(weights: Float, size: int) -> Iterator[Float]:
    """Split rows of weights so that arrays of (rows, size) stay small."""
    step = max(_HELD // max(size, 1), 1)
    return (weights[start : start + step] for start in range(0, len(weights), step))


@lru_cache(maxsize=4096)
def t95(nu: float) -> float:
    """Return Student's t at level 0.95 for ν degrees of freedom.

    >>> [round(t95(nu), 6) for nu in (1, 4.5, 1e9)]
    [6.313752, 2.065576, 1.644854]
    """
    z = _Z95
    terms = (  # Abramowitz and Stegun 26.7.5
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    near = sum(term / nu**k for k, term in enumerate(terms))
    if nu > 1e3:  # the expansion is exact
        return near
    y = _beta_quantile(2 * 0.95 - 1, 0.5, nu / 2, near**2 / (near**2 + nu))  # of t²/(t² + ν)
    return sqrt(nu * y / (1 - y))


@lru_cache(maxsize=256)
def f99(first: float, second: float) -> float:
    """Return the value below which F with these degrees of freedom lies with probability 0.99.

    >>> round(f99(110, 220), 6)
    1.45476
    """
    y = _beta_quantile(0.99, first / 2, second / 2, first / (first + second))
    rest = 1 - y if y < 0.5 else _beta_quantile(1 - 0.99, second / 2, first / 2, second / (first + second))
    return second * (1 - rest) / (first * rest)


def _beta_quantile(p: float, a: float, b: float, x: float) -> float:
    """Return x with I_x(a, b) = p by Halley's method from `x`, within a bracket that always shrinks."""
    log_beta = lgamma(a) + lgamma(b) - lgamma(a + b)
    low, high = 0.0, 1.0
    for _ in range(40):
        excess = _beta_probability(x, a, b, log_beta) - p
        low, high = (low, x) if excess > 0 else (x, high)
        density = exp((a - 1) * log(x) + (b - 1) * log1p(-x) - log_beta)
        step = excess / density if density else 0.0
        if step:  # Halley's correction, held within a factor of two of Newton's step
            step /= min(max(1 - 0.5 * step * ((a - 1) / x - (b - 1) / (1 - x)), 0.5), 2.0)
        before, x = x, x - step
        if not low <= x <= high:
            x = (low + high) / 2
        if abs(x - before) <= 1e-7 * before:  # the error of the next is the cube
            break
    return x


def _beta_probability(x: float, a: float, b: float, log_beta: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) by its continued fraction (Lentz)."""
    if x > (a + 1) / (a + b + 2):  # it converges fast below
        return 1 - _beta_probability(1 - x, b, a, log_beta)
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    fraction = d
    for m in range(1, 2000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            change = c * d
            fraction *= change
        if abs(change - 1) <= 1e-16:
            break
    return exp(a * log(x) + b * log1p(-x) - log_beta) * fraction / a
