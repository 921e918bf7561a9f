"""A command that is killed keeps what it had: the same command goes on, and ends with the same bits."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.job import short_digest
from lrwd_sweep.store import open_store
from lrwd_sweep.store.drivers import Driver
from tests.cli.conftest import STORE, Run, ended, process

NAME = "killed"
SWEEP = ("--lr", "2^-8:2^-5", "--wd", "2^-8:2^-7", "--seeds", "2", "--epochs", "150", "--max-lanes", "4")
LANES = 16
OFTEN = ("--checkpoint-every", "0.05")


def trials(path: str) -> dict[tuple[Cell, int], Trial]:
    """Return every stored lane of the study."""
    with open_store(path, write=False) as store:
        if store.find_study(NAME) is None:
            return {}
        return {(trial.cell, trial.seed): trial for trial in store.trials(NAME)}


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


def refuse_damage(acknowledged: int) -> int:
    """Check the database after a kill; return the number of stored lanes."""
    with sqlite3.connect(STORE) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    found = len(trials(STORE))
    assert found >= acknowledged, "a stored lane was lost"
    return found


@pytest.mark.parametrize("kills", [5, pytest.param(25, marks=pytest.mark.slow)])
def test_killed_sweep_goes_on_and_ends_with_the_same_bits(run: Run, kills: int) -> None:
    command = ("grid", *SWEEP, *OFTEN, "--study-name", NAME, "-q")
    draw, kept = random.Random(kills), 0
    for k in range(kills):
        killed(draw.uniform(0, 2), *command, trained=k % 2 == 0)
        kept = refuse_damage(kept)
    again = run("grid", *SWEEP, *OFTEN, "--study-name", NAME)
    assert again.code == 0, again.err
    found = trials(STORE)
    assert len(found) == LANES
    assert not Path(f"{STORE}.packs").exists(), "checkpoints of finished packs are deleted"
    whole = ("--storage", "whole.db", "--checkpoint-every", "0")
    assert run("grid", *SWEEP, "--study-name", NAME, *whole).code == 0
    assert found == trials("whole.db")
    left = Path(f"{STORE}.packs", f"{short_digest(NAME)}-{'0' * 12}-{'0' * 12}-000000150.safetensors")
    left.parent.mkdir()
    left.write_bytes(b"of a process that was killed when it had stored its last pack")
    assert run("grid", *SWEEP, *OFTEN, "--study-name", NAME).code == 0
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
    assert len(trials(STORE)) < LANES, "the second one trained nothing"
    assert f"in training, process {first.pid} on " in " ".join(run("study", "list").out.split())
    refused = run("study", "delete", NAME, "--yes")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    first.kill()
    ended(first)
    with open_store(STORE, write=False) as store:
        assert store.driver(NAME) is None, "a dead process trains nothing"
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
