"""A command that is killed keeps what it had: the same command goes on, and ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lrwd_sweep.spec.job import short_digest
from lrwd_sweep.store import open_store
from lrwd_sweep.store.studies import Driver
from tests.cli.conftest import STORE, Run, ended, process
from tests.faults import assert_finished, assert_kept, assert_told, children, stored

NAME = "killed"
SWEEP = ("--lr", "2^-8:2^-5", "--wd", "2^-8:2^-7", "--seeds", "2", "--epochs", "150", "--max-lanes", "4")
LANES = 16
OFTEN = ("--checkpoint-every", "0.05")


def killed(
    seconds: float, *command: str, number: signal.Signals = signal.SIGKILL, trained: bool = False
) -> tuple[int, str]:
    """Send a command a signal some seconds after its store exists, or once it wrote a checkpoint.

    Return exit code and stderr.
    """
    before = described()
    started = process(*command)
    while started.poll() is None and not (described() - before if trained else Path(STORE).exists()):
        time.sleep(0.01)
    time.sleep(seconds)
    started.send_signal(number)
    found = ended(started)
    return found.code, found.err


def described() -> set[str]:
    """Return the names of the checkpoints."""
    return {file.name for file in Path(f"{STORE}.packs").glob("*.json")}


NETWORK = """
import torch

def f(inputs=64, classes=10):
    layers = torch.nn.Flatten(), torch.nn.Linear(inputs, 16), torch.nn.ReLU(), torch.nn.Linear(16, classes)
    return torch.nn.Sequential(*layers)
"""


def assert_ended(pids: Sequence[int]) -> None:
    """Wait until no process is left of those of a driver that has died."""
    until = time.monotonic() + 30
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, f"orphans: {left}"
        time.sleep(0.05)


def trains(process: int) -> bool:
    """Return True for a process of an executor."""
    with suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def kill(started: subprocess.Popen[str], victim: str, draw: random.Random) -> tuple[int, str]:
    """Kill the driver, a worker, or both; a driver goes on to its end. Return exit code and stderr."""
    descendants = children(started.pid)
    workers = [pid for pid in descendants if trains(pid)]
    if victim != "driver" and workers:
        with suppress(ProcessLookupError):
            os.kill(draw.choice(workers), signal.SIGKILL)
    if victim != "worker":
        started.kill()
    found = ended(started)
    assert_ended(descendants)
    return found.code, found.err


@pytest.mark.parametrize(
    ("executor", "kills"),
    [
        *(("threads", 2), ("processes", 3)),
        *(pytest.param(executor, 25, marks=pytest.mark.slow) for executor in ("threads", "processes")),
    ],
)
def test_killed_sweep_goes_on_and_ends_with_the_same_bits(run: Run, executor: str, kills: int) -> None:
    Path("net.py").write_text(NETWORK)
    shape = ("--epochs", "30") if kills > 5 else ("--epochs", "15", "--seeds", "1")
    net = ("--net", "./net.py:f", *shape) if executor == "processes" else ()
    command = ("grid", *SWEEP, *net, *OFTEN, "--study-name", NAME)
    draw, kept, store = random.Random(kills), 0, Path(STORE)
    for k in range(kills):
        victim = "driver" if not net else ("driver", "worker", "both")[k % 3]
        before, started = described(), process(*command)
        while started.poll() is None and not (described() - before if k % 2 else store.exists()):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 2 if k % 2 == 0 else 0.5))
        code, err = kill(started, victim, draw)
        if victim == "worker":
            assert_told(code, err, 0)
            if k + 1 < kills:
                store.unlink()
                kept = 0
        kept = assert_kept(store, NAME, kept, LANES)
    again = run(*command)
    assert_told(again.code, again.err, 0)
    whole = ("--storage", "whole.db", "--checkpoint-every", "0")
    assert run("grid", *SWEEP, *net, "--study-name", NAME, *whole).code == 0
    assert_finished(store, NAME, stored(Path("whole.db"), NAME))
    assert len(stored(store, NAME)) in (LANES, LANES // 2)
    left = Path(f"{STORE}.packs", f"{short_digest(NAME)}-{'0' * 12}-{'0' * 12}-000000150.safetensors")
    left.parent.mkdir()
    left.write_bytes(b"of a process that was killed when it had stored its last pack")
    assert run(*command).code == 0
    assert not left.parent.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_packs_continue_where_they_were(run: Run, number: signal.Signals) -> None:
    command = ("grid", *SWEEP, *OFTEN, "--study-name", NAME, "--epochs", "100000", "--max-lanes", "8")
    code, err = killed(1, *command, number=number, trained=True)
    assert code == 128 + number
    assert err.splitlines()[-1].endswith("all work is kept, the same command continues")
    assert described()
    code, err = killed(1, *command, number=number, trained=True)
    assert code == 128 + number
    assert "of the lanes continue from a checkpoint" in err


def test_study_has_one_driver(run: Run) -> None:
    command = ("grid", *SWEEP, *OFTEN, "--study-name", NAME, "--epochs", "100000")
    first = process(*command)
    while first.poll() is None and not described():
        time.sleep(0.01)
    second = run(*command)
    assert second.code == 3
    said = second.err.splitlines()[-1]
    assert f"study 'killed' is being trained by process {first.pid} on " in said, said
    shard = run(*command, "--shard", "1/2", "--storage", STORE)
    assert shard.err.rstrip().endswith("or give each shard a file of its own by --storage"), shard.err
    assert len(stored(Path(STORE), NAME)) < LANES, "the second one trained nothing"
    assert f"in training, process {first.pid} on " in " ".join(run("study", "list").out.split())
    refused = run("study", "delete", NAME, "--yes")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    first.kill()
    ended(first)
    with open_store(STORE, write=False) as store:
        assert store.driver(NAME) is None, "a dead process trains nothing"
    assert "; stopped, last trained 20" in (listed := " ".join(run("study", "list").out.split()))
    assert f" by process {first.pid} on " in listed
    assert run("study", "delete", NAME, "--yes").code == 0
    assert not described()


def test_driver_on_another_host_counts_until_it_is_silent_for_a_minute() -> None:
    mine = Driver.here()
    assert mine.is_alive
    other = replace(mine, host="elsewhere", pid=1)
    assert other.is_alive
    assert not replace(other, seen=time.time() - 61).is_alive
    assert not replace(mine, started=mine.started + 1).is_alive, "its number has gone to another process"
    assert not replace(other, host=mine.host, boot="before the crash", seen=0).is_alive
