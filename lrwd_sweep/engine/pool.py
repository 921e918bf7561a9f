"""Training packs side by side: one thread per core, each on its own pack, results to one caller.

torch's operators release the interpreter lock, so threads keep every core busy without a barrier in every
operator; and arithmetic on one thread makes a lane's result independent of the number of cores.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from lrwd_sweep.data import Files, Splits, load
from lrwd_sweep.engine import device as devices
from lrwd_sweep.engine.choice import chosen
from lrwd_sweep.engine.packing import lanes_that_fit, plan
from lrwd_sweep.engine.trainer import OnEpoch, PackTrainer, Stopped
from lrwd_sweep.lattice import Cell
from lrwd_sweep.nets.own_network import blamed
from lrwd_sweep.optimizer import Optimizer
from lrwd_sweep.progress import EpochDone, Pack, PackDone
from lrwd_sweep.spec import Training
from lrwd_sweep.trial import Status, Trial

_POLL = 0.1  # seconds; how soon a signal is noticed while nothing happens


class Pool:
    """A device with its data set, ready to train packs.

    Raises UnknownName, DeviceError or DataError, and UsageError for a network that does not take the data.
    """

    def __init__(
        self,
        training: Training,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
        files: Files | None = None,  # None: where data sets usually are
    ) -> None:
        self.training = training
        self.device = devices.choose(device)
        self.workers = devices.prepare(self.device)
        self.lanes_at_once()  # a network that cannot be built, or has no room, is refused at once
        self.splits: Splits = load(training.data, training.data_set, files).to(self.device, dtype)
        self.training = chosen(training, self.device)

    def lanes_at_once(self, max_lanes: int | None = None) -> int:
        """Lanes of all the packs that train at a time. Raises DeviceError when not one fits."""
        return self.workers * self._lanes_that_fit(max_lanes)

    def plan(self, todo: dict[int, list[Cell]], max_lanes: int | None = None) -> list[Pack]:
        """Packs for the cells to do of every seed. Raises DeviceError when not one lane fits."""
        share = math.ceil(sum(map(len, todo.values())) / self.workers)
        return plan(todo, min(share, self._lanes_that_fit(max_lanes)), self.workers)

    def _lanes_that_fit(self, max_lanes: int | None) -> int:
        return lanes_that_fit(self.training, device=self.device, workers=self.workers, max_lanes=max_lanes)

    def train(
        self,
        optimizer: Optimizer,
        packs: Sequence[Pack],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[EpochDone | PackDone]:
        """Train the packs; yields what happens, in the calling thread. Raises Stopped when asked to."""
        events: queue.Queue[EpochDone | PackDone | BaseException] = queue.Queue()
        leave = threading.Event()

        def work(pack: Pack) -> None:
            try:
                devices.prepare_thread(self.device)
                trials = self._train(
                    optimizer, pack, lambda epoch, metrics: events.put(EpochDone(pack, epoch, metrics)), leave
                )
                events.put(PackDone(pack, trials))
            except BaseException as error:
                events.put(blamed(self.training.net, error) or error)

        with ThreadPoolExecutor(self.workers, "lanes") as threads:
            try:
                for pack in packs:
                    threads.submit(work, pack)
                missing = len(packs)
                while missing:
                    if should_stop():
                        raise Stopped
                    try:
                        event = events.get(timeout=_POLL)
                    except queue.Empty:
                        continue
                    if isinstance(event, BaseException):
                        raise event
                    missing -= isinstance(event, PackDone)
                    yield event
            finally:
                leave.set()
                threads.shutdown(wait=True, cancel_futures=True)

    def _train(
        self,
        optimizer: Optimizer,
        pack: Pack,
        on_epoch: OnEpoch,
        leave: threading.Event,
    ) -> list[Trial]:
        """One pack; halved when the device has no room for it, down to a lane that fails."""
        try:
            trainer = PackTrainer(optimizer, self.training, pack.cells, pack.seed, self.splits)
            return trainer.run(on_epoch, leave.is_set)
        except (MemoryError, RuntimeError) as error:
            if not devices.is_out_of_memory(error):
                raise
            detail = f"{self.device} has no room for one lane of {self.training.net}"
        if len(pack.cells) == 1:
            return [Trial(pack.cells[0], pack.seed, Status.FAILED, detail=detail)]
        half = len(pack.cells) // 2
        return [
            trial
            for cells in (pack.cells[:half], pack.cells[half:])
            for trial in self._train(optimizer, replace(pack, cells=cells), _unseen, leave)
        ]


def _unseen(epoch: int, metrics: dict[str, list[float]]) -> None:
    """Epochs of half a pack are shown to nobody."""
