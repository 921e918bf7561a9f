"""What is to be measured in a process of its own, so that nothing inherits another's threads or memory."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any, Self

from lrwd_sweep.errors import HostError, UsageError
from lrwd_sweep.runner import interpreter
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.spec.task import Task


@dataclass(frozen=True, slots=True)
class Order:
    """A module of the benchmark, the task, the lattice that lanes are taken from, and how many."""

    module: str  # below lrwd_sweep.lab.bench
    task: Task
    lattice: Lattice
    lanes: tuple[int, ...] = ()
    device: str = "cpu"

    def to_json(self) -> str:
        """For a command line."""
        axes = {"lr": self.lattice.lr, "weight_decay": self.lattice.weight_decay}
        task = {"module": self.module, "training": self.task.to_dict(), "lanes": self.lanes}
        return json.dumps(task | axes | {"device": self.device})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        found = json.loads(text)
        lattice = Lattice(tuple(found["lr"]), tuple(found["weight_decay"]))
        task, lanes = Task.from_dict(found["training"]), tuple(found["lanes"])
        return cls(found["module"], task, lattice, lanes, found["device"])

    def carried_out(self) -> dict[str, Any]:
        """What the measurement gave. Raises UsageError, HostError, with the last line of its complaint."""
        command = interpreter.command("lrwd_sweep.lab.bench.process", self.to_json())
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = lines[-1].strip() if lines else f"exit code {done.returncode}"
            if done.returncode == UsageError.exit_code:
                raise UsageError(reason)
            raise HostError(f"bench {self.module}: {reason}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
