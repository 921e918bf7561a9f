"""A range of values along one side of a drawing, with its ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrwd_sweep.report.view.notation import short_decimal
from lrwd_sweep.science.surface import Float

SIZE = 1000  # a side's length
_DECADE = 10
_FAR = 10.0  # heights of the middle half of the values: what lies farther is absurd
_SHOWN = 0.98  # share of the points below the upper end of a panel; the rest lies on its rim


def usual(values: Float, *, log: bool = False) -> tuple[float, float]:
    """The lowest and the highest of the values that are not absurdly far from the middle half of them.

    Far is ten times the height of that half; where it has none, of the middle four fifths. Heights are those
    of the logarithms where `log`.

    >>> usual(np.array([1.0, 2.0, 3.0, 4.0, 6e15]))
    (1.0, 4.0)
    """
    heights = np.log(values) if log else values
    for share in (0.25, 0.1):
        low, high = (float(x) for x in np.quantile(heights, [share, 1 - share]))
        if reach := _FAR * (high - low):
            values = values[(heights >= low - reach) & (heights <= high + reach)]
            break
    return float(values.min()), float(values.max())


@dataclass(frozen=True, slots=True)
class Range:
    """What a panel's height stands for; logarithmic where values above 0 span a decade."""

    low: float
    high: float
    log: bool
    clipped: bool = False  # some points lie beyond, and are drawn on the rim

    @classmethod
    def of(cls, lanes: Sequence[Float], shown: float = _SHOWN) -> Range | None:
        """From the lowest of all points to where this share of them lies below; None without a point.

        A few points out of all proportion are left out, those of a logarithmic axis by their logarithms.
        """
        values = np.concatenate([np.empty(0), *lanes])
        if not values.size:
            return None
        lowest, highest = float(values.min()), float(values.max())
        low, high = usual(values, log=0 < _DECADE * lowest <= highest)
        high = min(high, max(float(np.quantile(values, shown)), low))
        clipped = lowest < low or highest > high
        if math.isclose(low, high):
            high = low + (abs(low) or 1.0)
        return cls(low, high, 0 < _DECADE * low <= high, clipped)

    def heights(self, values: Float) -> list[int]:
        """Distance from the panel's upper rim, 0 to SIZE, (E,) each."""
        low, high = self._map(np.array([self.low, self.high]))
        share = (high - self._map(np.clip(values, self.low, self.high))) / (high - low)
        return [int(y) for y in np.rint(SIZE * share)]

    def _map(self, values: Float) -> Float:
        return np.asarray(np.log(values)) if self.log else values

    def ticks(self) -> list[tuple[int, str]]:
        """Heights and labels of round values."""
        found = _log_ticks(self.low, self.high) if self.log else even_ticks(self.low, self.high)
        if len(found) < 2:
            found = even_ticks(self.low, self.high)
        return list(zip(self.heights(np.array(found)), map(short_decimal, found), strict=True))


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten; powers of ten alone, or some of them, where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    leading = (1, 2, 5) if len(powers) <= 4 else (1,)
    return [
        x
        for power in powers[:: math.ceil(len(powers) / 8)]
        for k in leading
        if low <= (x := k * 10.0**power) <= high
    ]


def even_ticks(low: float, high: float) -> list[float]:
    """About five values, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
