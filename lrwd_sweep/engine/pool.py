"""A device, or all of its kind, with a data set: ready to train packs."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import torch

from lrwd_sweep.data import Splits, load, shelf
from lrwd_sweep.engine import device as devices
from lrwd_sweep.engine.choice import chosen
from lrwd_sweep.engine.crew import Crew
from lrwd_sweep.engine.here import Here
from lrwd_sweep.engine.packing import lanes_that_fit, plan, workers_that_fit
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.progress import EpochDone, Pack, PackDone
from lrwd_sweep.spec.task import Task


class Pool:
    """Where packs train, and the data.

    Raises UnknownName, DeviceError or DataError, and UsageError for a network that does not take the data.
    """

    def __init__(
        self,
        task: Task,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
        files: DataFiles | None = None,  # None: where data sets usually are
    ) -> None:
        self.task = task
        self.places = devices.places(device)
        self.device = next(filter(self._workers, dict.fromkeys(self.places)), self.places[0])
        self.lanes_at_once()  # a network that cannot be built, or has no room, is refused at once
        splits = load(task.data, task.data_set, files, standardize=task.standardize)
        self.splits: Splits = splits.to(self.device, dtype)
        self.task = chosen(task, self.device)
        self.seats = self.places

    def lanes_at_once(self, max_lanes: int | None = None, optimizer: Optimizer | None = None) -> int:
        """Lanes of all the packs that train at a time. Raises DeviceError when not one fits."""
        seats = self.seats_for(optimizer)
        return len(seats) * self._lanes_that_fit(seats, max_lanes, optimizer)

    def seats_for(self, optimizer: Optimizer | None = None) -> tuple[torch.device, ...]:
        """The places that have room for a lane at a time; first, and at least, one where the data are."""
        here = [self.device] * (self._workers(self.device, optimizer) or 1)
        others = [place for place in dict.fromkeys(self.places) if place != self.device]
        return (*here, *(place for place in others for _ in range(self._workers(place, optimizer))))

    def plan(
        self, todo: dict[int, list[Cell]], max_lanes: int | None = None, optimizer: Optimizer | None = None
    ) -> list[Pack]:
        """Packs for the cells to do of every seed. Raises DeviceError when not one lane fits."""
        self.seats = self.seats_for(optimizer)
        share = math.ceil(sum(map(len, todo.values())) / len(self.seats))
        most = self._lanes_that_fit(self.seats, max_lanes, optimizer)
        return plan(todo, min(share, most), len(self.seats))

    def train(
        self,
        optimizer: Optimizer,
        packs: Sequence[Pack],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[EpochDone | PackDone]:
        """Train the packs; yields what happens, in the calling thread. Raises Stopped when asked to."""
        here = Here(optimizer, self.task, self.splits)
        return Crew(here, self.seats, lambda: self._shelf).train(packs, should_stop)

    def _workers(self, place: torch.device, optimizer: Optimizer | None = None) -> int:
        """How many lanes have room there at a time, as many as train there at most."""
        workers = self.places.count(place)
        return workers_that_fit(self.task, device=place, workers=workers, optimizer=optimizer)

    def _lanes_that_fit(
        self, seats: Sequence[torch.device], max_lanes: int | None, optimizer: Optimizer | None
    ) -> int:
        return min(
            lanes_that_fit(
                self.task,
                device=place,
                workers=seats.count(place),
                max_lanes=max_lanes,
                optimizer=optimizer,
            )
            for place in set(seats)
        )

    @cached_property
    def _shelf(self) -> Path:
        """The splits in a file, for other processes, as long as this pool is there."""
        lasting = ExitStack()
        file = lasting.enter_context(shelf.folder()) / "splits"
        weakref.finalize(self, lasting.close)
        shelf.put(self.splits, file)
        return file
