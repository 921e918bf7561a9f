"""Ridge slopes as bars on one axis, with the bands that the verdict asks about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.fields import estimate_text, title

_FARTHEST = 4.0  # slopes beyond it end at the rim
_WIDTH = 360  # pixels of the axis
_MARGIN = 10  # of these, at both ends, for half a label
BANDS = ((-0.25, 0.25, "separable"), (-1.25, -0.75, "product-coupled"))


@dataclass(frozen=True, slots=True)
class Slope:
    """One study's bar, in pixels along the axis; None without a value or an interval."""

    title: str
    formula: str
    verdict: str
    value: float | None
    low: float | None
    high: float | None
    written: str


@dataclass(frozen=True, slots=True)
class SlopeAxis:
    """The axis that all bars share."""

    low: float
    high: float
    slopes: tuple[Slope, ...]
    width: int = _WIDTH

    @classmethod
    def of(cls, results: Sequence[Result]) -> SlopeAxis:
        """From −1.5 to 0.5, or as far as the intervals reach."""
        found = [result.separability.ridge_slope for result in results]
        known = [x for s in found for x in (s.value, s.low, s.high) if x is not None]
        low = max(math.floor(2 * min([-1.5, *known])) / 2, -_FARTHEST)
        high = min(math.ceil(2 * max([0.5, *known])) / 2, _FARTHEST)

        return cls(
            low,
            high,
            tuple(
                Slope(
                    title=title(result, results),
                    formula=result.spec.formula,
                    verdict=str(result.separability.verdict),
                    value=_place(s.value, low, high),
                    low=_place(s.low, low, high),
                    high=_place(s.high, low, high),
                    written=estimate_text(s),
                )
                for result, s in zip(results, found, strict=True)
            ),
        )

    @property
    def bands(self) -> list[tuple[float, float, str]]:
        """Where each band begins, how wide it is, and its verdict."""
        scale = (_WIDTH - 2 * _MARGIN) / (self.high - self.low)
        return [
            (_MARGIN + (begin - self.low) * scale, (end - begin) * scale, name) for begin, end, name in BANDS
        ]

    @property
    def ticks(self) -> list[tuple[float | None, str]]:
        """Whole slopes."""
        slopes = range(math.ceil(self.low), math.floor(self.high) + 1)
        return [(_place(slope, self.low, self.high), str(slope).replace("-", "−")) for slope in slopes]


def _place(slope: float | None, low: float, high: float) -> float | None:
    """Pixels along the axis; a slope beyond an end lies there."""
    if slope is None:
        return None
    return _MARGIN + (_WIDTH - 2 * _MARGIN) * (min(max(slope, low), high) - low) / (high - low)
