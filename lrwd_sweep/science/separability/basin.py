"""The basin, the cells good enough to locate the optimum, and its shape.

The shape: curvature coupling, the rotation of the basin's quadratic; interaction share, the part that no sum
f(α) + g(λ) follows; and the contrast of a lattice too small for a basin.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.science.separability.bootstrap import Estimate, student_interval
from lrwd_sweep.science.surface import Surface

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Index = NDArray[np.intp]

MIN_CELLS = 10
ROUNDING = 1e-12  # differences below this share of the largest value are rounding, not shape
_FLAT = 1e-9  # a curvature below this share of the largest is rounding


@dataclass(frozen=True, eq=False)
class Basin:
    """B: the cells with y ≤ y_min + τ; empty, with τ None, if fewer than ten cells count."""

    mask: Bool  # (I, J)
    tolerance: float | None  # τ, in the metric's units

    @property
    def rows(self) -> Bool:
        """Rows with a cell in B, (I,)."""
        return np.asarray(self.mask.any(axis=1))

    @property
    def columns(self) -> Bool:
        """Columns with a cell in B, (J,)."""
        return np.asarray(self.mask.any(axis=0))


def find_basin(
    surface: Surface,  # of λ > 0, lower is better
    quantile: float,
    tolerance: float | None = None,
) -> Basin:
    """Find the basin at `quantile` q, or at a given `tolerance` τ in the metric's units.

    τ is the smallest value at which B holds at least ⌈q·n⌉ of the n cells that count, and at least ten.
    Cells that were left untrained are among the n with their presumed values; B holds none of them.
    """
    mean, inside, presumed = surface.mean, surface.inside, surface.presumed
    values = mean[inside]
    if values.size < MIN_CELLS:
        return Basin(np.zeros_like(inside), None)
    lowest = float(values.min())
    if presumed is not None:
        values = np.concatenate([values, presumed[~inside & np.isfinite(presumed)]])
    if tolerance is not None:
        limit = lowest + tolerance
    else:
        limit = basin_limit(values, quantile)  # compared as it stands: no rounding drops a tie
        tolerance = limit - lowest
    return Basin(inside & (np.where(inside, mean, np.inf) <= limit), tolerance)


def basin_limit(values: Float, quantile: float) -> float:
    """Return the largest of the best ⌈q·n⌉ of n values, at least ten.

    >>> basin_limit(np.arange(40.0), 0.5), basin_limit(np.arange(12.0), 0.5)
    (19.0, 9.0)
    """
    k = min(max(ceil(quantile * values.size), MIN_CELLS), values.size)
    return float(np.partition(values, k - 1)[k - 1])


def median(values: Float) -> float:
    """Return the median of some values; numpy's own imports the whole of masked arrays.

    >>> median(np.array([3.0, 1.0, 2.0])), median(np.array([4.0, 1.0]))
    (2.0, 2.5)
    """
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def is_flat(y: Float) -> bool:
    """Tell if the values differ by no more than rounding."""
    return y.size == 0 or float(np.ptp(y)) <= ROUNDING * float(np.abs(y).max())


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
    if len(y) < 6:
        return np.full(len(weights), np.nan)
    u, v = (x - x.mean() for x in (log_lr, log_decay))
    u, v = (x / (np.abs(x).max() or 1.0) for x in (u, v))  # ρ does not change, the fit is better conditioned
    design = np.stack([u**2 / 2, u * v, v**2 / 2, u, v, np.ones_like(u)], axis=1)
    coefficients, _, rank, _ = np.linalg.lstsq(design, y - y.mean(axis=0), rcond=1e-10)
    if rank < 6:
        return np.full(len(weights), np.nan)
    aa, al, ll = coefficients[:3] @ weights.T
    least = _FLAT * np.maximum.reduce([np.abs(aa), np.abs(al), np.abs(ll)])
    bowl = (aa > least) & (ll > least)
    return np.where(bowl, al / np.sqrt(np.where(bowl, aa * ll, 1.0)), np.nan)


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
