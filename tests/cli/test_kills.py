"""A signal ends every phase by one line; killed or stopped, the same command continues to the same bits."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lrwd_sweep.spec.job import short_digest
from lrwd_sweep.store import open_store
from lrwd_sweep.store.studies import Driver
from tests.cli import conftest
from tests.cli.conftest import PROGRAM, STORE, Run, assert_holds, assert_refused, ended, process, running
from tests.faults import assert_ended, assert_finished, assert_kept, assert_told, children, stored

NAME = "killed"
SWEEP = ("--lr", "2^-8:2^-5", "--wd", "2^-8:2^-7", "--max-lanes", "4", "--study-name", NAME)
LONG = ("grid", *SWEEP, "--seeds", "2", "--epochs", "100000", "--checkpoint-every", "0.05")
NETWORK = "from torch import nn\ndef f(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"


def described() -> set[str]:
    return {file.name for file in Path(f"{STORE}.packs").glob("*.json")}


def begun(*command: str, trained: bool = True) -> subprocess.Popen[str]:
    """Start a command; return once it wrote a checkpoint, or once its store exists."""
    before, started = described(), process(*command)
    while started.poll() is None and not (described() - before if trained else Path(STORE).exists()):
        time.sleep(0.01)
    return started


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(("net", "kills"), [(None, 2), slow(None, 25), slow("./net.py:f", 25)])
def test_killed_sweep_goes_on_and_ends_with_the_same_bits(run: Run, net: str | None, kills: int) -> None:
    """Native lanes train in threads, a user's network in processes."""
    Path("net.py").write_text(NETWORK)
    seeds = "1" if kills < 25 else "2"
    shape = ("--net", net, "--epochs", "30") if net else ("--epochs", "150")
    command = ("grid", *SWEEP, "--seeds", seeds, *shape)
    draw, kept, store, lanes = random.Random(kills), 0, Path(STORE), 8 * int(seeds)
    often = ("--checkpoint-every", "0.05")
    for k in range(kills):
        victim = ("driver", "worker", "both")[k % 3] if net else "driver"
        started = begun(*command, *often, trained=k % 2 == 1)
        time.sleep(draw.uniform(0, 2 if k % 2 == 0 else 0.5))
        descendants = children(started.pid)
        if victim != "driver" and (workers := running("spawn_main", descendants)):
            with suppress(ProcessLookupError):
                os.kill(draw.choice(workers), signal.SIGKILL)
        if victim != "worker":
            started.kill()
        found = ended(started)
        assert_ended(descendants)
        if victim == "worker":
            assert_told(found.code, found.err, 0)
            if k + 1 < kills:
                store.unlink()
                kept = 0
        kept = assert_kept(store, NAME, kept, lanes)
    again = run(*command, *often)
    assert_told(again.code, again.err, 0)
    run(*command, "--storage", "whole.db", "--checkpoint-every", "0", code=0)
    assert_finished(store, NAME, stored(Path("whole.db"), NAME))
    assert len(stored(store, NAME)) == lanes
    left = Path(f"{STORE}.packs", f"{short_digest(NAME)}-{'0' * 12}-{'0' * 12}-000000150.safetensors")
    left.parent.mkdir()
    left.write_bytes(b"of a process that was killed when it had stored its last pack")
    run(*command, *often, code=0)
    assert not left.parent.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, slow(signal.SIGINT), slow(signal.SIGHUP)])
def test_stopped_packs_continue_where_they_were(number: signal.Signals) -> None:
    for said in ("all work is kept, the same command continues", "of the lanes continue from a checkpoint"):
        started = begun(*LONG)
        started.send_signal(number)
        found = ended(started)
        assert (found.code, said in found.err, bool(described())) == (128 + number, True, True), found.err
        assert found.err.splitlines()[-1].endswith("all work is kept, the same command continues")


def test_study_has_one_driver(run: Run) -> None:
    first = begun(*LONG)
    said = run(*LONG, code=3).err.splitlines()[-1]
    assert f"study 'killed' is being trained by process {first.pid} on " in said, said
    shard = run(*LONG, "--shard", "1/2", "--storage", STORE)
    assert shard.err.rstrip().endswith("or give each shard a file of its own by --storage"), shard.err
    assert not stored(Path(STORE), NAME), "the second one trained nothing"
    assert f"in training, process {first.pid} on " in " ".join(run("study list").out.split())
    assert_refused(run(f"study delete {NAME} --yes"), 2)
    first.kill()
    ended(first)
    with open_store(STORE, write=False) as store:
        assert store.driver(NAME) is None, "a dead process trains nothing"
    listed = " ".join(run("study list").out.split())
    assert_holds(listed, "; stopped, last trained 20", f" by process {first.pid} on ")
    run(f"study delete {NAME} --yes", code=0)
    assert not described()
    mine = Driver.here()
    other = replace(mine, host="elsewhere", pid=1)
    assert (mine.is_alive, other.is_alive) == (True, True), "on another host: until silent for a minute"
    assert not replace(other, seen=time.time() - 61).is_alive
    assert not replace(mine, started=mine.started + 1).is_alive, "its number has gone to another process"
    assert not replace(other, host=mine.host, boot="before the crash", seen=0).is_alive


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
IN_STORE = "import lrwd_sweep.store as store\n"
CHOOSING = "from lrwd_sweep.runner import execution; execution.chosen = reached"
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
CLOSED = "the terminal was closed"
GRID = "grid --lr 2^-8:2^-7 --wd 2^-8:2^-7 --seeds 2 --epochs 2 --max-lanes 2"
# The code that makes a command wait at a phase, the command, the signal, and the line that it prints.
PHASES = {
    "importing the command line": (IMPORTING.format(name="typer"), "study list", INT, "interrupted"),
    "importing torch": (IMPORTING.format(name="torch"), GRID, INT, "interrupted"),
    "choosing an engine": (CHOOSING, GRID, TERM, "terminated"),
    "reading": (f"{IN_STORE}store.open_store = reached", "study list", TERM, "terminated"),
    "a destructor": (IN_STORE + IN_A_DESTRUCTOR, "study list", INT, "interrupted"),
    "a library's callback": (IN_STORE + MADE_AN_ERROR_BY_A_LIBRARY, "study list", TERM, "terminated"),
    "a call that does not return": (IN_STORE + IN_A_CALL_THAT_DOES_NOT_RETURN, "study list", HUP, CLOSED),
    "the very end": ("import atexit; atexit.register(reached)", "convert --help", TERM, ""),
}
SHOWN, HIDDEN = b"\x1b[?25h", b"\x1b[?25l"  # cursor
IGNORING = ("sh", "-c", "trap '' INT TERM; exec \"$@\"", "sh")  # as a shell's job in the background


def waiting(code: str, command: str, *, ignoring: bool = False) -> subprocess.Popen[str]:
    """Start a process that runs `code`, then the command; return once it has reached its wait."""
    whole = f"{WAITS}{code}\nfrom lrwd_sweep.cli import main\nmain()"
    words = [*IGNORING * ignoring, sys.executable, "-c", whole, *command.split()]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until_reached(started)
    return started


def wait_until_reached(started: subprocess.Popen[str], word: str = "reached") -> None:
    assert started.stdout is not None
    if f"{word}\n" not in iter(started.stdout.readline, ""):
        pytest.fail(f"it ended before it was there: {ended(started).err}")


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


def test_a_signal_ends_every_phase_by_one_line_and_a_second_one_at_once() -> None:
    for phase, (code, command, number, word) in PHASES.items():
        started = waiting(code, command, ignoring=phase.startswith("importing"))
        started.send_signal(number)
        found = ended(started)
        said = [line for line in found.err.splitlines() if not conftest.BEFORE.match(line)]
        assert (found.code, said) == (128 + number, [f"lrwd-sweep: {word}"] if word else []), phase
    started = waiting(TRAINING, GRID)
    started.send_signal(signal.SIGINT)
    started.send_signal(signal.SIGINT)  # as timeout(1) does: it counts as one
    wait_until_reached(started, "stopping")
    started.send_signal(signal.SIGTERM)
    found = ended(started)
    assert (found.code, found.err.splitlines()[-1]) == (143, "lrwd-sweep: terminated")
    assert "Traceback" not in found.err


def stopped(driver: int) -> int:
    found = [Path(f"/proc/{pid}/stat").read_text() for pid in (driver, *children(driver))]
    return sum(stat.rpartition(")")[2].split()[0] == "T" for stat in found)


def test_ctrl_z_stops_training_and_gives_the_terminal_back_until_fg() -> None:
    ours, theirs = os.openpty()
    words = ("--run", "sleep 1000 {lr} {weight_decay} {seed}", "-o", "adam", *GRID.split()[1:-4])
    environ, null = os.environ | {"TERM": "xterm"}, subprocess.DEVNULL
    line = [*PROGRAM, "grid", *words]
    started = subprocess.Popen(line, stdin=null, stdout=null, stderr=theirs, env=environ, process_group=0)
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
