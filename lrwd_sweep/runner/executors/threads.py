"""Packs in threads of this process: torch's operators and compiled loops release the interpreter lock."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.train_pack import OutOfMemory, train_pack
from lrwd_sweep.runner.executors import PATIENCE, POLL
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.job import EpochDone, Event, Job, PackDone, PackLost


class Threads:
    """An executor whose slots are threads; all train on the device that holds the splits."""

    def __init__(self, slots: int, splits: Splits) -> None:
        self._slots, self._splits = slots, splits
        self._pool = ThreadPoolExecutor(slots, "lanes")
        self._stop = threading.Event()
        self._running: dict[Future[list[Trial]], Job] = {}
        self._events: queue.SimpleQueue[EpochDone | Future[list[Trial]]] = queue.SimpleQueue()

    @property
    def free(self) -> int:
        """Count the slots without a job."""
        return self._slots - len(self._running)

    def submit(self, job: Job) -> None:
        """Begin a job in a free slot."""

        events = self._events

        def on_epoch(epoch: int, metrics: dict[str, list[float]]) -> None:
            events.put(EpochDone(job.pack, epoch, metrics))

        future = self._pool.submit(train_pack, job, self._splits, on_epoch, self._stop.is_set)
        self._running[future] = job
        future.add_done_callback(events.put)

    def events(self) -> Sequence[Event]:
        """Wait up to POLL seconds for an event. Raises errors of jobs."""
        try:
            event = self._events.get(timeout=POLL)
        except queue.Empty:
            return []
        if isinstance(event, EpochDone):
            return [event]
        pack = self._running.pop(event).pack
        try:
            return [PackDone(pack, event.result())]
        except OutOfMemory as error:
            return [PackLost(pack, str(error), out_of_memory=True)]

    def cancel(self) -> None:
        """Stop all jobs at their next step and discard their events; leave a thread that goes on."""
        self._stop.set()
        if wait(self._running, PATIENCE).not_done:  # it compiles, say, and ends by itself
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = ThreadPoolExecutor(self._slots, "lanes")
        self._running.clear()
        self._events, self._stop = queue.SimpleQueue(), threading.Event()

    def close(self) -> None:
        """Stop all jobs and end the threads."""
        self.cancel()
        self._pool.shutdown()
