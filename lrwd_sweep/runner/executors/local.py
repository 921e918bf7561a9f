"""Executors on this machine: packs in threads of this process, or each in a process of its own.

Torch's operators and compiled loops release the interpreter lock, so that they train in threads. Modules
spend much of a step in the interpreter, and every process has its own. Every slot of `Processes` is a pool of
one process, so that a process that is killed takes down no other pack; it is started when the slot gets its
first job, and again when it was lost.
"""

import json
import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType

import lrwd_sweep
from lrwd_sweep.data import Splits
from lrwd_sweep.data.splits import make_folder, save_splits
from lrwd_sweep.engine.device import Device
from lrwd_sweep.engine.train_pack import OutOfMemory, train_job, train_pack
from lrwd_sweep.errors import brief
from lrwd_sweep.runner.executors import PATIENCE, POLL, supervisor
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.job import EpochDone, Event, Job, PackDone, PackLost

_READY, _ENDED, _STOP = "ready", "ended", "stop"  # messages beside epochs
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


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


class Processes:
    """An executor whose slots are processes on this machine, each with a device of its own or a core.

    It outlives a study: the next one finds its processes warm.
    """

    def __init__(self) -> None:
        self._slots: list[_Slot] = []
        self._folders: list[Path] = []  # one, once there are data
        self._splits: Splits | None = None
        self._data = ""
        self._finalizer = weakref.finalize(self, _clear, self._slots, self._folders)

    def prepare(self, devices: Sequence[Device], splits: Splits) -> None:
        """Take these devices, one per slot, and data for the jobs to come.

        Raises OSError if this system cannot share the data or start processes.
        """
        if os.name != "posix" or not sys.executable:
            raise OSError("a process of its own needs a POSIX system and a Python to start it with")
        if self._splits is not splits:
            if not self._folders:
                self._folders.append(make_folder())
            file = self._folders[0] / f"splits-{id(splits)}"
            save_splits(splits, file)
            self._splits, self._data = splits, str(file)
        old = list(self._slots)
        self._slots.clear()
        for name in map(str, devices):
            kept = next((slot for slot in old if slot.device == name), None)
            if kept is not None:
                old.remove(kept)
            self._slots.append(kept or _Slot(name, self._folders[0]))
        _clear(old, [])

    @property
    def free(self) -> int:
        """Count the slots without a job."""
        return sum(slot.job is None for slot in self._slots)

    def submit(self, job: Job) -> None:
        """Begin a job in a free slot. Raises OSError if its process cannot be started."""
        slot = next(slot for slot in self._slots if slot.job is None)
        slot.submit(replace(job, device=slot.device, data=self._data))

    def events(self) -> Sequence[Event]:
        """Wait up to POLL seconds for events. Raises errors of jobs, OSError if a process cannot start."""
        busy = [slot for slot in self._slots if slot.job is not None]
        heard = connection.wait([slot.connection for slot in busy if slot.connection is not None], POLL)
        events = [slot.receive() for slot in busy if slot.connection in heard]
        return [event for event in events if event is not None]

    def cancel(self) -> None:
        """Stop all jobs at their next step and discard their events."""
        busy = [slot for slot in self._slots if slot.job is not None]
        for slot in busy:
            slot.stop()
        wait([slot.future for slot in busy if slot.future is not None], PATIENCE)
        for slot in busy:
            slot.discard()

    def close(self) -> None:
        """End the processes and delete the data."""
        self._finalizer()


class _Slot:
    """A process on a device, with a pipe for epochs one way and the wish to stop the other way."""

    def __init__(self, device: str, folder: Path) -> None:
        self.device, self.said = device, folder / f"said-{id(self)}"
        self.job: Job | None = None
        self.future: Future[list[Trial]] | None = None
        self.pool: ProcessPoolExecutor | None = None
        self.process: multiprocessing.process.BaseProcess | None = None
        self.connection: Connection | None = None
        self.is_ready = False

    def submit(self, job: Job) -> None:
        """Begin a job, in a new process if there is none. Raises OSError if that cannot be started."""
        if self.pool is not None:
            with suppress(BrokenProcessPool):
                self.future, self.job = self.pool.submit(_train, job), job
                return
            self.kill()  # it ended while it had nothing to do
        self._start(job)

    def _start(self, job: Job) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        before = set(multiprocessing.active_children())
        try:
            with theirs, _clean_start():
                self.pool = ProcessPoolExecutor(
                    1,
                    multiprocessing.get_context("spawn"),
                    initializer=_begin,
                    initargs=(theirs, str(self.said), list(sys.path)),
                )
                with _signals_blocked():
                    self.future = self.pool.submit(_train, job)
        except OSError:
            self.kill()
            raise
        self.process = next(iter(set(multiprocessing.active_children()) - before), None)
        self.job = job

    def receive(self) -> Event | None:
        """Return the job's next event. Raises errors of the job, OSError if the process never began."""
        assert self.job is not None
        assert self.connection is not None
        assert self.future is not None
        pack = self.job.pack
        try:
            message = self.connection.recv()
            if message == _READY:
                self.is_ready = True
                return None
            if message != _ENDED:
                return EpochDone(pack, *message)
            self.job = None
            return PackDone(pack, self.future.result())
        except OutOfMemory as error:
            return PackLost(pack, str(error), out_of_memory=True)
        except (EOFError, ConnectionError, BrokenProcessPool):
            how, began = self._end(), self.is_ready
            self.kill()
        if not began:
            raise OSError(f"a process for lanes ended at its start ({how})")
        return PackLost(pack, f"a process that trained lanes ended ({how})")

    def _end(self) -> str:
        """Describe how the process ended: its signal or exit status, and the last line of its stderr."""
        code = None
        if self.process is not None:
            self.process.join(PATIENCE)
            deadline = time.monotonic() + 1  # the pool's thread may have reaped it, and note the code later
            while (code := self.process.exitcode) is None and time.monotonic() < deadline:
                time.sleep(0.01)
        how = "for an unknown reason" if code is None else f"exit status {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name
        said = self.said.read_text(encoding="utf-8", errors="replace") if self.said.exists() else ""
        last = said.strip().rpartition("\n")[2]
        return f"{how}: {brief(last)}" if last else how

    def stop(self) -> None:
        """Ask the job to stop; a process that has not come up yet is killed."""
        if not self.is_ready:
            self.kill()
        elif self.connection is not None:
            with suppress(OSError):
                self.connection.send(_STOP)

    def discard(self) -> None:
        """Forget a job that was asked to stop; kill its process if it goes on."""
        if self.future is not None and self.future.done() and self.connection is not None:
            with suppress(EOFError, OSError):
                while self.connection.poll():
                    self.connection.recv()
            self.job = self.future = None
        else:
            self.kill()

    def kill(self) -> None:
        """End the process at once, without the seconds that an interpreter takes to end."""
        if self.process is not None:
            self.process.kill()
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)
        if self.connection is not None:
            self.connection.close()
        self.job = self.future = self.pool = self.process = self.connection = None
        self.is_ready = False


def _clear(slots: list[_Slot], folders: list[Path]) -> None:
    """End the slots' processes and delete their data."""
    for slot in slots:
        slot.kill()
    slots.clear()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _clean_start() -> Iterator[None]:
    """Start Python processes that find our libraries and do not run the user's script.

    A spawned process imports the parent's `__main__` and searches its path, in which the current directory
    may come first, and in it a file with the name of a library.
    """
    main, path = sys.modules["__main__"], list(sys.path)
    environ = {name: os.environ.get(name) for name in ("PYTHONSAFEPATH", "PYTHONWARNINGS")}
    folders = [*_library_path(), str(Path(lrwd_sweep.__file__).parents[1]), *path]
    os.environ |= {"PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "ignore"}  # the tracker would tell of semaphores
    sys.modules["__main__"], sys.path[:] = ModuleType("__main__"), folders
    try:
        resource_tracker.ensure_running()
        yield
    finally:
        sys.modules["__main__"], sys.path[:] = main, path
        for name, value in environ.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@cache
def _library_path() -> list[str]:
    """Return the path of a new interpreter, without the folder of a script and without the current one."""
    command = [sys.executable, "-P", "-c", "import json, sys; print(json.dumps(sys.path))"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if found.returncode:
        raise OSError(f"{sys.executable} does not start: {brief(found.stderr)}")
    path: list[str] = json.loads(found.stdout)
    return path


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach; the parent receives its signals afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the other process.

_parent: Connection


def _begin(parent: Connection, said: str, path: list[str]) -> None:
    """Set the new process up: it ends with its parent, writes nothing to the terminal, finds user code."""
    global _parent  # noqa: PLW0603
    _parent = parent
    supervisor.prctl(supervisor.PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with_parent, daemon=True).start()  # elsewhere, and if it is dead already
    for name, stream in ((os.devnull, 1), (said, 2)):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    for variable in ("PYTHONSAFEPATH", "PYTHONWARNINGS"):
        os.environ.pop(variable, None)
    sys.path[:] = path
    parent.send(_READY)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was spawned"
    parent.join()
    os._exit(1)


def _train(job: Job) -> list[Trial]:
    """Train a job, as `train_job` does."""
    while _parent.poll():
        _parent.recv()  # a wish to stop an earlier job, which had ended
    try:
        return train_job(job, lambda *epoch: _parent.send(epoch), _parent.poll)
    finally:
        _parent.send(_ENDED)
