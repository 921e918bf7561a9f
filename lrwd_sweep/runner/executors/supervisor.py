"""Run one command in a session of its own, and end all that it started: when it ends, and with the driver.

Executed as a file: `python -I -S supervisor.py DRIVER GRACE SHORT WORD…`. It uses only the standard library,
and exits as the command did. It ends its command with SIGTERM, and with SIGKILL some seconds later: GRACE
when it receives SIGTERM, SHORT for SIGINT, and when the process DRIVER is gone. It passes SIGTSTP on.
By prctl(2) Linux tells it of the driver's end (PR_SET_PDEATHSIG), and gives it the processes that the command
leaves behind (PR_SET_CHILD_SUBREAPER).
"""

import contextlib
import math
import os
import signal
import sys
import time

PDEATHSIG, _SUBREAPER = 1, 36  # of prctl
_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_PASSED: dict[int, int] = {signal.SIGTSTP: signal.SIGSTOP, signal.SIGCONT: signal.SIGCONT}
_WAITED = {*_ENDING, *_PASSED, signal.SIGCHLD}
_LOOK = 1.0  # seconds between looks at the parent


def main(driver: int, grace: float, short: float, words: list[str]) -> int:
    """Run the command to its end; return what to exit with, negative for a signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    prctl(PDEATHSIG, signal.SIGTERM)
    prctl(_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        _execute(words)
    status: int | None = None
    deadline = math.inf  # after which all are killed
    while True:
        found = signal.sigtimedwait(_WAITED, _LOOK if deadline == math.inf else 0.05)
        number = 0 if found is None else found.si_signo
        if number in _PASSED:
            _signal(child, _PASSED[number])
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                status = ended[1] if ended[0] == child else status
                if deadline < math.inf:
                    _signal(child, signal.SIGTERM)  # to what the ended process left behind
        except ChildProcessError:  # nothing is left
            return 0 if status is None else os.waitstatus_to_exitcode(status)
        left = grace if status is not None or number in _ENDING else math.inf
        if number == signal.SIGINT or os.getppid() != driver:
            left = short
        if time.monotonic() + left < deadline:
            deadline = time.monotonic() + left
            _signal(child, signal.SIGTERM)
            _signal(child, signal.SIGCONT)
        if time.monotonic() > deadline:
            _signal(child, signal.SIGKILL)


def _execute(words: list[str]) -> None:
    """Become the command, in a new session, with signals as a shell leaves them."""
    os.setsid()
    prctl(PDEATHSIG, signal.SIGKILL)  # should this supervisor itself be killed
    for number in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", signal.SIGPIPE)):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        os.write(2, f"lrwd-sweep: cannot run {words[0]!r}: {error.strerror}\n".encode())
    os._exit(127)


def _signal(child: int, number: int) -> None:
    """Send a signal to the command's processes, and to all others that it left behind."""
    with contextlib.suppress(OSError):
        os.killpg(child, number)
    for process in _children():
        with contextlib.suppress(OSError):
            os.kill(process, number)


def _children() -> list[int]:
    """Return the processes whose parent this one is; empty where the system does not tell."""
    me, found = str(os.getpid()).encode(), []
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[1] == me:
                    found.append(int(name))
    return found


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process, where the system has it."""
    with contextlib.suppress(Exception):  # another system
        import ctypes  # noqa: PLC0415 - missing in some Pythons

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    code = main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
    if code < 0:  # end by the same signal
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    sys.exit(code)
