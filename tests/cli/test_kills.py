"""A command that is killed keeps what it had: the same command goes on, and ends with the same bits."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lrwd_sweep.spec.job import short_digest
from lrwd_sweep.store import open_store
from lrwd_sweep.store.studies import Driver
from tests.cli.conftest import STORE, Run, ended, process
from tests.faults import assert_ended, assert_finished, assert_kept, assert_told, children, stored

NAME = "killed"
SWEEP = ("--lr", "2^-8:2^-5", "--wd", "2^-8:2^-7", "--max-lanes", "4", "--study-name", NAME)
LONG = ("--seeds", "2", "--epochs", "100000", "--checkpoint-every", "0.05")
NETWORK = """
import torch

def f(inputs=64, classes=10):
    layers = torch.nn.Flatten(), torch.nn.Linear(inputs, 16), torch.nn.ReLU(), torch.nn.Linear(16, classes)
    return torch.nn.Sequential(*layers)
"""


def described() -> set[str]:
    """Return the names of the checkpoints."""
    return {file.name for file in Path(f"{STORE}.packs").glob("*.json")}


def begun(*command: str, trained: bool = True) -> subprocess.Popen[str]:
    """Start a command; return once it wrote a checkpoint, or once its store exists."""
    before, started = described(), process(*command)
    while started.poll() is None and not (described() - before if trained else Path(STORE).exists()):
        time.sleep(0.01)
    return started


def kill(started: subprocess.Popen[str], victim: str, draw: random.Random) -> tuple[int, str]:
    """Kill the driver, a worker, or both; wait for the end of the driver and of all that it started."""
    descendants, workers = children(started.pid), []
    for pid in descendants:
        with suppress(OSError):
            workers += [pid] * (b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
    if victim != "driver" and workers:
        with suppress(ProcessLookupError):
            os.kill(draw.choice(workers), signal.SIGKILL)
    if victim != "worker":
        started.kill()
    found = ended(started)
    assert_ended(descendants)
    return found.code, found.err


SLOW = [pytest.param(net, 25, marks=pytest.mark.slow) for net in (None, "./net.py:f")]


@pytest.mark.parametrize(("net", "kills"), [(None, 2), *SLOW])
def test_killed_sweep_goes_on_and_ends_with_the_same_bits(run: Run, net: str | None, kills: int) -> None:
    """Native lanes train in threads, a user's network in processes."""
    Path("net.py").write_text(NETWORK)
    shape = ("--seeds", "1", "--epochs", "150") if kills < 25 else ("--seeds", "2", "--epochs", "150")
    command = ("grid", *SWEEP, *(("--net", net, "--seeds", "2", "--epochs", "30") if net else shape))
    draw, kept, store, lanes = random.Random(kills), 0, Path(STORE), 8 if kills < 25 else 16
    often = ("--checkpoint-every", "0.05")
    for k in range(kills):
        victim = ("driver", "worker", "both")[k % 3] if net else "driver"
        started = begun(*command, *often, trained=k % 2 == 1)
        time.sleep(draw.uniform(0, 2 if k % 2 == 0 else 0.5))
        code, err = kill(started, victim, draw)
        if victim == "worker":
            assert_told(code, err, 0)
            if k + 1 < kills:
                store.unlink()
                kept = 0
        kept = assert_kept(store, NAME, kept, lanes)
    again = run(*command, *often)
    assert_told(again.code, again.err, 0)
    assert run(*command, "--storage", "whole.db", "--checkpoint-every", "0").code == 0
    assert_finished(store, NAME, stored(Path("whole.db"), NAME))
    assert len(stored(store, NAME)) == lanes
    left = Path(f"{STORE}.packs", f"{short_digest(NAME)}-{'0' * 12}-{'0' * 12}-000000150.safetensors")
    left.parent.mkdir()
    left.write_bytes(b"of a process that was killed when it had stored its last pack")
    assert run(*command, *often).code == 0
    assert not left.parent.exists()


NUMBERS = [
    signal.SIGTERM,
    *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGHUP)),
]


@pytest.mark.parametrize("number", NUMBERS)
def test_stopped_packs_continue_where_they_were(number: signal.Signals) -> None:
    for said in ("all work is kept, the same command continues", "of the lanes continue from a checkpoint"):
        started = begun("grid", *SWEEP, *LONG)
        started.send_signal(number)
        found = ended(started)
        assert found.code == 128 + number
        assert said in found.err
        assert found.err.splitlines()[-1].endswith("all work is kept, the same command continues")
        assert described()


def test_study_has_one_driver(run: Run) -> None:
    command = ("grid", *SWEEP, *LONG)
    first = begun(*command)
    second = run(*command)
    assert second.code == 3
    said = second.err.splitlines()[-1]
    assert f"study 'killed' is being trained by process {first.pid} on " in said, said
    shard = run(*command, "--shard", "1/2", "--storage", STORE)
    assert shard.err.rstrip().endswith("or give each shard a file of its own by --storage"), shard.err
    assert not stored(Path(STORE), NAME), "the second one trained nothing"
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
