"""A signal ends every phase by one line; finished packs are kept, and the same command continues."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import BEFORE, ended
from tests.faults import children

LANES = 8
LONG = ("grid", "--lr", "2^-8:2^-7", "--wd", "2^-8:2^-7", "--seeds", "2", "--epochs", "2", "--max-lanes", "2")
WAITS = """
import os, sys, time

def reached(*_, **__):
    os.write(1, b"reached\\n")
    time.sleep(600)
"""

IMPORTING = """
class Finder:
    def find_spec(self, name, *_):
        if name == {name!r}:
            reached()

sys.meta_path.insert(0, Finder())
"""

IN_A_DESTRUCTOR = """
class Slow:
    def __del__(self):
        reached()

def report(*_, **__):
    Slow()
    time.sleep(600)

store.open_store = report
"""
MADE_AN_ERROR_BY_A_LIBRARY = """
def convert(*_, **__):
    try:
        reached()
    except KeyboardInterrupt:
        raise RuntimeError("a callback failed") from None

store.open_store = convert
"""
IN_A_CALL_THAT_DOES_NOT_RETURN = """
def report(*_, **__):
    import hashlib
    os.write(1, b"reached\\n")
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)

from lrwd_sweep.runner import signals
store.open_store, signals.GRACE = report, 0.1
"""
STORE = "import lrwd_sweep.store as store\n"
LIST = ("study", "list")
CHOOSING = "from lrwd_sweep.runner import execution; execution.chosen = reached"
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
# The code that makes a command wait at a phase, the command, the signal, and the line that it prints.
PHASES = {
    "importing the command line": (IMPORTING.format(name="typer"), LIST, INT, "interrupted"),
    "importing torch": (IMPORTING.format(name="torch"), LONG, INT, "interrupted"),
    "choosing an engine": (CHOOSING, LONG, TERM, "terminated"),
    "reading": (f"{STORE}store.open_store = reached", LIST, TERM, "terminated"),
    "a destructor": (STORE + IN_A_DESTRUCTOR, LIST, INT, "interrupted"),
    "a library's callback": (STORE + MADE_AN_ERROR_BY_A_LIBRARY, LIST, TERM, "terminated"),
    "a call that does not return": (
        *(STORE + IN_A_CALL_THAT_DOES_NOT_RETURN, LIST, HUP),
        "the terminal was closed",
    ),
    "the very end": ("import atexit; atexit.register(reached)", ("convert", "--help"), TERM, ""),
}
SHOWN, HIDDEN = b"\x1b[?25h", b"\x1b[?25l"  # cursor
IGNORING = ("sh", "-c", "trap '' INT TERM; exec \"$@\"", "sh")  # as a shell's job in the background


def waiting(code: str, *command: str, ignoring: bool = False) -> subprocess.Popen[str]:
    """Start a process that runs `code`, then the command; return once it has reached its wait."""
    whole = f"{WAITS}{code}\nfrom lrwd_sweep.cli import main\nmain()"
    started = subprocess.Popen(
        [*IGNORING[: len(IGNORING) * ignoring], sys.executable, "-c", whole, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until_reached(started)
    return started


def wait_until_reached(started: subprocess.Popen[str], word: str = "reached") -> None:
    assert started.stdout is not None
    if f"{word}\n" not in iter(started.stdout.readline, ""):
        pytest.fail(f"it ended before it was there: {ended(started).err}")


def test_a_signal_ends_every_phase_by_one_line() -> None:
    for phase, (code, command, number, word) in PHASES.items():
        started = waiting(code, *command, ignoring=phase.startswith("importing"))
        started.send_signal(number)
        found = ended(started)
        said = [line for line in found.err.splitlines() if not BEFORE.match(line)]
        assert (found.code, said) == (128 + number, [f"lrwd-sweep: {word}"] if word else []), phase


TRAINING = """
from lrwd_sweep.runner.executors import local

def train(job, splits, on_epoch, should_stop):
    os.write(1, b"reached\\n")
    while not should_stop():
        time.sleep(0.01)
    os.write(1, b"stopping\\n")
    time.sleep(600)

local.train_pack = train
"""


def test_a_second_signal_ends_training_at_once() -> None:
    started = waiting(TRAINING, *LONG)
    started.send_signal(signal.SIGINT)
    started.send_signal(signal.SIGINT)  # as timeout(1) does: it counts as one
    wait_until_reached(started, "stopping")
    started.send_signal(signal.SIGTERM)
    found = ended(started)
    assert found.code == 143
    assert found.err.splitlines()[-1] == "lrwd-sweep: terminated"
    assert "Traceback" not in found.err


def stopped(driver: int) -> int:
    """Count the stopped processes among a driver and those that it started."""
    found = [Path(f"/proc/{pid}/stat").read_text() for pid in (driver, *children(driver))]
    return sum(stat.rpartition(")")[2].split()[0] == "T" for stat in found)


def test_ctrl_z_stops_training_and_gives_the_terminal_back_until_fg() -> None:
    ours, theirs = os.openpty()
    words = ("grid", "--run", "sleep 1000 {lr} {weight_decay} {seed}", "-o", "adam", *LONG[1:-4])
    started = subprocess.Popen(
        [sys.executable, "-c", "from lrwd_sweep.cli import main; main()", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
        process_group=0,
    )
    os.close(theirs)

    def read(until: bytes) -> bytes:
        found = b""
        while until not in found:
            assert select.select([ours], [], [], 60)[0], found
            found += os.read(ours, 1 << 16)
        return found

    read(b"first run")
    while len(children(started.pid)) < 2:  # the first run, and what ends it
        time.sleep(0.01)
    for _ in range(2):
        started.send_signal(signal.SIGTSTP)
        read(SHOWN)
        while stopped(started.pid) != 2:  # the driver, and the command that it runs
            time.sleep(0.05)
        started.send_signal(signal.SIGCONT)
        assert "0 of 8 runs" in (read(HIDDEN) + read(b" runs")).decode()
        while stopped(started.pid):
            time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    assert b"stopped by SIGINT" in read(b"continues")
    assert started.wait(60) == 130
    os.close(ours)
