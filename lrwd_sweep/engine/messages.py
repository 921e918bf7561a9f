"""What a process that trains packs and the one that gave them to it say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.progress import Pack
from lrwd_sweep.spec.task import Task

IDLE = 30.0  # seconds without a job after which a process ends


@dataclass(frozen=True, slots=True)
class Job:
    """Train this pack; `Stop` sent meanwhile ends it."""

    optimizer: Optimizer
    task: Task
    device: torch.device
    dtype: torch.dtype
    data: Path  # a file for `data.shelf`
    pack: Pack


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave the pack at its next step; nothing where there is none."""


@dataclass(frozen=True, slots=True)
class Ready:
    """All is imported; the first word of a new process."""


@dataclass(frozen=True, slots=True)
class Passed:
    """The pack passed an epoch."""

    epoch: int
    metrics: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Trained:
    """The pack is finished."""

    trials: list[Trial]


@dataclass(frozen=True, slots=True)
class Left:
    """The pack was left because `Stop` came."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Training raised something."""

    error: Exception  # UsageError where the person can mend it, else RuntimeError with the traceback
