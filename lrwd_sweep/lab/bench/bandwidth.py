"""How fast the update moves numbers, beside a plain copy: on a GPU nothing else limits it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lrwd_sweep.errors import DeviceError
from lrwd_sweep.optim import DeviceUpdate, Segment, Update, make_update
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task

OPTIMIZERS = ("sgdw", "adamw", "amsgradw", "adagradw", "rmspropw", "sgdp", "adamp")
LANES, COLUMNS = 256, 1 << 18  # 256 MiB for each of θ, g and the moments: no cache holds it
ROW = 64  # weights of a unit, over which SGDP and AdamP take sums: as many as a digit has pixels
CALLS = 10  # timed together


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Of one optimizer's update on one device."""

    optimizer: str
    fused: bool  # by torch.compile; else by torch's operators, one pass each
    rate: float  # bytes per second, as if every number were read and written once
    copy: float  # bytes per second of a copy, read and written

    @property
    def share(self) -> float:
        """Of the copy's rate."""
        return self.rate / self.copy

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "optimizer": self.optimizer,
            "fused": self.fused,
            "bytes_per_second": self.rate,
            "copy_bytes_per_second": self.copy,
            "share": self.share,
        }


@dataclass(frozen=True, slots=True)
class Bandwidths:
    """Of every family."""

    device: str
    found: tuple[Bandwidth, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"bandwidth": {"device": self.device, "optimizers": [one.to_dict() for one in self.found]}}


def measure(repeats: int) -> Bandwidths:
    """On the first CUDA device. Raises DeviceError where there is none."""
    if not torch.cuda.is_available():
        raise DeviceError("--bandwidth is measured on a CUDA device, and torch finds none here; leave it out")
    device = torch.device("cuda", 0)
    with torch.cuda.device(device):
        found = measured(device, LANES, COLUMNS, repeats)
    return Bandwidths(torch.cuda.get_device_name(device), tuple(found))


@torch.inference_mode()
def measured(device: torch.device, lanes: int, columns: int, repeats: int) -> list[Bandwidth]:
    """The same for an arena of any size, on any device."""
    theta, g = (torch.randn(lanes, columns, device=device) for _ in range(2))
    copy = 2 * theta.nbytes / _seconds(lambda: g.copy_(theta), device, repeats)
    return [_of(name, theta, g, copy, repeats) for name in OPTIMIZERS]


def moved(update: Update, theta: Tensor) -> int:
    """Bytes that an update cannot help moving: it reads θ, g and the moments, and writes all but g.

    SGDP and AdamP read and write more, since they need sums first; that shows in their rate.
    """
    return theta.nbytes * (2 * (1 + len(update.family.moments())) + 1)


def _of(name: str, theta: Tensor, g: Tensor, copy: float, repeats: int) -> Bandwidth:
    task, optimizer = Task(epochs=1), Optimizer.parse(name)
    lanes, columns = theta.shape
    update = make_update(
        optimizer,
        task,
        theta,
        [Segment("θ", 0, columns, (columns // ROW, ROW))],
        alpha=theta.new_full((lanes, 1), 1e-6),  # nothing gets far
        lam=theta.new_full((lanes, 1), 1e-6),
    )
    chosen = DeviceUpdate(update, task.timetable, theta)
    t = torch.zeros(1, dtype=torch.int64, device=theta.device)
    died_at = torch.full((lanes,), -1, device=theta.device)
    seconds = _seconds(lambda: chosen.apply(theta, g, t, died_at), theta.device, repeats)
    return Bandwidth(name, theta.is_cuda, moved(update, theta) / seconds, copy)


def _seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Of one call: the median of several rounds, the first of which is not counted."""
    found = []
    for _ in range(repeats + 1):
        _wait(device)
        began = time.perf_counter()
        for _ in range(CALLS):
            work()
        _wait(device)
        found.append((time.perf_counter() - began) / CALLS)
    return median(found[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
