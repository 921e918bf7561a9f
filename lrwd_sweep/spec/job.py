"""Jobs and their events; shards and packs of lanes, data files, and the choice of an executor."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from lrwd_sweep.errors import UnknownName, UsageError, arg
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.catalog import DATA_SETS
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task

CHECKPOINT_SECONDS = 60.0  # of training between two checkpoints of a pack, by default
EXECUTORS = ("auto", "threads", "processes", "ray")
MOST_SHARDS = 10_000
_FEWEST = 16  # lanes besides the first of each store, from which the number of shards can be told

Given = str | tuple[int, int]  # "3/8" or (3, 8)


def short_digest(text: str) -> str:
    """Return 12 hexadecimal digits that stand for a text in the name of a file."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def delete_files(*paths: Path) -> None:
    """Delete files, and folders with what is in them; keep those that cannot be."""
    for path in paths:
        with suppress(OSError):
            path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)


@dataclass(frozen=True, slots=True)
class Shard:
    """The K-th of N parts of the lanes, K from 1.

    A lane's part follows from (α, λ, seed) only: it stays as it is in a larger lattice or with more seeds.
    """

    part: int = 1
    parts: int = 1

    @classmethod
    def of(cls, given: Given) -> Self:
        """Read "3/8" or (3, 8). Raises UsageError.

        >>> Shard.of("3/8") == Shard.of((3, 8)), str(Shard.of("3/8"))
        (True, 'shard 3 of 8')
        """
        if not isinstance(given, str):
            given = "/".join(map(str, given)) if isinstance(given, tuple | list) else str(given)
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", given.strip())
        part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= part <= parts <= MOST_SHARDS:
            raise UsageError(
                f"{arg('shard', given)} is not the K-th of N parts, K from 1 to N and N at most "
                f"{MOST_SHARDS}; write for example {arg('shard', '1/4')}"
            )
        return cls(part, parts)

    def __str__(self) -> str:
        return f"shard {self.part} of {self.parts}"

    def holds(self, cell: Cell, seed: int) -> bool:
        """Return True if a lane belongs to this shard."""
        return self.parts == 1 or _number_of(cell, seed) % self.parts == self.part - 1

    def among(self, lanes: Mapping[int, Sequence[Cell]]) -> dict[int, list[Cell]]:
        """Return the cells of each seed whose lanes belong to this shard, without seeds that have none."""
        mine = {seed: [cell for cell in cells if self.holds(cell, seed)] for seed, cells in lanes.items()}
        return {seed: cells for seed, cells in mine.items() if cells}

    def count(self, lattice: Lattice, seeds: Sequence[int]) -> int:
        """Count the lanes of a lattice that belong to this shard."""
        if self.parts == 1:
            return len(lattice) * len(seeds)
        return sum(self.holds(cell, seed) for cell in lattice.cells() for seed in seeds)


WHOLE = Shard()


def refuse_shard(shard: Shard | None) -> None:
    """Raise UsageError for a shard of a search."""
    if shard is not None:
        raise UsageError(
            f"{arg('shard', f'{shard.part}/{shard.parts}')} divides a lattice, not a search: TPE chooses its "
            f"next points from all results so far; leave {arg('shard')} out, or train a grid"
        )


def refuse_refined_shard(shard: Shard | None, refines: Iterable[object]) -> None:
    """Raise UsageError for a shard of a lattice that is refined, whose `refine` is not None."""
    if shard is not None and any(refine is not None for refine in refines):
        raise UsageError(
            f"{arg('refine', True)} decides from all results so far, and a shard knows only its own; leave "
            f"{arg('shard')} out, or train the whole lattice"
        )


def find_parts(stores: Iterable[Iterable[tuple[Cell, int]]]) -> int:
    """Return N if each store holds the lanes of one of N shards, as far as their lanes tell; else 1.

    The numbers of a shard's lanes are equal modulo N, so N divides all their differences.
    """
    found, compared = 0, 0
    for lanes in stores:
        first, *others = [_number_of(cell, seed) for cell, seed in lanes] or [0]
        found = math.gcd(found, *(number - first for number in others))
        compared += len(others)
    return found if compared >= _FEWEST and found <= MOST_SHARDS else 1


def _number_of(cell: Cell, seed: int) -> int:
    """Return a number of 64 bits that is the same for a lane on every machine, and looks random."""
    text = f"{cell.lr:.12g} {cell.weight_decay:.12g} {seed}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


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
class DataFiles:
    """The folder of data sets; `download` fetches missing files, `quiet` shows no progress of it."""

    folder: str | None = None
    download: bool = False
    quiet: bool = False

    @property
    def root(self) -> Path:
        """Return the folder given, else $LRWD_DATA, else lrwd-sweep in the user's cache."""
        if path := self.folder or os.environ.get("LRWD_DATA"):
            return Path(os.path.expanduser(path))
        return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "lrwd-sweep")

    def check(self, specs: Iterable[StudySpec]) -> None:
        """Raise UsageError for an option that has no effect on any of the data sets."""
        if self.folder == "":
            raise UsageError(
                f"{arg('data_dir', '')} is not a folder; name one, as in {arg('data_dir', '~/data')}"
            )
        names = list(dict.fromkeys(spec.task.data for spec in specs if spec.task))
        published = {name for name in names if name in DATA_SETS and name != "digits"}
        if not published and (self.download or self.folder is not None):
            option = arg("download", True) if self.download else arg("data_dir")
            raise UsageError(
                f"{option} has no effect on {', '.join(names)}, which needs no such files: leave it out"
            )
        if self.download and published == {"imagenet32"}:
            raise UsageError(
                f"{arg('download', True)}: imagenet32 is given only to holders of an account at "
                "image-net.org; leave it out, and the same command says where to put the files"
            )


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
