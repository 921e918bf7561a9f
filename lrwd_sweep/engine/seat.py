"""Where packs are trained, one at a time: in this process, until one of its own is ready to."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from lrwd_sweep.engine.here import Here, ShouldStop, halving
from lrwd_sweep.engine.messages import Job
from lrwd_sweep.engine.remote import Lost, Remote
from lrwd_sweep.engine.trainer import OnEpoch, Stopped
from lrwd_sweep.errors import brief
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.progress import Pack

_log = logging.getLogger(__name__)
_SLOWER = "its lanes train in this one, which is slower"

MOVE = 10.0  # times what is done of a pack must be left for it to begin anew where it trains faster


class Seat:
    """Room for one pack at a time, on the device `place`.

    Threads share an interpreter, and lanes of small steps wait for it; a process has its own. A lane becomes
    the same in both.
    """

    def __init__(self, here: Here, place: torch.device) -> None:
        self.here, self.place = here, place
        self.remote: Remote | None = None
        self.data: Path | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether its packs need a process: the device of this one has room for no further pack."""
        return self.place != self.here.splits.train.device

    def hire(self, data: Path) -> None:
        """Have a process come, if the system gives one; `data` is the file that it takes the splits from."""
        self.data = data
        try:
            self.remote = Remote.hire(self.place)
        except OSError as error:
            if not self.is_elsewhere:  # else the seat is left out, with a word
                _log.info("no further process could be started (%s); %s", brief(error), _SLOWER)

    def train(self, pack: Pack, on_epoch: OnEpoch, should_stop: ShouldStop) -> list[Trial]:
        """One trial per cell, in order. Raises Stopped when asked to stop."""
        return halving(self._train, pack, on_epoch, should_stop, self.place, self.here.task.net)

    def leave(self) -> None:
        """Nothing comes any more. A process that has imported somebody's code is no use once that changes."""
        if not self.is_elsewhere:
            self._ready(lambda: False)  # which says so if it has ended
        if self.remote is not None and self.here.task.user_code:
            self._part(self.remote)
        elif self.remote is not None:
            self.remote.rest()
            self.remote = None

    def _train(self, pack: Pack, on_epoch: OnEpoch, should_stop: ShouldStop) -> list[Trial]:
        epochs = _Epochs(self.here.task.epochs, on_epoch)
        remote = self._ready(should_stop)
        if remote is None:
            try:
                return self.here(pack, epochs, lambda: should_stop() or self._should_move(epochs))
            except Stopped:
                if should_stop():
                    raise
            remote = self._ready(should_stop)
        if remote is None:  # it came, and has gone
            return self.here(pack, epochs, should_stop)
        try:
            return remote.train(self._job(pack), epochs, should_stop)
        except Lost:
            self._part(remote)
            raise

    def _job(self, pack: Pack) -> Job:
        here = self.here
        assert self.data is not None, "it came with the process"
        return Job(here.optimizer, here.task, self.place, here.splits.train.dtype, self.data, pack)

    def _should_move(self, epochs: _Epochs) -> bool:
        """Whether a process has come that may as well begin this pack anew, so much of it is left."""
        return self.remote is not None and epochs.left > MOVE and self._ready(lambda: False) is not None

    def _ready(self, should_stop: ShouldStop) -> Remote | None:
        """The process, if it has come; elsewhere it is waited for, and another one comes where it has gone.

        Raises Lost where none does.
        """
        if self.is_elsewhere and self.remote is None and self.data is not None:
            self.hire(self.data)
        remote = self.remote
        if remote is None:
            if self.is_elsewhere:
                raise Lost(f"no process could be started for {self.place}")
            return None
        try:
            if self.is_elsewhere:
                remote.await_ready(should_stop)
            return remote if remote.is_ready() else None
        except Lost as lost:
            self._part(remote)
            if self.is_elsewhere:
                raise
            _log.info("%s; %s", lost, _SLOWER)
            return None

    def _part(self, remote: Remote) -> None:
        self.remote = None
        remote.dismiss()


class _Epochs:
    """Tells of every epoch once, though a pack may begin anew."""

    def __init__(self, whole: int, on_epoch: OnEpoch) -> None:
        self.whole, self.on_epoch = whole, on_epoch
        self.told = 0

    def __call__(self, epoch: int, metrics: dict[str, list[float]]) -> None:
        if epoch > self.told:
            self.told = epoch
            self.on_epoch(epoch, metrics)

    @property
    def left(self) -> float:
        """How many times what is done is left; unknown, and therefore 0, in the first epoch."""
        return self.whole / self.told - 1 if self.told else 0.0
