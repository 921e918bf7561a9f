"""Processes that train packs for this one, seen from here: started, kept for the next study, buried."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import Pipe
from typing import Self

import torch

from lrwd_sweep.engine.here import ShouldStop
from lrwd_sweep.engine.messages import IDLE, Failed, Job, Left, Passed, Ready, Stop, Trained
from lrwd_sweep.engine.pack import OnEpoch, Stopped
from lrwd_sweep.errors import brief
from lrwd_sweep.runner import interpreter
from lrwd_sweep.science.trial import Trial

_POLL = 0.1  # seconds; how soon a wish to stop is passed on
_SPARE = 5.0  # seconds before its end in which an idle process is given nothing any more
_PATIENCE = 5.0  # seconds that a process has to end by itself

_idle: list[Remote] = []
_lock = threading.Lock()


class Lost(MemoryError):
    """The process ended in the middle of a pack, most likely killed for want of memory."""


class Remote:
    """One process. Not to be shared by threads."""

    @classmethod
    def hire(cls, place: torch.device) -> Self | Remote:
        """One for that device that has nothing to do, or a new one: on a GPU a process keeps what it had.

        Raises OSError where the system gives none.
        """
        with _lock:
            for remote in [one for one in reversed(_idle) if one.place == place]:
                _idle.remove(remote)
                if remote.is_usable():
                    return remote
                remote.dismiss()
        return cls(place)

    def __init__(self, place: torch.device) -> None:
        if os.name != "posix" or not sys.executable:
            raise OSError("a process of its own needs a POSIX system and a Python to start it with")
        self.place, self.begun = place, _surroundings()
        self.connection, theirs = Pipe()
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `dismiss`
        try:
            with theirs:
                self.process = subprocess.Popen(
                    interpreter.command("lrwd_sweep.engine.worker", str(theirs.fileno())),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # what a network prints, the lanes that train here print too
                    stderr=self.said,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for this process, which knows what to do
                )
        except OSError:
            self.connection.close()
            self.said.close()
            raise
        self.known_ready = False
        self.since = time.monotonic()

    def is_ready(self) -> bool:
        """Whether it has come up."""
        if not self.known_ready and self.connection.poll():
            self.known_ready = isinstance(self._heard(), Ready)
        return self.known_ready

    def await_ready(self, should_stop: ShouldStop) -> None:
        """Wait until it has come up. Raises Lost if it does not, Stopped when asked to stop."""
        while not self.is_ready():
            if should_stop():
                raise Stopped
            self.connection.poll(_POLL)

    def is_usable(self) -> bool:
        """Whether it lives, will for a while though it has nothing to do, and finds what is found here."""
        lasts = self.process.poll() is None and time.monotonic() - self.since < IDLE - _SPARE
        return lasts and self.begun == _surroundings()

    def train(self, job: Job, on_epoch: OnEpoch, should_stop: ShouldStop) -> list[Trial]:
        """Have it train a pack. Raises what training raises there, Lost, and Stopped when asked to stop."""
        self._say(job)
        asked = False
        while True:
            if not asked and should_stop():  # whether or not epochs come faster than it is polled
                self._say(Stop())
                asked = True
            if not self.connection.poll(_POLL):
                continue
            match self._heard():
                case Passed(epoch, metrics):
                    on_epoch(epoch, metrics)
                case Trained(trials):
                    return trials
                case Left():
                    raise Stopped
                case Failed(error):
                    raise error

    def rest(self) -> None:
        """Nothing to do for now."""
        self.since = time.monotonic()
        with _lock:
            _idle.append(self)

    def dismiss(self) -> None:
        """End it."""
        self.connection.close()  # which it sees at its next step
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()

    def _say(self, message: Job | Stop) -> None:
        try:
            self.connection.send(message)
        except OSError:
            raise self._lost() from None

    def _heard(self) -> object:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            raise self._lost() from None

    def _lost(self) -> Lost:
        try:
            code = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return Lost("a process that trained lanes does not answer")
        end = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self.said.seek(0)
        last = self.said.read().decode(errors="replace").strip().rpartition("\n")[2]
        when = "that trained lanes ended" if self.known_ready else "for lanes ended at its start"
        return Lost(f"a process {when} ({end}{': ' * bool(last)}{brief(last)})")


def _surroundings() -> tuple[str, list[str]]:
    """Where user code is looked for; in a folder that has been deleted nothing is found."""
    try:
        return os.getcwd(), list(sys.path)
    except OSError:
        return "", list(sys.path)


@atexit.register
def dismiss_idle() -> None:
    """End the processes that have nothing to do."""
    with _lock:
        for remote in _idle:
            remote.connection.close()
        while _idle:
            _idle.pop().dismiss()
