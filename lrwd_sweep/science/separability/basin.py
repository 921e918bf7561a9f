"""The basin: the cells good enough to be asked where the optimum lies."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

MIN_CELLS = 10
ROUNDING = 1e-12  # differences below this share of the largest value are rounding, not shape


@dataclass(frozen=True, eq=False)
class Basin:
    """B: the cells with y ≤ y_min + τ; empty, with τ None, where fewer than ten cells count."""

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
    """The basin at `quantile` q, or at a given `tolerance` τ in the metric's units.

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
    """Whether the values differ by no more than rounding."""
    return y.size == 0 or float(np.ptp(y)) <= ROUNDING * float(np.abs(y).max())
