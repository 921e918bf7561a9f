"""The basin: the cells good enough to locate the optimum, and the rotation of their quadratic."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

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
    mean: Float,  # (I, J)
    inside: Bool,  # (I, J) cells that count
    quantile: float,
    tolerance: float | None = None,
) -> Basin:
    """Find the basin at `quantile` q, or at a given `tolerance` τ in the metric's units.

    τ is the smallest value at which B holds at least ⌈q·n⌉ of the n cells that count, and at least ten.
    """
    values = mean[inside]
    if values.size < MIN_CELLS:
        return Basin(np.zeros_like(inside), None)
    lowest = float(values.min())
    if tolerance is not None:
        limit = lowest + tolerance
    else:
        k = min(max(ceil(quantile * values.size), MIN_CELLS), values.size)
        limit = float(np.partition(values, k - 1)[k - 1])  # compared as it stands: no rounding drops a tie
        tolerance = limit - lowest
    return Basin(inside & (np.where(inside, mean, np.inf) <= limit), tolerance)


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
