"""A signal while lanes train: every finished pack is kept, and the same command continues."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from lrwd_sweep.lattice import Cell
from lrwd_sweep.store import open_store
from lrwd_sweep.trial import Trial
from tests.cli.conftest import STORE, Run, ended, process

LANES = 32
AXES = ("--lr", "2^-8:2^-5", "--wd", "2^-8:2^-5", "--seeds", "2")
LONG = ("grid", *AXES, "--epochs", "12", "--max-lanes", "2")
NAME = "digits-mlp-norm-adamw-cosine-12ep-b64"
NEVER = 120.0  # seconds; a guard against waiting for ever, no claim


def stored_lanes(path: Path) -> int:
    """How many lanes are in the store, asked without opening it for writing."""
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM trials").fetchone()[0])
    except sqlite3.OperationalError:  # the schema is not there yet
        return 0


def trials(path: str) -> dict[tuple[Cell, int], Trial]:
    """Every lane of the study, with its curves."""
    with open_store(path, write=False) as store:
        return {(trial.cell, trial.seed): trial for trial in store.trials(NAME, curves=True)}


def wait_for_a_pack(started: subprocess.Popen[str], path: Path) -> None:
    """Return as soon as a pack is stored and others are not."""
    give_up = time.monotonic() + NEVER
    while not stored_lanes(path):
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_keeps_its_packs_and_continues_to_the_same_values(
    run: Run, tmp_path: Path, number: signal.Signals
) -> None:
    started = process(*LONG)
    wait_for_a_pack(started, tmp_path / STORE)
    started.send_signal(number)
    found = ended(started)
    assert found.code == 128 + number
    assert found.out == ""
    assert found.err.splitlines()[-1] == (
        f"lrwd-sweep: stopped by {number.name}; every finished pack is kept, the same command continues"
    )
    kept = trials(STORE)
    assert 0 < len(kept) < LANES
    assert len(kept) % 2 == 0  # whole packs
    again = run(*LONG)
    assert again.code == 0
    assert f"{len(kept)} of {LANES} lanes are in the store" in again.err
    completed = trials(STORE)
    assert {lane: completed[lane] for lane in kept} == kept
    assert run(*LONG, "--storage", "whole.db").code == 0
    assert completed == trials("whole.db")
