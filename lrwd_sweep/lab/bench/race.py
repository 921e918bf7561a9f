"""A race: every contender in a fresh process, in random order, several times; ratios with their spread."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import truediv
from typing import Any

from lrwd_sweep.errors import HostError, UnknownName, UsageError
from lrwd_sweep.lab.bench.measurement import Measurement, Spread

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
