"""Benchmarks of the engine and its plain alternatives, from measurements in fresh processes.

The race takes every contender in random order, several times; its ratios are taken repeat by repeat.
Scaling is time against lanes, with a line through the points. The overhead is start-up until the first epoch,
and proposing and storing every lane.
"""

import json
import pickle
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import truediv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from lrwd_sweep.errors import HostError, UnknownName, UsageError
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.spec.task import Task

GRID = ("grid", "--optimizer", "adamw", "--seeds", "1", "--epochs", "1", "--storage", "bench.db")
_TRAINED = " lane-steps/s"  # ends the progress line that follows the last epoch
_HERE = str(Path(__file__).parents[3])
# A new process finds libraries in its own folders first, not in the current one or in one of user code.
_START = (
    "import sys; sys.path.append(sys.argv[1]); from lrwd_sweep.lab.bench.measurements import main; main()"
)
ENGINE, FLOOR = "lrwd-sweep", "floor"  # the floor is measured among the contenders
ABOUT = {
    ENGINE: "as grid runs it",
    "plain": "torch, eager",
    "compiled": "torch.compile, fused",
    "graphs": "CUDA graphs, fused",
    "processes": "plain, one per core",
    "vmap": "torch.func, in stacks",
}
ONLY = {"graphs": "cuda", "processes": "cpu"}  # the kind of device that one runs on, if not on any


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement in its own process, where it inherits neither threads nor memory."""

    task: Task
    lattice: Lattice  # source of the lanes
    device: str = "cpu"
    name: str = ""  # of a contender, FLOOR, scaling or bookkeeping
    lanes: tuple[int, ...] = ()  # counts, one per part of the measurement
    optimizer: str = "adamw:lr-scaled"  # of the engine; torch.optim.AdamW is the contenders'

    def in_process(self, name: str, *lanes: int) -> dict[str, Any]:
        """Measure `name` in a new process. Raises UsageError or HostError, with its last line on stderr."""
        asked = pickle.dumps((sys.path, replace(self, name=name, lanes=lanes))).hex()
        command = [sys.executable, "-P", "-c", _START, _HERE, asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            if done.returncode == UsageError.exit_code:
                raise UsageError(reason)
            raise HostError(f"bench {name}: {reason}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of a quantity that was measured several times."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Summarise one value per repeat."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))

    def times(self, factor: float) -> Self:
        """Convert to another unit."""
        return type(self)(factor * self.median, factor * self.low, factor * self.high)

    def text(self, form: str, unit: str = "") -> str:
        """Write the median, and the range if there is one.

        >>> Spread.of([6.0, 8.0, 7.0]).text(".1f", "×"), Spread.of([7.0]).text(".1f", "×")
        ('7.0× (6.0 – 8.0)', '7.0×')
        """
        bounds = f" ({self.low:{form}} – {self.high:{form}})" if self.low < self.high else ""
        return f"{self.median:{form}}{unit}{bounds}"


@dataclass(frozen=True, slots=True)
class Timing:
    """The speed of one contender, or the reason why it did not run."""

    name: str
    about: str
    available: bool
    reason: str | None = None
    lanes: int = 0
    lane_steps_per_second: Spread | None = None
    engine_ratio: Spread | None = None  # the engine's rate over this one's, repeat by repeat


@dataclass(frozen=True, slots=True)
class Floor:
    """The speed of training's matrix products without anything else."""

    flop_per_lane_step: float  # with the step's share of the validation
    flop_of_validation: float  # that share
    flop_per_second: Spread
    lane_steps_per_second: Spread
    fraction_reached: Spread  # the engine's rate over it, repeat by repeat


@dataclass(frozen=True, slots=True)
class Race:
    """The speeds of all contenders, the engine first, and the floor."""

    contenders: tuple[Timing, ...]
    floor: Floor


def choose_contenders(names: Sequence[str] | None = None, kind: str = "cpu") -> list[str]:
    """Return the engine and these contenders, by default all that run on this kind of device.

    Raises UnknownName or UsageError.
    """
    if names is None:
        return [name for name in ABOUT if ONLY.get(name, kind) == kind]
    for name in names:
        if name not in ABOUT:
            raise UnknownName("contender", name, list(ABOUT))
        if (only := ONLY.get(name, kind)) != kind:
            raise UsageError(f"--contenders {name} runs only on {only}, not on {kind}; leave it out")
        if names.count(name) > 1:
            raise UsageError(f"--contenders names {name} twice; leave one out")
    return [name for name in ABOUT if name in (ENGINE, *names)]


def race(
    contenders: Sequence[str],
    asked: Measurement,
    *,
    lanes: int,  # of the engine
    other_lanes: int,  # of each other contender
    repeats: int,
    on_run: Callable[[str, float], None],  # gets a name and lane-steps per second
) -> Race:
    """Time every contender that can run here `repeats` times.

    Raises UsageError, or HostError if the engine or the floor fails.
    """
    counts = {name: lanes if name == ENGINE else other_lanes for name in contenders}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*contenders, FLOOR)}
    absent: dict[str, str] = {}
    shuffler = random.Random(0)
    for _ in range(repeats):
        for name in shuffler.sample(list(found), len(found)):
            try:
                found[name].append(asked.in_process(name, counts.get(name, 1)))
                on_run(name, found[name][-1]["rate"])
            except (UsageError, HostError) as error:
                if name in (ENGINE, FLOOR):
                    raise
                absent[name] = str(error)
                del found[name]
    rates = {name: [result["rate"] for result in results] for name, results in found.items()}

    def timing(name: str) -> Timing:
        if name in absent:
            return Timing(name, ABOUT[name], False, absent[name])
        lead = Spread.of(map(truediv, rates[ENGINE], rates[name]))
        return Timing(name, ABOUT[name], True, None, counts[name], Spread.of(rates[name]), lead)

    work, speed = found[FLOOR][0], Spread.of(rates[FLOOR])
    reached = Spread.of(map(truediv, rates[ENGINE], rates[FLOOR]))
    floor = Floor(work["flop"], work["validation"], speed.times(work["flop"]), speed, reached)
    return Race(tuple(map(timing, contenders)), floor)


@dataclass(frozen=True, slots=True)
class Cost:
    """The engine's speed with one optimizer."""

    optimizer: str
    lanes: int
    lane_steps_per_second: Spread
    cost: Spread  # time of a lane-step over that of the first optimizer, repeat by repeat

    @property
    def microseconds(self) -> Spread:
        """The time of a lane-step on the whole machine."""
        rate = self.lane_steps_per_second
        return Spread(1e6 / rate.median, 1e6 / rate.high, 1e6 / rate.low)


def compare_costs(
    asked: Sequence[Measurement],  # one for each optimizer
    *,
    lanes: int,
    repeats: int,
    on_run: Callable[[str, float], None],  # gets a name and lane-steps per second
) -> tuple[Cost, ...]:
    """Time the engine with every optimizer `repeats` times, in random order. Raises HostError."""
    rates: dict[str, list[float]] = {one.optimizer: [] for one in asked}
    shuffler = random.Random(0)
    for _ in range(repeats):
        for one in shuffler.sample(asked, len(asked)):
            rates[one.optimizer].append(one.in_process(ENGINE, lanes)["rate"])
            on_run(one.optimizer, rates[one.optimizer][-1])
    first = rates[asked[0].optimizer]
    return tuple(
        Cost(name, lanes, Spread.of(found), Spread.of(map(truediv, first, found)))
        for name, found in rates.items()
    )


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
    if len(points) < 3:
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
    columns = zip(lanes, *(one["seconds"] for one in found), strict=True)
    points, at_once = tuple(ScalingPoint(n, Spread.of(s)) for n, *s in columns), found[0]["at_once"]
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
