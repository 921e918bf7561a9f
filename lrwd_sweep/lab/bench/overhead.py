"""Time besides training: start-up until the first epoch, and proposing and storing every lane."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from lrwd_sweep.errors import HostError
from lrwd_sweep.lab.bench.measurement import Measurement, Spread

LANES = 10_000
GRID = ("grid", "--optimizer", "adamw", "--seeds", "1", "--epochs", "1", "--storage", "bench.db")
_TRAINED = " lane-steps/s"  # ends the progress line that follows the last epoch


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
