"""The ridge: each row's optimum λ*, and the slope at which it moves with α."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.science.separability.basin import ROUNDING

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

MIN_ROWS = 3
REACH = 2  # neighbours on either side whose curvatures are smoothed


@dataclass(frozen=True, eq=False)
class Minima:
    """The interior minimum of every row of every resample."""

    position: Float  # (S, I) l*, in octaves; 0 where there is none
    curvature: Float  # (S, I) second derivative in the metric's units per octave²; 0 where there is none

    @classmethod
    def joined(cls, parts: Sequence[Minima]) -> Minima:
        """The minima of all parts' resamples, in order."""
        return cls(
            np.concatenate([part.position for part in parts]),
            np.concatenate([part.curvature for part in parts]),
        )


def row_minima(
    y: Float,  # (S, I, J), infinite where the cell is out
    axis: Float,  # (J,) l = log2 λ, strictly ascending, any spacing
) -> Minima:
    """The vertex of the parabola through each row's smallest cell and its two neighbours.

    A minimum is interior when both neighbours count. With abscissae l₋, l₀, l₊ and divided differences
    d₋ = (y₀ − y₋)/(l₀ − l₋), d₊ = (y₊ − y₀)/(l₊ − l₀): c = 2 (d₊ − d₋)/(l₊ − l₋) and
    l* = (l₋ + l₀)/2 − d₋/c. A row that is flat to rounding has no minimum.
    """
    columns = y.shape[2]
    if columns < 3:
        nothing = np.zeros(y.shape[:2])
        return Minima(nothing, nothing)
    lowest = y.argmin(axis=2)
    centre = lowest.clip(1, columns - 2)
    left, middle, right = (
        np.take_along_axis(y, (centre + step)[..., None], axis=2)[..., 0] for step in (-1, 0, 1)
    )
    interior = (lowest == centre) & np.isfinite(left) & np.isfinite(middle) & np.isfinite(right)
    left, middle, right = (np.where(interior, value, 0.0) for value in (left, middle, right))
    before, after = (middle - left), (right - middle)
    size = np.maximum(np.abs(left), np.abs(right))
    interior &= after - before > 2 * ROUNDING * size
    slope_before = before / (axis[centre] - axis[centre - 1])
    slope_after = after / (axis[centre + 1] - axis[centre])
    curvature = 2 * (slope_after - slope_before) / (axis[centre + 1] - axis[centre - 1])
    curvature = np.where(interior, curvature, 1.0)
    position = (axis[centre - 1] + axis[centre]) / 2 - slope_before / curvature
    return Minima(np.where(interior, position, 0.0), np.where(interior, curvature, 0.0))


def ridge_slope(
    minima: Minima,
    axis: Float,  # (I,) a = log2 α
    rows: Bool,  # (I,) rows with a cell in the basin
) -> Float:
    """s = d l*/d a: the least-squares slope of l* on a with weight c̄², (S,); NaN with fewer than three rows.

    c̄ is the curvature smoothed over neighbouring rows, see `smoothed_curvature`: that of the sample, the same
    in every resample, in which a row without an interior minimum has no weight. Var l* ∝ 1/c², but c from
    three cells is nearly as noisy as l*, so weights c² would let a lucky row decide.

    Octaves of λ per octave of α. Any real number: 0 separable, −1 only the product αλ matters, +1 only the
    ratio. Invariant to shifting either axis and to y → cy + d with c > 0; under w = λ/α it becomes s − 1
    exactly. On an exact quadratic s = −H_al/H_ll. The reverse slope s′ = d a*/d l is the same function of
    the transposed surface.

    It lies where the ridge bends (one number for two slopes), where the ridge leaves the lattice (rows whose
    optimum is just outside enter only when noise pulls it in, which draws s towards 0), and on a metric in
    coarse steps (ties go to the smaller index).
    """
    smooth = smoothed_curvature(minima.curvature[0], rows)
    smooth = smooth / np.maximum(smooth.max(initial=0.0), np.finfo(float).tiny)
    weight = np.where(minima.curvature > 0, smooth**2, 0.0)
    enough = np.count_nonzero(weight, axis=1) >= MIN_ROWS
    total = np.where(enough, weight.sum(axis=1), 1.0)
    da = axis - ((weight @ axis) / total)[:, None]
    spread = (weight * da**2).sum(axis=1)
    enough &= spread > 0
    slope = (weight * da * minima.position).sum(axis=1) / np.where(enough, spread, 1.0)
    return np.where(enough, slope, np.nan)


def smoothed_curvature(
    curvature: Float,  # (I,) of one sample; 0 where a row has no interior minimum
    rows: Bool,  # (I,) rows with a cell in the basin
) -> Float:
    """c̄: the median of the positive curvatures of a basin's row and its two neighbours on either side, (I,).

    Neighbours are the next rows of the basin, fewer at its ends. 0 outside of the basin, and where none of
    these rows has an interior minimum.

    >>> smoothed_curvature(np.array([3.0, 1.0, 0.0, 2.0, 9.0, 9.0]), np.array([True] * 5 + [False]))
    array([2. , 2. , 2.5, 2. , 5.5, 0. ])
    """
    smooth = np.zeros_like(curvature)
    basin = np.flatnonzero(rows)
    for k, row in enumerate(basin):
        near = curvature[basin[max(k - REACH, 0) : k + REACH + 1]]
        if (near > 0).any():
            smooth[row] = np.median(near[near > 0])
    return smooth
