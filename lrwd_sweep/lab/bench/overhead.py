"""What is paid besides training: until the first epoch, and for every lane's proposal and storing."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from lrwd_sweep.errors import HostError
from lrwd_sweep.lab.bench.order import Order
from lrwd_sweep.lab.bench.spread import Spread
from lrwd_sweep.runner import interpreter
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.spec.task import Task

LANES = 10_000
GRID = ("grid", "--optimizer", "adamw")
_RUNNER = "lrwd_sweep.cli.first_epoch"  # of the layer above, whence no import


@dataclass(frozen=True, slots=True)
class Overhead:
    """All in seconds."""

    start: Spread  # from the start of the process to the end of the first epoch, the default lattice's first
    lanes: int
    sampler: Spread  # per lane
    store: Spread  # per lane

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = {
            "first_epoch_seconds": self.start.to_dict(),
            "lanes": self.lanes,
            "sampler_seconds_per_lane": self.sampler.to_dict(),
            "store_seconds_per_lane": self.store.to_dict(),
        }
        return {"overhead": found}


def overhead(
    task: Task,
    lattice: Lattice,
    *,
    lanes: int = LANES,
    repeats: int,
    on_repeat: Callable[[int], None],
) -> Overhead:
    """Measure both, `repeats` times, each time in fresh processes. Raises HostError."""
    starts, books = [], []
    for repeat in range(repeats):
        starts.append(until_first_epoch())
        books.append(Order("bookkeeping", task, lattice, (lanes,)).carried_out())
        on_repeat(repeat + 1)
    sampler, store = (Spread(tuple(b[name] / b["lanes"] for b in books)) for name in ("sampler", "store"))
    return Overhead(Spread(tuple(starts)), books[0]["lanes"], sampler, store)


def until_first_epoch() -> float:
    """Seconds from the start of a process that runs GRID to the end of the first epoch. Raises HostError."""
    with TemporaryDirectory() as folder:
        began = time.time()
        command = interpreter.command(_RUNNER, *GRID, "--storage", "bench.db")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    try:
        return float(done.stdout) - began
    except ValueError:
        raise HostError(f"bench start-up: {done.stderr.strip() or 'nothing was trained'}") from None
