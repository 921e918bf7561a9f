"""Packs side by side: one per core, or one per GPU, what happens told to one caller.

Every seat is a thread with a pack: torch's operators release the interpreter lock, and arithmetic on one
thread makes a lane's result independent of the number of cores. What remains waits for one interpreter; so
where there is work for long, every seat but the first gets a process.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from lrwd_sweep.engine.device import free_bytes
from lrwd_sweep.engine.here import Here
from lrwd_sweep.engine.seat import Seat
from lrwd_sweep.engine.trainer import Stopped
from lrwd_sweep.nets.user_network import blamed
from lrwd_sweep.spec.progress import EpochDone, Pack, PackDone

Event = EpochDone | PackDone

_log = logging.getLogger(__name__)

_POLL = 0.1  # seconds; how soon a signal is noticed while nothing happens
SURE = 0.3  # seconds of training, after which what is done tells how long the rest will take
PROCESS = 1 << 30  # bytes that must be free for each of them, twice what one takes
LONG = 20.0  # seconds that must be left for more processes to be worth their start


class Crew:
    """A seat for every place, the first of them the device of this process."""

    def __init__(
        self,
        here: Here,
        places: Sequence[torch.device],
        data: Callable[[], Path],  # the splits in a file; raises OSError where it cannot be written
    ) -> None:
        self.here, self.data = here, data
        self.seats = [Seat(here, place) for place in places]
        self.events: queue.SimpleQueue[Event | BaseException] = queue.SimpleQueue()
        self.leave = threading.Event()

    def train(self, packs: Sequence[Pack], should_stop: Callable[[], bool]) -> Iterator[Event]:
        """Train the packs; yields what happens, in the calling thread. Raises Stopped when asked to."""
        del self.seats[len(packs) :]
        todo: queue.SimpleQueue[Pack] = queue.SimpleQueue()
        for pack in packs:
            todo.put(pack)
        self._man_elsewhere()
        outlook = _Outlook(sum(len(pack.cells) for pack in packs) * self.here.task.epochs)
        missing = len(packs)
        with ThreadPoolExecutor(len(self.seats), "lanes") as threads:
            try:
                for seat in self.seats:
                    threads.submit(self._work, seat, todo)
                while missing:
                    if should_stop():
                        raise Stopped
                    try:
                        event = self.events.get(timeout=_POLL)
                    except queue.Empty:
                        continue
                    if isinstance(event, BaseException):
                        raise event
                    if isinstance(event, EpochDone) and outlook.turns_out_long(event):
                        self._hire([seat for seat in self.seats[1:] if not seat.is_elsewhere])
                    missing -= isinstance(event, PackDone)
                    yield event
            finally:
                self.leave.set()
                threads.shutdown(wait=True)
                for seat in self.seats:
                    seat.leave()

    def _work(self, seat: Seat, todo: queue.SimpleQueue[Pack]) -> None:
        try:
            with suppress(queue.Empty):
                while not self.leave.is_set():
                    pack = todo.get_nowait()
                    trials = seat.train(pack, partial(self._tell, pack), self.leave.is_set)
                    self.events.put(PackDone(pack, trials))
        except BaseException as error:
            self.events.put(blamed(self.here.task.net, error) or error)

    def _tell(self, pack: Pack, epoch: int, metrics: dict[str, list[float]]) -> None:
        self.events.put(EpochDone(pack, epoch, metrics))

    def _man_elsewhere(self) -> None:
        """Have a process come for every seat that needs one, or do without that seat."""
        elsewhere = [seat for seat in self.seats if seat.is_elsewhere]
        if elsewhere:
            self._hire(elsewhere)
        for seat in elsewhere:
            if seat.remote is None:
                self.seats.remove(seat)
                _log.info("%s is not used: no process could be started for it", seat.place)

    def _hire(self, seats: Sequence[Seat]) -> None:
        """Have processes come for the seats, as far as there is room."""
        room = free_bytes(torch.device("cpu")) // PROCESS
        with suppress(OSError):
            data = self.data()
            for seat in seats[:room]:
                seat.hire(data)


class _Outlook:
    """How long the rest will take, told from what is done."""

    def __init__(self, work: int) -> None:  # lanes × epochs
        self.work, self.done = work, 0
        self.since = time.monotonic()
        self.is_long = False

    def turns_out_long(self, event: EpochDone) -> bool:
        """Whether it is now that the work turns out to be long."""
        self.done += len(event.pack.cells)
        elapsed = time.monotonic() - self.since
        if self.is_long or elapsed < SURE or elapsed * (self.work - self.done) < LONG * self.done:
            return False
        self.is_long = True
        return True
