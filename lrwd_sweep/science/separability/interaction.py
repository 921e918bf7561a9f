"""Interaction share: how much of the basin's shape no sum f(α) + g(λ) can follow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Index = NDArray[np.intp]


def noise_variance(y: Float) -> float:
    """σ̂²: the residual variance of y (n, R) after removing cell means and seed offsets; 0 if n or R is 1.

    Seeds share initialisation and data order across cells, so a common offset is no noise.
    """
    cells, seeds = y.shape
    if cells < 2 or seeds < 2:
        return 0.0
    residual = y - y.mean(axis=1, keepdims=True)
    residual = residual - residual.mean(axis=0)
    return float((residual**2).sum() / ((cells - 1) * (seeds - 1)))


def signal(
    y: Float,  # (n, R)
    weights: Float,  # (S, R)
) -> Float:
    """TSS − (n−1) σ̂² Σw²: the variation of the cells' weighted means that is not noise, (S,).

    The mean of R seeds has the noise σ̂²/R = σ̂² Σw² at w = 1/R; a resample that repeats seeds has more.
    Not positive where the cells differ by no more than their noise.
    """
    spread = y - y.mean(axis=0)
    noise = noise_variance(y) * np.square(weights).sum(axis=1)
    return np.asarray(_quadratic(spread, weights) - (len(y) - 1) * noise)


def interaction_share(
    y: Float,  # (n, R) the basin's cells, seed by seed
    rows: Index,  # (n,) row of each cell
    columns: Index,  # (n,) column of each cell
    weights: Float,  # (S, R)
) -> Float:
    """(RSS − df σ̂² Σw²) / (TSS − (n−1) σ̂² Σw²) of the additive row + column fit, (S,); NaN where undefined.

    Dimensionless; 0 for an additive surface, 1 for pure interaction; noise alone scatters it around 0, below
    it too. df = n − rank. Undefined when df is 0 or the denominator is not positive. Invariant to shifting
    and stretching either axis, to y → cy + d with c ≠ 0; the numerator to adding any f(a) + g(l) as long as
    the basin stays.

    It lies where noise differs much between cells (one σ̂² serves all), low where noise rather than shape
    decides which cells are in the basin (they are chosen for their luck), high with one seed (noise counts
    as interaction: an upper bound), and it depends on how λ is written: a surface additive in
    (α, λ) is not additive in (α, λ/α). Its interval is conditional on the sample's basin.
    """
    nothing = np.full(len(weights), np.nan)
    if not len(y):
        return nothing
    residual, rank = _additive_residual(y, rows, columns)
    df = len(y) - rank
    total = signal(y, weights)
    if df <= 0:
        return nothing
    noise = noise_variance(y) * (weights**2).sum(axis=1)
    unexplained = _quadratic(residual, weights) - df * noise
    return np.where(total > 0, unexplained / np.where(total > 0, total, 1.0), np.nan)


def _quadratic(y: Float, weights: Float) -> Float:
    """Σ over cells of (Σ_r w_r y_r)², for every row of weights, through the R×R Gram matrix."""
    gram = y.T @ y
    return np.asarray(((weights @ gram) * weights).sum(axis=1))


def _additive_residual(y: Float, rows: Index, columns: Index) -> tuple[Float, int]:
    """What the row + column fit leaves of y (n, R), and the fit's rank."""
    _, rows = np.unique(rows, return_inverse=True)
    _, columns = np.unique(columns, return_inverse=True)
    height, width = rows.max() + 1, columns.max() + 1
    y = y - y.mean(axis=0)
    # Normal equations: height + width unknowns, however many the cells.
    incidence = np.zeros((height, width))
    incidence[rows, columns] = 1
    normal = np.block(
        [[np.diag(incidence.sum(axis=1)), incidence], [incidence.T, np.diag(incidence.sum(axis=0))]]
    )
    sums = np.zeros((height + width, y.shape[1]))
    np.add.at(sums, rows, y)
    np.add.at(sums, height + columns, y)
    effects, _, rank, _ = np.linalg.lstsq(normal, sums, rcond=1e-10)
    return y - effects[rows] - effects[height + columns], int(rank)
