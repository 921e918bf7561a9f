"""Curvature coupling: how far the basin's quadratic is turned against the axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

_FLAT = 1e-9  # a curvature below this share of the largest is rounding


def curvature_coupling(
    y: Float,  # (n, R) the basin's cells, seed by seed
    log_lr: Float,  # (n,) a = log2 α of these cells
    log_decay: Float,  # (n,) l = log2 λ
    weights: Float,  # (S, R)
) -> Float:
    """ρ = H_al/√(H_aa H_ll) of the least-squares quadratic on the basin, (S,); NaN where undefined.

    Dimensionless. |ρ| < 1 for a bowl, 0 for one along the axes; |ρ| ≥ 1 is a ridge or a saddle. Tuning one
    parameter at a time shrinks the distance to a bowl's optimum by ρ² per sweep; s·s′ = ρ² on an exact
    quadratic. Undefined unless H_aa > 0, H_ll > 0 and the cells fix all six coefficients. Invariant to
    shifting and stretching either axis and to y → cy + d with c > 0.

    It lies where the basin is no quadratic (a wall on one side bends H), and it says little where a large
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
