"""Time against lanes: what the engine takes for few and for many, and the line through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from lrwd_sweep.lab.bench.order import Order
from lrwd_sweep.lab.bench.spread import Spread
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.surface import Float
from lrwd_sweep.spec.task import Task

MOST = 2000  # lanes
_FEWEST_POINTS = 3  # that make a line worth drawing


@dataclass(frozen=True, slots=True)
class Line:
    """seconds = fixed + per_lane · lanes."""

    fixed: float
    per_lane: float

    @classmethod
    def through(cls, lanes: Sequence[int], seconds: Sequence[float]) -> Line:
        """By least squares of relative differences: the point of 50 lanes counts as much as that of 2,000.

        >>> Line.through([10, 100, 1000], [1.5, 6.0, 51.0])
        Line(fixed=1.0, per_lane=0.05)
        """
        n, t = np.array(lanes, dtype=float), np.array(seconds)
        fixed, per_lane = np.linalg.lstsq(np.stack([1 / t, n / t], axis=1), np.ones_like(t), rcond=None)[0]
        return cls(round(float(fixed), 12), round(float(per_lane), 12))

    @overload
    def at(self, lanes: float) -> float: ...
    @overload
    def at(self, lanes: Float) -> Float: ...
    def at(self, lanes: float | Float) -> float | Float:
        """Seconds for that many."""
        return self.fixed + self.per_lane * lanes

    @property
    def text(self) -> str:
        """The formula, in three digits.

        >>> Line(0.25, 0.0081).text
        '0.25 s + 8.1 ms per lane'
        """
        return f"{self.fixed:.3g} s + {1e3 * self.per_lane:.3g} ms per lane"


@dataclass(frozen=True, slots=True)
class Point:
    """One number of lanes, and the seconds that they took."""

    lanes: int
    seconds: Spread


@dataclass(frozen=True, slots=True)
class Scaling:
    """The points in order of lanes."""

    points: tuple[Point, ...]
    steps: int  # of a lane
    at_once: int  # lanes that train at a time; fewer leave cores or packs unfilled

    @property
    def fitted(self) -> list[Point]:
        """The points that the line goes through: those that fill the machine, if there are enough."""
        points = [point for point in self.points if point.lanes >= self.at_once]
        return points if len(points) >= _FEWEST_POINTS else []

    @property
    def line(self) -> Line | None:
        """Through the medians."""
        points = self.fitted
        if not points:
            return None
        return Line.through([point.lanes for point in points], [point.seconds.median for point in points])

    @property
    def furthest(self) -> tuple[int, float]:
        """The fitted point that is furthest from the line: its lanes, and by what share it took longer."""
        line = self.line
        assert line is not None, "there are points to fit"
        shares = [(point.seconds.median / line.at(point.lanes) - 1, point.lanes) for point in self.fitted]
        share, lanes = max(shares, key=lambda found: abs(found[0]))
        return lanes, share

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = {
            "at_once": self.at_once,
            "points": [{"lanes": p.lanes, "seconds": p.seconds.to_dict()} for p in self.points],
            "line": None,
        }
        if line := self.line:
            lanes, share = self.furthest
            found["line"] = {
                "from_lanes": self.fitted[0].lanes,
                "fixed_seconds": line.fixed,
                "seconds_per_lane": line.per_lane,
                "furthest": {"lanes": lanes, "share": share},
            }
        return {"scaling": found}


def log_spaced(most: int) -> tuple[int, ...]:
    """1, 2, 5, 10, … and `most` itself.

    >>> log_spaced(30)
    (1, 2, 5, 10, 20, 30)
    """
    found = [k * 10**power for power in range(len(str(most))) for k in (1, 2, 5)]
    return (*(count for count in found if count < most), most)


def scale(
    task: Task,
    lattice: Lattice,
    *,
    most: int,
    repeats: int,
    device: str = "cpu",
    on_repeat: Callable[[int], None],
) -> Scaling:
    """Measure 1 to `most` lanes, each `repeats` times in a fresh process. Raises UsageError, HostError."""
    lanes = log_spaced(most)
    order = Order("growth", task, lattice, lanes, device)
    found = []
    for repeat in range(repeats):
        found.append(order.carried_out())
        on_repeat(repeat + 1)
    columns = zip(*(one["seconds"] for one in found), strict=True)
    points = tuple(Point(n, Spread(tuple(column))) for n, column in zip(lanes, columns, strict=True))
    return Scaling(points, task.steps, found[0]["at_once"])
