"""Training one pack in this process, halved where the device has no room for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from lrwd_sweep.data import Splits
from lrwd_sweep.engine import device as devices
from lrwd_sweep.engine.pack import OnEpoch, PackTrainer
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.progress import Pack
from lrwd_sweep.spec.task import Task

ShouldStop = Callable[[], bool]
TrainPack = Callable[[Pack, OnEpoch, ShouldStop], list[Trial]]


@dataclass(frozen=True, slots=True)
class Here:
    """What trains packs on the device that holds `splits`, in the thread that calls."""

    optimizer: Optimizer
    task: Task
    splits: Splits

    def __call__(self, pack: Pack, on_epoch: OnEpoch, should_stop: ShouldStop) -> list[Trial]:
        """One trial per cell, in order. Raises Stopped when asked to stop."""
        devices.prepare_thread(self.splits.train.device)
        trainer = PackTrainer(self.optimizer, self.task, pack.cells, pack.seed, self.splits)
        return trainer.run(on_epoch, should_stop)


def halving(
    train: TrainPack, pack: Pack, on_epoch: OnEpoch, should_stop: ShouldStop, place: torch.device, net: str
) -> list[Trial]:
    """`train` the pack; where there is no room for it its halves, down to a lane that fails."""
    try:
        return train(pack, on_epoch, should_stop)
    except (MemoryError, RuntimeError) as error:
        if not devices.is_out_of_memory(error):
            raise
        detail = f"{place} has no room for one lane of {net}"
        if isinstance(error, MemoryError) and str(error):
            detail = str(error)
    if len(pack.cells) == 1:
        return [Trial(pack.cells[0], pack.seed, Status.FAILED, detail=detail)]
    half = len(pack.cells) // 2
    return [
        trial
        for cells in (pack.cells[:half], pack.cells[half:])
        for trial in halving(train, replace(pack, cells=cells), _unseen, should_stop, place, net)
    ]


def _unseen(epoch: int, metrics: dict[str, list[float]]) -> None:
    """Epochs of half a pack are shown to nobody."""
