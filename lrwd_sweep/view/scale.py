"""What the colours and the numbers of a heatmap mean."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lrwd_sweep.surface import Bool, CellStatus, Float, Surface
from lrwd_sweep.view.notation import Glyphs, fit_number, power_of_ten, short_decimal

_CONTRAST = 2.0  # the ramp spans this many times the height of the basin, the better half of the cells
_RESOLUTION = 20  # numbers tell this many steps of the ramp apart
_DIGITS = "0123456789"


def seed_means(surface: Surface, partial: bool) -> Float:
    """What a heatmap draws, (I, J): the seed mean (of the seeds that are there when `partial`), or NaN."""
    if not partial:
        return surface.mean
    known = np.isfinite(surface.values)
    ended_badly = np.isin(surface.lanes, (CellStatus.DIVERGED.value, CellStatus.FAILED.value)).any(axis=2)
    count = np.where(ended_badly, 0, known.sum(axis=2))
    total = np.where(known, surface.values, 0.0).sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def counting(surface: Surface, values: Float) -> Bool:
    """Which of `values` count, (I, J): finite and below the cap."""
    finite = np.isfinite(values)
    return finite if surface.cap is None else finite & (np.where(finite, values, np.inf) < surface.cap)


@dataclass(frozen=True, slots=True)
class Scale:
    """The values at the bright and the dark end of the colour ramp, in the metric's units."""

    low: float
    high: float
    clipped: bool = False  # there are values above `high`: they share its colour
    ranked: bool = True  # lower is better

    @classmethod
    def of(cls, surfaces: Iterable[Surface], *, partial: bool = False, ranked: bool = True) -> Scale | None:
        """One scale for several surfaces, from the best value of all; None when no cell has a value.

        `high` is the largest over the surfaces of min + 2·(median − min), so that each basin, the better
        half of a surface's cells, spreads over half of the ramp or more wherever the surfaces are alike.
        Where values are not `ranked` there is no basin: from the lowest to the highest.
        """
        drawn = [(surface, seed_means(surface, partial)) for surface in surfaces]
        finite = [values[np.isfinite(values)] for _, values in drawn]
        if not ranked:
            every = np.concatenate([np.empty(0), *finite])
            return cls(float(every.min()), float(every.max()), ranked=False) if every.size else None
        known = [values[counting(surface, values)] for surface, values in drawn]
        known = [v for v in known if v.size] or [v for v in finite if v.size]
        if not known:
            return None
        low = float(min(values.min() for values in known))
        high = float(max(v.min() + _CONTRAST * (np.median(v) - v.min()) for v in known))
        top = float(max(values.max() for values in finite if values.size))
        if high <= low:  # half of the cells are equally good
            high = top
        return cls(low, min(high, top), top > high)

    @property
    def lowest(self) -> str:
        """What the lowest value is to be called."""
        return "best" if self.ranked else "lowest"

    def goodness(self, value: float) -> float:
        """1 at the best value, 0 at the dark end and beyond."""
        if value >= self.high > self.low:
            return 0.0
        return 1.0 if self.high <= self.low else min((self.high - value) / (self.high - self.low), 1.0)

    def digit(self, value: float) -> str:
        """The tenth of the scale that `value` lies in: 0 at the best, 9 at the dark end and beyond."""
        return _DIGITS[min(int(10 * (1 - self.goodness(value))), 9)]

    @property
    def decimals(self) -> int:
        """Decimal places (negative: tens, hundreds, …) that tell twentieths of the scale apart."""
        span = self.high - self.low or abs(self.low) / 10 or 1.0
        return max(-300, min(math.ceil(-math.log10(span / _RESOLUTION) - 1e-9), 300))

    def written(self, value: float, extra: int = 0) -> str:
        """`value` with the digits that tell the scale apart, and `extra` ones."""
        decimals = self.decimals + extra
        if 0 <= decimals <= 6:
            return f"{value:.{decimals}f}"
        leading = math.floor(math.log10(abs(value))) + 1 if value else 1
        return short_decimal(value, min(max(leading + decimals, 1), 15))


@dataclass(frozen=True, slots=True)
class Numbers:
    """How a cell's value is written in `room` characters: as it is, or in small units above the best."""

    room: int
    decimals: int
    origin: float | None = None  # of relative numbers: the value that is written 0

    @classmethod
    def absolute(cls, scale: Scale) -> Numbers | None:
        """Values as they are, in 4 to 6 characters that tell the basin apart; None where it takes more."""
        decimals, ends = max(scale.decimals, 0), (scale.low, scale.high)
        room = max(4, *(len(fit_number(value, decimals, 999)) for value in ends))
        while len(fit_number(scale.low, decimals + 1, 999)) <= room:
            decimals += 1  # the room is there: larger numbers give up decimals by themselves
        return cls(room, decimals) if room <= 6 else None

    @classmethod
    def relative(cls, scale: Scale) -> Numbers:
        """Whole units of a power of ten above the best value, in 3 characters."""
        return cls(3, scale.decimals, scale.low)

    def text(self, value: float) -> str:
        """The number of one cell."""
        if self.origin is None:
            return fit_number(value, self.decimals, self.room)
        units = (value - self.origin) * 10.0**self.decimals
        return fit_number(abs(units) if abs(units) < 0.5 else units, 0, self.room)

    def meaning(self, metric: str, scale: Scale, glyphs: Glyphs) -> str:
        """What the numbers are, for the legend."""
        if self.origin is None:
            return f"numbers: {metric}"
        unit = f" in units of {power_of_ten(-self.decimals, glyphs)}" if self.decimals else ""
        lowest = f"the {scale.lowest} ({scale.written(self.origin, 1)})"
        return f"numbers: {metric} above {lowest}{unit}"
