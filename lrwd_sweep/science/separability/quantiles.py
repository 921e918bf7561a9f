"""Quantiles of Student's t and of F, without scipy, whose import costs more than a whole analysis."""

from __future__ import annotations

from functools import lru_cache
from math import erf, exp, lgamma, log, log1p, pi, sqrt

_MANY = 1e3  # degrees of freedom from which on the expansion about the normal distribution is exact
_MOST_TERMS, _MOST_STEPS = 2000, 40
_EXACT = 1e-16
_NEAR = 1e-7  # the step after one so small is exact: its error is the cube
_TINY = 1e-300


@lru_cache(maxsize=16)
def normal_quantile(level: float) -> float:
    """Return the value below which a standard normal variable lies with probability `level`, by Newton.

    >>> round(normal_quantile(0.95), 12)
    1.644853626951
    """
    z = 0.0
    for _ in range(_MOST_STEPS):
        step = ((1 + erf(z / sqrt(2))) / 2 - level) * sqrt(2 * pi) * exp(z**2 / 2)
        z -= step
        if abs(step) < _EXACT:
            break
    return z


@lru_cache(maxsize=4096)
def t_quantile(level: float, nu: float) -> float:
    """Return the value below which Student's t with ν degrees of freedom lies with probability `level` > 0.5.

    >>> [round(t_quantile(0.95, nu), 6) for nu in (1, 4.5, 1e9)]
    [6.313752, 2.065576, 1.644854]
    """
    z = normal_quantile(level)
    terms = (  # Abramowitz and Stegun 26.7.5
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    near = sum(term / nu**k for k, term in enumerate(terms))
    if nu > _MANY:
        return near
    y = beta_quantile(2 * level - 1, 0.5, nu / 2, near**2 / (near**2 + nu))  # of t²/(t² + ν)
    return sqrt(nu * y / (1 - y))


@lru_cache(maxsize=256)
def f_quantile(level: float, first: float, second: float) -> float:
    """Return the value below which F with these degrees of freedom lies with probability `level`.

    >>> round(f_quantile(0.99, 110, 220), 6)
    1.45476
    """
    y = beta_quantile(level, first / 2, second / 2)
    rest = 1 - y if y < 0.5 else beta_quantile(1 - level, second / 2, first / 2)
    return second * (1 - rest) / (first * rest)


def beta_quantile(p: float, a: float, b: float, start: float | None = None) -> float:
    """Return x with I_x(a, b) = p, 0 < p < 1, by Halley's method within a bracket that always shrinks."""
    log_beta = lgamma(a) + lgamma(b) - lgamma(a + b)
    low, high, x = 0.0, 1.0, a / (a + b) if start is None else start
    for _ in range(_MOST_STEPS):
        excess = beta_probability(x, a, b, log_beta) - p
        low, high = (low, x) if excess > 0 else (x, high)
        density = exp((a - 1) * log(x) + (b - 1) * log1p(-x) - log_beta)
        step = excess / density if density else 0.0
        if step:  # Halley's correction, held within a factor of two of Newton's step
            step /= min(max(1 - 0.5 * step * ((a - 1) / x - (b - 1) / (1 - x)), 0.5), 2.0)
        new = x - step
        if not low <= new <= high:
            new = (low + high) / 2
        if abs(new - x) <= _NEAR * x:
            return new
        x = new
    return x


def beta_probability(x: float, a: float, b: float, log_beta: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) by its continued fraction (Lentz)."""
    if x > (a + 1) / (a + b + 2):  # it converges fast below
        return 1 - beta_probability(1 - x, b, a, log_beta)
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or _TINY)
    fraction = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            d = 1 / (1 + term * d or _TINY)
            c = 1 + term / c or _TINY
            change = c * d
            fraction *= change
        if abs(change - 1) <= _EXACT:
            break
    return exp(a * log(x) + b * log1p(-x) - log_beta) * fraction / a
