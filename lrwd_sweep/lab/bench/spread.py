"""A measurement that was repeated."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """One value per repeat."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The one to quote."""
        return statistics.median(self.values)

    def over(self, other: Spread) -> Spread:
        """The ratios, repeat by repeat.

        >>> Spread((6.0, 8.0)).over(Spread((3.0, 2.0)))
        Spread(values=(2.0, 4.0))
        """
        return Spread(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def times(self, factor: float) -> Spread:
        """In another unit."""
        return Spread(tuple(factor * value for value in self.values))

    def to_dict(self) -> dict[str, float]:
        """JSON-ready: median, smallest and largest."""
        return {"median": self.median, "low": min(self.values), "high": max(self.values)}

    def text(self, form: str, unit: str = "") -> str:
        """Median, smallest and largest; of one value, that.

        >>> Spread((6.0, 8.0, 7.0)).text(".1f", "×")
        '7.0× (6.0 – 8.0)'
        >>> Spread((7.0,)).text(".1f", "×")
        '7.0×'
        """
        median = f"{self.median:{form}}{unit}"
        if len(self.values) == 1:
            return median
        return f"{median} ({min(self.values):{form}} – {max(self.values):{form}})"


def rate_form(rate: float) -> str:
    """The format of a rate: whole, unless that would hide what there is to see.

    >>> [f"{rate:{rate_form(rate)}}" for rate in (8204.3, 0.724)]
    ['8,204', '0.72']
    """
    return ",.0f" if rate >= 10 else ".2f"
