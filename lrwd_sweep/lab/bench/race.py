"""A race: every contender in a fresh process, in random order, several times; ratios with their spread."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lrwd_sweep.errors import HostError, UsageError
from lrwd_sweep.lab.bench.contenders import ENGINE, Entry
from lrwd_sweep.lab.bench.order import Order
from lrwd_sweep.lab.bench.spread import Spread
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.spec.task import Task

FLOOR = "floor"  # the matrix products alone, which run among the contenders


@dataclass(frozen=True, slots=True)
class Timing:
    """What one contender reached; or why it did not run."""

    entry: Entry
    lanes: int = 0
    rate: Spread | None = None  # lane-steps per second
    lead: Spread | None = None  # the engine's rate over this one's
    absent: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.entry.name,
            "about": self.entry.about,
            "available": not self.absent,
            "reason": self.absent or None,
            "lanes": self.lanes,
            "lane_steps_per_second": self.rate and self.rate.to_dict(),
            "engine_ratio": self.lead and self.lead.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Floor:
    """The matrix products of training alone, on all cores, and how near the engine comes."""

    flop: float  # of a lane's step with its share of the validation
    validation: float  # that share
    rate: Spread  # lane-steps per second
    reached: Spread  # the engine's rate over it

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "flop_per_lane_step": self.flop,
            "flop_of_validation": self.validation,
            "flop_per_second": self.rate.times(self.flop).to_dict(),
            "lane_steps_per_second": self.rate.to_dict(),
            "fraction_reached": self.reached.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Race:
    """How it ended; the engine comes first."""

    timings: tuple[Timing, ...]
    floor: Floor

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        contenders = [timing.to_dict() for timing in self.timings]
        return {"contenders": contenders, "floor": self.floor.to_dict()}


def race(
    entries: Sequence[Entry],
    task: Task,
    lattice: Lattice,
    *,
    lanes: int,  # of the engine
    other_lanes: int,  # of everyone else
    repeats: int,
    seed: int,
    device: str = "cpu",
    on_run: Callable[[str, float], None],  # who, and lane-steps per second
) -> Race:
    """Every contender that can run here does so `repeats` times.

    Raises UsageError, HostError where the engine cannot.
    """
    absent = {entry.name: entry.missing for entry in entries if entry.missing}
    orders = {}
    for entry in entries:
        if entry.name not in absent:
            count = lanes if entry.name == ENGINE else other_lanes
            orders[entry.name] = Order(entry.module, task, lattice, (count,), device)
    orders[FLOOR] = Order(FLOOR, task, lattice, device=device)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in orders}
    shuffler = random.Random(seed)
    for _ in range(repeats):
        for name in shuffler.sample(list(orders), len(orders)):
            try:
                result = orders[name].carried_out()
            except (UsageError, HostError) as error:
                if name in (ENGINE, FLOOR):
                    raise
                absent[name] = str(error)
                del orders[name]
                continue
            found[name].append(result)
            on_run(name, result["rate"])
    rates = {name: Spread(tuple(result["rate"] for result in found[name])) for name in orders}
    engine, floor = rates[ENGINE], rates[FLOOR]
    timings = (
        Timing(entry, absent=absent[entry.name])
        if entry.name in absent
        else Timing(entry, orders[entry.name].lanes[0], rates[entry.name], engine.over(rates[entry.name]))
        for entry in entries
    )
    work = found[FLOOR][0]
    return Race(tuple(timings), Floor(work["flop"], work["validation"], floor, engine.over(floor)))
