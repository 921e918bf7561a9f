"""Interaction: the part of the basin's shape that no sum f(α) + g(λ) follows; a small lattice's contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.science.separability.bootstrap import Estimate, student_interval

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Contrast:
    """The interaction contrast of four cells: how much costlier a higher α makes a higher λ.

    [y(hi, hi) − y(hi, lo)] − [y(lo, hi) − y(lo, lo)], in the metric's units, lower being better. Indices are
    those of the surface given.
    """

    estimate: Estimate  # with Student's interval over seeds
    rows: tuple[int, int]  # lo and hi on the learning-rate axis
    columns: tuple[int, int]  # lo and hi on the weight-decay axis
    octaves: tuple[float, float]  # from lo to hi of α and of λ


def contrast(
    y: Float,  # (I, J, R), lower is better
    inside: Bool,  # (I, J) cells that count
    log_lr: Float,  # (I,) log2 α
    log_decay: Float,  # (J,) log2 λ
) -> Contrast | None:
    """Contrast the corners of the largest rectangle, in octaves², whose four corners count.

    Dimension of y; 0 for an additive surface; invariant to shifting the axes and to adding any f(α) + g(λ).
    None if there is no such rectangle, and below two seeds. Ties go to the smaller index.
    """
    if y.shape[2] < 2:
        return None
    largest, corners = 0.0, None
    for i in range(len(log_lr)):
        for k in range(i + 1, len(log_lr)):
            common = np.flatnonzero(inside[i] & inside[k])
            if len(common) < 2:
                continue
            lo, hi = int(common[0]), int(common[-1])
            area = float((log_lr[k] - log_lr[i]) * (log_decay[hi] - log_decay[lo]))
            if area > largest:
                largest, corners = area, (i, k, lo, hi)
    if corners is None:
        return None
    i, k, lo, hi = corners
    by_seed = (y[k, hi] - y[k, lo]) - (y[i, hi] - y[i, lo])
    octaves = float(log_lr[k] - log_lr[i]), float(log_decay[hi] - log_decay[lo])
    return Contrast(student_interval(by_seed), (i, k), (lo, hi), octaves)


def noise_variance(y: Float) -> float:
    """Compute σ̂², the variance of y (n, R) without cell means and seed offsets; 0 if n or R is 1.

    Seeds share initialisation and data order across cells, so a common offset does not count as noise.
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
    """Compute TSS − (n−1) σ̂² Σw², the variation of the cells' weighted means that is not noise, (S,).

    The mean of R seeds has the noise σ̂²/R = σ̂² Σw² at w = 1/R; a resample that repeats seeds has more.
    Not positive if the cells differ by no more than their noise.
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
    """Compute (RSS − df σ̂² Σw²) / (TSS − (n−1) σ̂² Σw²) of the additive row + column fit, (S,).

    Dimensionless; 0 for an additive surface, 1 for pure interaction; noise only scatters it around 0, below
    it too. df = n − rank. NaN if df is 0 or the denominator is not positive. Invariant to shifting
    and stretching either axis, to y → cy + d with c ≠ 0; the numerator to adding any f(a) + g(l) as long as
    the basin stays.

    It misleads if noise differs much between cells (one σ̂² serves all). It is too low if noise rather than
    shape decides which cells are in the basin (they are chosen for their luck), too high with one seed (noise
    counts as interaction: an upper bound), and it depends on how λ is written: a surface additive in
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
    """Sum (Σ_r w_r y_r)² over cells for every row of weights, through the R×R Gram matrix."""
    gram = y.T @ y
    return np.asarray(((weights @ gram) * weights).sum(axis=1))


def _additive_residual(y: Float, rows: Index, columns: Index) -> tuple[Float, int]:
    """Return the residual of y (n, R) after the row + column fit, and the fit's rank."""
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
