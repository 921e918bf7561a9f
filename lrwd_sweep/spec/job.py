"""The unit of work: a pack of lanes, the job that trains it, and the events that a job reports."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lrwd_sweep.errors import UnknownName, UsageError, arg
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.task import Task

CHECKPOINT_SECONDS = 60.0  # of training between two checkpoints of a pack, by default
EXECUTORS = ("auto", "threads", "processes", "ray")


def short_digest(text: str) -> str:
    """Return 12 hexadecimal digits that stand for a text in the name of a file."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def delete_files(*paths: Path) -> None:
    """Delete files, and folders with what is in them; keep those that cannot be."""
    for path in paths:
        with suppress(OSError):
            path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)


@dataclass(frozen=True, slots=True)
class Pack:
    """The lanes that train together: cells of one seed, on the same batches."""

    cells: tuple[Cell, ...]
    seed: int

    def halves(self) -> list[Pack]:
        """Split the pack in two; a pack of one lane stays whole."""
        half = len(self.cells) // 2
        return [Pack(cells, self.seed) for cells in (self.cells[:half], self.cells[half:]) if cells]


@dataclass(frozen=True, slots=True)
class ExecutorChoice:
    """The executor that a user asks for; no result depends on it. Raises UsageError."""

    name: str = "auto"
    ray_address: str | None = None  # None: $RAY_ADDRESS, else a Ray on this machine for this command
    spool: str | None = None  # a folder that all nodes of a cluster share

    def __post_init__(self) -> None:
        if self.name not in EXECUTORS:
            raise UnknownName("executor", self.name, EXECUTORS)
        for option in ("ray_address", "spool"):
            if (value := getattr(self, option)) is not None and not self.is_ray:
                raise UsageError(f"{arg(option, value)} has no effect without {arg('executor', 'ray')}")

    @property
    def is_ray(self) -> bool:
        """True if packs train on the nodes of a Ray cluster."""
        return self.name == "ray"

    def place(self, device: str) -> str:
        """Name the place of training: a device, or a cluster."""
        return "a Ray cluster" if self.is_ray else device


AUTO = ExecutorChoice()


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """The folder in which the packs of a study leave their state, and how often they do."""

    folder: str
    name: str  # of the study
    study: str  # its files begin so: digests of its name and of all on which its results depend
    every: float  # seconds of training
    shared: bool = False  # by several machines, each of which continues only its own


@dataclass(frozen=True, slots=True)
class Job:
    """A pack to train, as a picklable value that an executor takes to a thread, a process or a machine."""

    optimizer: Optimizer
    task: Task
    pack: Pack
    device: str = "cpu"  # set by the executor, as is `data`
    data: str = ""  # the file of the splits; empty if the executor holds them in memory
    checkpoints: CheckpointPlace | None = None  # None: it keeps no checkpoint


class Stopped(Exception):
    """The caller asked to stop between two steps. This pack is lost, finished ones are not."""


@dataclass(frozen=True, slots=True)
class EpochDone:
    """A pack finished an epoch."""

    pack: Pack
    epoch: int  # counted from 1
    metrics: Mapping[str, Sequence[float]]  # by name and lane, NaN if it diverged; val_* only where evaluated


@dataclass(frozen=True, slots=True)
class PackDone:
    """A pack finished training: a trial per cell, in order."""

    pack: Pack
    trials: Sequence[Trial]


@dataclass(frozen=True, slots=True)
class PackLost:
    """A pack ended without results and has to train again."""

    pack: Pack
    reason: str
    out_of_memory: bool = False  # else the process that trained it ended
    whole: bool = False  # its machine may have failed: it trains again as it is, before it is halved
    parts: tuple[Pack, ...] = ()  # that train in its place


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The nodes and packs of a cluster changed."""

    nodes: int  # that train
    packs: int  # in flight
    repeated: int  # packs that were lost so far

    def __str__(self) -> str:
        nodes, packs = (
            f"{n} {what}{'s' * (n != 1)}" for n, what in ((self.nodes, "node"), (self.packs, "pack"))
        )
        return f"{nodes}, {packs}" + (f", {self.repeated} again" if self.repeated else "")


Event = EpochDone | PackDone | PackLost | ClusterState


class Watcher(Protocol):
    """An observer of training; called in the thread that runs the sweep."""

    def begin(self, packs: Sequence[Pack]) -> None:
        """Replace the packs that are unfinished by these."""

    def happened(self, event: EpochDone | PackDone | ClusterState) -> None:
        """Note that a pack finished an epoch, or is finished and stored, or where packs train."""


class Unwatched:
    """A watcher that does nothing."""

    def begin(self, packs: Sequence[Pack]) -> None:
        """Ignore the packs."""

    def happened(self, event: EpochDone | PackDone | ClusterState) -> None:
        """Ignore the event."""
