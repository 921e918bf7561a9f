"""A measurement in its own process, where it inherits neither threads nor memory, and its repeats."""

from __future__ import annotations

import json
import os
import pickle
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from lrwd_sweep.engine.host import cores
from lrwd_sweep.errors import HostError, LrwdError, UsageError
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.spec.task import Task

_HERE = str(Path(__file__).parents[3])
# A new process finds libraries in its own folders first, not in the current one or in one of user code.
_START = (
    "import json, sys; sys.path += json.loads(sys.argv[1]); "
    "from lrwd_sweep.lab.bench.measurement import main; main(*sys.argv[1:])"
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement in its own process: of a contender, the floor, scaling or bookkeeping."""

    task: Task
    lattice: Lattice  # source of the lanes
    device: str = "cpu"
    name: str = ""
    lanes: tuple[int, ...] = ()  # counts, one per part of the measurement

    def in_process(self, name: str, *lanes: int) -> dict[str, Any]:
        """Measure `name` in a new process. Raises UsageError or HostError, with its last line on stderr."""
        asked = pickle.dumps(replace(self, name=name, lanes=lanes)).hex()
        path = json.dumps([*(folder for folder in sys.path if isinstance(folder, str)), _HERE])
        command = [sys.executable, "-P", "-c", _START, path, asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = lines[-1].strip() if lines else f"exit code {done.returncode}"
            if done.returncode == UsageError.exit_code:
                raise UsageError(reason)
            raise HostError(f"bench {name}: {reason}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def main(path: str, text: str) -> None:
    """Carry out a pickled measurement, print its result as JSON and exit."""
    asked = pickle.loads(bytes.fromhex(text))
    measure = import_module("lrwd_sweep.lab.bench.contenders").MEASUREMENTS[asked.name]
    sys.path[:] = json.loads(path)  # user code is found as in the parent process
    try:
        print(json.dumps(measure(asked)))  # noqa: T201 - for the parent process
    except LrwdError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


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

    def times(self, factor: float) -> Spread:
        """Convert to another unit."""
        return Spread(factor * self.median, factor * self.low, factor * self.high)

    def text(self, form: str, unit: str = "") -> str:
        """Write the median, and the range if there is one.

        >>> Spread.of([6.0, 8.0, 7.0]).text(".1f", "×"), Spread.of([7.0]).text(".1f", "×")
        ('7.0× (6.0 – 8.0)', '7.0×')
        """
        bounds = f" ({self.low:{form}} – {self.high:{form}})" if self.low < self.high else ""
        return f"{self.median:{form}}{unit}{bounds}"


def machine(gpu: str | None = None) -> dict[str, Any]:
    """Describe this machine and its software for JSON, with the date; `gpu` is the name of the GPU in use."""
    return {
        "gpu": gpu,
        "cpu": _cpu(),
        "cores": cores(),
        "load": load(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "optuna": version("optuna"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def load() -> float | None:
    """Return the mean number of running processes in the last minute; None if the system does not count."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu() -> str:
    """Return the processor's name, if the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
