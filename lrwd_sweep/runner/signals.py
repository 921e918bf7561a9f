"""Ctrl-C, SIGTERM, SIGHUP: one line and exit code 130, 143 or 129 in every phase; no work is lost.

A signal has one of three effects:

    during imports, at the very end, or for the second time   the process ends at once
    while lanes train (`stop_on_signals`)                     training stops between two steps
    at any other time                                         `Ended` is raised

A call that does not return keeps these effects from the main thread: another thread then ends the process,
GRACE seconds after the first signal and SOON after the second.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_NUMBERS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_IMPORT = "<frozen importlib._bootstrap>"
_DUMB = ("dumb", "unknown")
GRACE, SOON = 4.5, 0.5  # seconds
_SAME = 0.3  # seconds within which a signal that comes twice, as from timeout(1), is one
_SHOW_CURSOR = "\x1b[?25h\r\x1b[J"  # which the live view hides; clear its last line


class Interrupted(Exception):
    """An end of training by a signal; finished packs are stored, the others have a checkpoint."""

    def __init__(self, number: int) -> None:
        self.signal = number
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; all work is kept, the same command continues")


class Ended(KeyboardInterrupt):
    """An end of the command by a signal while no lane trains."""

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(told(number))


def told(number: int) -> str:
    """Name the effect of a signal in a few words."""
    words = {signal.SIGINT: "interrupted", signal.SIGHUP: "the terminal was closed"}
    return words.get(signal.Signals(number), "terminated")


class Stop:
    """A flag that training has to stop, with the signal that set it."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        return bool(self.signal)


class _Ending:
    """A signal handler for a process that runs one command."""

    def __init__(self) -> None:
        self.asked, self.at = 0, 0.0  # the first signal that came, and when
        self.raises = False
        self.quiet = False  # nothing is left to report

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise Ended if an exception is safe here, else end the process."""
        if number == self.asked and time.monotonic() - self.at < _SAME:
            return
        if self.asked or not self.raises or _importing(frame):
            self.leave(number)
        self.note(number)
        raise Ended(number)

    def note(self, number: int) -> None:
        """Note the first signal."""
        self.asked, self.at = number, time.monotonic()

    def leave(self, number: int) -> None:
        """End the process now, without cleaning up, in which any library could fail."""
        with suppress(OSError):
            if os.isatty(2) and os.environ.get("TERM", "").lower() not in _DUMB:
                os.write(2, _SHOW_CURSOR.encode())
            if not self.quiet:
                os.write(2, f"lrwd-sweep: {told(number)}\n".encode())
        os._exit(128 + number)


_ending = _Ending()


def end_on_signals() -> None:
    """Make these signals end this process, even if it was started with them ignored; nohup is obeyed."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # its signals are its own
    threading.Thread(target=_end_late, args=(read,), daemon=True).start()
    for number in _NUMBERS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _ending)
    unraisable = sys.unraisablehook

    def hook(args: Any) -> None:
        """Act on a signal that came while Python drops exceptions, as in a destructor."""
        if isinstance(args.exc_value, Ended):
            _ending.leave(args.exc_value.signal)
        unraisable(args)

    sys.unraisablehook = hook


@contextmanager
def raised() -> Iterator[None]:
    """Make the first signal within raise Ended; one that comes afterwards ends the process silently."""
    try:
        _ending.raises = True
        yield
    finally:
        _ending.raises, _ending.quiet = False, True


def _end_late(read: int) -> None:
    """End the process when a signal has had no effect for long; the pipe tells every signal that comes."""
    number, deadline, begun = 0, None, 0.0
    while True:
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        if deadline is not None and not select.select([read], [], [], left)[0]:
            _ending.leave(number)
        for each in filter(_NUMBERS.__contains__, os.read(read, 64)):
            now = time.monotonic()
            if deadline is None:
                deadline, begun = now + GRACE, now
            elif each != number or now - begun > _SAME:
                deadline = min(deadline, now + SOON)
            number = each


def asked() -> int:
    """Return the first signal that this process received, or 0; a library may have replaced `Ended`."""
    return _ending.asked


def _importing(frame: FrameType | None) -> bool:
    """Check whether a module is being imported; importers may turn an exception into any other."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn the first signal into a `Stop`; a second one acts as it always does.

    Only the main thread receives signals: in any other thread this does nothing.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    handles = _ending in before.values()

    def note(number: int, _: FrameType | None) -> None:
        stop.signal = number
        if handles:
            _ending.note(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_suspended: list[tuple[Callable[[], None], Callable[[], None]]] = []


@contextmanager
def on_suspension(pause: Callable[[], None], resume: Callable[[], None]) -> Iterator[None]:
    """Call `pause` before Ctrl-Z stops this process, and `resume` when it goes on."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "SIGTSTP") or signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGTSTP, _suspend)
    _suspended.append((pause, resume))
    try:
        yield
    finally:
        _suspended.pop()
        if not _suspended:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)


def _suspend(number: int, _: FrameType | None) -> None:
    """Stop this process as Ctrl-Z does, until SIGCONT."""
    for pause, _resume in reversed(_suspended):
        pause()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # returns when the process goes on
    signal.signal(number, _suspend)
    for _pause, resume in _suspended:
        resume()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the handlers of signals afterwards: a library that is imported or started may set its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
