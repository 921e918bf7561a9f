"""What the colours and the numbers of a heatmap mean."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lrwd_sweep.report.view.notation import Glyphs, fit_number, power_of_ten, short_decimal
from lrwd_sweep.report.view.range import usual
from lrwd_sweep.science.surface import Float, Surface
from lrwd_sweep.science.trial import Direction

_CONTRAST = 2.0  # the ramp spans this many times the height of the basin, the better half of the cells
_ABSURD = 100.0  # times what is usual: such values take no part in a scale
_RESOLUTION = 20  # numbers tell this many steps of the ramp apart
_DIGITS = "0123456789"


@dataclass(frozen=True, slots=True)
class Scale:
    """The values at the bright and the dark end of the colour ramp, in the metric's units."""

    bright: float  # the best; above `dark` where higher is better
    dark: float
    clipped: bool = False  # there are values beyond the dark end: they share its colour
    clipped_bright: bool = False  # and beyond the bright end
    ranked: bool = True  # one end is better
    direction: Direction = Direction.MINIMIZE  # which
    counts: bool = True  # the value at the bright end is that of a cell that counts

    @classmethod
    def of(cls, surfaces: Iterable[Surface], *, ranked: bool = True) -> Scale | None:
        """One scale for several surfaces, from the best value of all; None when no cell has a value.

        The dark end is the farthest over the surfaces of best + 2·(median − best), so that each basin, the
        better half of a surface's cells, spreads over half of the ramp or more wherever the surfaces are
        alike. Where values are not `ranked` there is no basin: from the lowest to the highest. A few values
        out of all proportion are clipped.
        """
        surfaces = list(surfaces)
        direction = surfaces[0].direction if ranked and surfaces else Direction.MINIMIZE
        sign = -1.0 if direction is Direction.MAXIMIZE else 1.0
        drawn = [(surface, sign * surface.mean_so_far) for surface in surfaces]
        finite = [values[np.isfinite(values)] for _, values in drawn]
        every = np.concatenate([np.empty(0), *finite])
        if not every.size:
            return None
        if not ranked:
            low, high = usual(every)
            return cls(low, high, bool(every.max() > high), bool(every.min() < low), ranked=False)
        known = [values[np.isfinite(values) & ~surface.out] for surface, values in drawn]
        known = [values for values in known if values.size] or [values for values in finite if values.size]
        sane = _limit(np.concatenate(known))
        best = min(float(values.min()) for values in known)
        known = [v for values in known if (v := values[np.abs(values) <= sane]).size]
        low = min(float(values.min()) for values in known)
        high = max(float(values.min()) + _reach(values) for values in known)
        top = float(every[np.abs(every) <= sane].max())
        if high <= low:  # half of the cells are equally good
            high = top
        inside = [values[surface.inside] for surface, values in drawn]
        counts = any(values.size and values.min() <= best for values in inside)
        high = min(high, top)
        return cls(
            sign * low, sign * high, bool(every.max() > high), best < low, direction=direction, counts=counts
        )

    @property
    def brightest(self) -> str:
        """What the value at the bright end is to be called."""
        if self.ranked and self.counts:
            return "best"
        return "highest" if self.direction is Direction.MAXIMIZE else "lowest"

    @property
    def beyond(self) -> tuple[str, str]:
        """Where clipped values lie: at the bright end, at the dark end."""
        sides = ("below", "above")
        return sides if self.direction is Direction.MINIMIZE else (sides[1], sides[0])

    @property
    def ends(self) -> tuple[str, str]:
        """What stands at the bright and at the dark end of the ramp."""
        return (
            self.written(self.bright) + f" and {self.beyond[0]} (clipped)" * self.clipped_bright,
            self.written(self.dark) + f" and {self.beyond[1]} (clipped)" * self.clipped,
        )

    def goodness(self, value: float) -> float:
        """1 at the best value and beyond it, 0 at the dark end and beyond."""
        span = self.dark - self.bright
        return min(max((self.dark - value) / span, 0.0), 1.0) if span else 1.0

    def digit(self, value: float) -> str:
        """The tenth of the scale that `value` lies in: 0 at the best, 9 at the dark end and beyond."""
        return _DIGITS[min(int(10 * (1 - self.goodness(value))), 9)]

    @property
    def decimals(self) -> int:
        """Decimal places (negative: tens, hundreds, …) that tell twentieths of the scale apart."""
        span = abs(self.dark - self.bright) or abs(self.bright) / 10 or 1.0
        return max(-300, min(math.ceil(-math.log10(span / _RESOLUTION) - 1e-9), 300))

    def written(self, value: float, extra: int = 0) -> str:
        """`value` with the digits that tell the scale apart, and `extra` ones."""
        decimals = self.decimals + extra
        if 0 <= decimals <= 6:
            return f"{value:.{decimals}f}"
        leading = math.floor(math.log10(abs(value))) + 1 if value else 1
        return short_decimal(value, min(max(leading + decimals, 1), 15))


def _limit(values: Float) -> float:
    """The largest magnitude that is not absurd beside the others."""
    typical = float(np.quantile(np.abs(values), 0.75))
    return _ABSURD * typical if typical else math.inf


def _reach(values: Float) -> float:
    """How far the ramp reaches from the best of one surface's values, lower being better."""
    ordered = np.sort(values)
    near = float(ordered[min(max(3, len(ordered) // 4), len(ordered) - 1)] - ordered[0])
    reach = _CONTRAST * float(np.median(ordered) - ordered[0])
    return min(reach, _ABSURD * near) if near else reach  # where more than half are absurdly bad


@dataclass(frozen=True, slots=True)
class Numbers:
    """How a cell's value is written in `room` characters: as it is, or in small units from the best."""

    room: int
    decimals: int
    origin: float | None = None  # of relative numbers: the value that is written 0
    direction: Direction = Direction.MINIMIZE  # below the origin, where higher is better

    @classmethod
    def absolute(cls, scale: Scale) -> Numbers | None:
        """Values as they are, in 4 to 6 characters that tell the basin apart; None where it takes more."""
        decimals, ends = max(scale.decimals, 0), (scale.bright, scale.dark)
        room = max(4, *(len(fit_number(value, decimals, 999)) for value in ends))
        while len(fit_number(scale.bright, decimals + 1, 999)) <= room:
            decimals += 1  # the room is there: larger numbers give up decimals by themselves
        return cls(room, decimals) if room <= 6 else None

    @classmethod
    def relative(cls, scale: Scale) -> Numbers:
        """Whole units of a power of ten from the best value on, in 3 characters."""
        return cls(3, scale.decimals, scale.bright, scale.direction)

    def text(self, value: float) -> str:
        """The number of one cell; `<` or `>` where it has no room."""
        if self.origin is None:
            text = fit_number(value, self.decimals, self.room)
            return "<" if text == ">" and value < 0 else text
        sign = -1.0 if self.direction is Direction.MAXIMIZE else 1.0
        units = sign * (value - self.origin) * 10.0**self.decimals
        if not math.isfinite(units):
            return "<" if units < 0 else ">"
        text = fit_number(abs(units) if abs(units) < 0.5 else units, 0, self.room)
        return "<" if text == ">" and units < 0 else text

    def meaning(self, metric: str, scale: Scale, glyphs: Glyphs) -> str:
        """What the numbers are, for the legend."""
        if self.origin is None:
            return f"numbers: {metric}"
        unit = f" in units of {power_of_ten(-self.decimals, glyphs)}" if self.decimals else ""
        origin = scale.written(self.origin, 1)
        if not scale.clipped_bright:
            origin = f"the {scale.brightest} ({origin})"
        return f"numbers: {metric} {scale.beyond[1]} {origin}{unit}"
