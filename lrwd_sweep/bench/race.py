"""A race: every contender in a fresh process, in random order, several times; ratios with their spread."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from lrwd_sweep.lattice import Lattice
from lrwd_sweep.spec import Training

ENGINE, PLAIN = "lrwd-sweep", "plain Optuna + torch"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to run the task, and how many lanes of it are timed."""

    name: str
    lanes: int


@dataclass(frozen=True, slots=True)
class Timing:
    """What one contender reached, in lane-steps per second, and the engine's lead over it."""

    name: str
    lanes: int
    rates: tuple[float, ...]  # one per repeat
    lead: tuple[float, ...]  # engine's rate over this one's, repeat by repeat

    def summary(self) -> dict[str, object]:
        """JSON-ready, medians with smallest and largest."""
        return {
            "name": self.name,
            "lanes": self.lanes,
            "lane_steps_per_second": {
                "median": median(self.rates),
                "low": min(self.rates),
                "high": max(self.rates),
            },
            "engine_ratio": {"median": median(self.lead), "low": min(self.lead), "high": max(self.lead)},
        }


def race(
    contenders: list[Contender],
    training: Training,
    lattice: Lattice,
    *,
    repeats: int,
    seed: int,
    on_run: Callable[[str, float], None],
) -> list[Timing]:
    """Lane-steps per second of every contender; the first one is the engine."""
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    order = random.Random(seed)
    for _ in range(repeats):
        for contender in order.sample(contenders, len(contenders)):
            rate = contender.lanes * training.steps / _seconds_in_fresh_process(contender, training, lattice)
            rates[contender.name].append(rate)
            on_run(contender.name, rate)
    engine = rates[contenders[0].name]
    return [
        Timing(
            c.name,
            c.lanes,
            tuple(rates[c.name]),
            tuple(a / b for a, b in zip(engine, rates[c.name], strict=True)),
        )
        for c in contenders
    ]


def _seconds_in_fresh_process(contender: Contender, training: Training, lattice: Lattice) -> float:
    """A process of its own: no contender inherits another's threads or memory settings."""
    order = json.dumps(
        {
            "name": contender.name,
            "lanes": contender.lanes,
            "training": training.to_dict(),
            "lr": lattice.lr,
            "weight_decay": lattice.weight_decay,
        }
    )
    command = [sys.executable, "-m", "lrwd_sweep.bench.race", order]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _engine_sweep(training: Training, lattice: Lattice, lanes: int) -> None:
    from lrwd_sweep.engine import Pool
    from lrwd_sweep.optimizer import Optimizer

    cells = list(lattice.cells())
    seeds = -(-lanes // len(cells))
    todo = {seed: cells[: lanes - seed * len(cells)] for seed in range(seeds)}
    pool = Pool(training, "cpu")
    for _ in pool.train(Optimizer.parse("adamw:lr-scaled"), pool.plan(todo)):
        pass


def _main(order: str) -> None:
    from dataclasses import replace

    asked = json.loads(order)
    training = Training.from_dict(asked["training"])
    lattice = Lattice(tuple(asked["lr"]), tuple(asked["weight_decay"]))
    if asked["name"] == ENGINE:
        run = _engine_sweep
    else:
        from lrwd_sweep.bench.plain import plain_sweep as run
    run(replace(training, epochs=1), lattice, min(asked["lanes"], 8))  # warm-up
    began = time.perf_counter()
    run(training, lattice, asked["lanes"])
    print(time.perf_counter() - began)  # noqa: T201 - to the parent process


if __name__ == "__main__":
    _main(sys.argv[1])
