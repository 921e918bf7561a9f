"""Time against lanes, with a line through the points, and time besides training.

The overhead is start-up until the first epoch, and proposing and storing every lane.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import numpy as np

from lrwd_sweep.errors import HostError
from lrwd_sweep.lab.bench.measurement import Measurement, Spread

MOST = 2000  # lanes
LANES = 10_000  # that the overhead is measured on
GRID = ("grid", "--optimizer", "adamw", "--seeds", "1", "--epochs", "1", "--storage", "bench.db")
_TRAINED = " lane-steps/s"  # ends the progress line that follows the last epoch
_FEWEST_POINTS = 3  # for a line


@dataclass(frozen=True, slots=True)
class ScalingPoint:
    """A number of lanes, and the seconds that they took."""

    lanes: int
    seconds: Spread


@dataclass(frozen=True, slots=True)
class ScalingLine:
    """The line seconds = fixed + per lane · lanes through the points that fill the machine."""

    from_lanes: int
    fixed_seconds: float
    seconds_per_lane: float
    furthest: Mapping[str, float]  # the lanes of the point furthest from the line; the share it is above


@dataclass(frozen=True, slots=True)
class Scaling:
    """The points in order of lanes."""

    at_once: int  # lanes that train at a time; fewer leave cores or packs unfilled
    points: tuple[ScalingPoint, ...]
    line: ScalingLine | None


def fit_line(points: Mapping[int, float]) -> ScalingLine | None:
    """Fit least squares of relative differences to seconds by lanes: 50 lanes count as much as 2,000.

    >>> fit_line({10: 1.5, 100: 6.0, 1000: 51.0})
    ScalingLine(from_lanes=10, fixed_seconds=1.0, seconds_per_lane=0.05, furthest={'lanes': 10, 'share': 0.0})
    """
    if len(points) < _FEWEST_POINTS:
        return None
    n, t = np.array(list(points), dtype=float), np.array(list(points.values()))
    fit, *_ = np.linalg.lstsq(np.stack([1 / t, n / t], axis=1), np.ones_like(t), rcond=None)
    fixed, per_lane = (round(float(number), 12) for number in fit)
    shares = {lanes: seconds / (fixed + per_lane * lanes) - 1 for lanes, seconds in points.items()}
    furthest = max(shares, key=lambda lanes: abs(shares[lanes]))
    return ScalingLine(min(points), fixed, per_lane, {"lanes": furthest, "share": shares[furthest]})


def log_spaced(most: int) -> tuple[int, ...]:
    """Return 1, 2, 5, 10, … and `most` itself.

    >>> log_spaced(30)
    (1, 2, 5, 10, 20, 30)
    """
    found = [k * 10**power for power in range(len(str(most))) for k in (1, 2, 5)]
    return (*(count for count in found if count < most), most)


def scale(asked: Measurement, *, most: int, repeats: int, on_repeat: Callable[[int], None]) -> Scaling:
    """Time 1 to `most` lanes, `repeats` times, each in a fresh process. Raises UsageError or HostError."""
    lanes, found = log_spaced(most), []
    for repeat in range(repeats):
        found.append(asked.in_process("scaling", *lanes))
        on_repeat(repeat + 1)
    columns = zip(*(one["seconds"] for one in found), strict=True)
    points = tuple(ScalingPoint(n, Spread.of(column)) for n, column in zip(lanes, columns, strict=True))
    at_once = found[0]["at_once"]
    line = fit_line({point.lanes: point.seconds.median for point in points if point.lanes >= at_once})
    return Scaling(at_once, points, line)


@dataclass(frozen=True, slots=True)
class Overhead:
    """Seconds that a study takes besides training."""

    first_epoch_seconds: Spread  # from the start of the process to the end of the default lattice's first
    lanes: int
    sampler_seconds_per_lane: Spread
    store_seconds_per_lane: Spread
    both_seconds_per_lane: Spread


def overhead(asked: Measurement, *, lanes: int, repeats: int, on_repeat: Callable[[int], None]) -> Overhead:
    """Measure everything `repeats` times, each time in fresh processes. Raises HostError."""
    starts, books = [], []
    for repeat in range(repeats):
        starts.append(until_first_epoch())
        books.append(asked.in_process("bookkeeping", lanes))
        on_repeat(repeat + 1)
    count = books[0]["lanes"]
    sampler, store = ([book[name] / count for book in books] for name in ("sampler", "store"))
    both = Spread.of(map(sum, zip(sampler, store, strict=True)))
    return Overhead(Spread.of(starts), count, Spread.of(sampler), Spread.of(store), both)


def until_first_epoch() -> float:
    """Time a process that trains one epoch, from its start to its last progress line. Raises HostError."""
    seconds, line, command = None, "", (sys.executable, "-P", "-m", "lrwd_sweep", *GRID)
    with TemporaryDirectory() as folder:
        began, out, err = time.perf_counter(), subprocess.DEVNULL, subprocess.PIPE
        with subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, text=True) as started:
            assert started.stderr is not None
            for line in started.stderr:
                if line.rstrip().endswith(_TRAINED):
                    seconds = time.perf_counter() - began
    if seconds is None:
        raise HostError(f"bench start-up: {line.strip() or 'nothing was trained'}")
    return seconds
