"""`grid`: the same command trains once, and a larger one extends what is there."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAMW, STORE, TINY, Run

GRID = ("grid", *TINY)


def trials(path: str = STORE, name: str = ADAMW) -> dict[tuple[Cell, int], Trial]:
    """Return every lane of a study, with its curves."""
    with open_store(path, write=False) as store:
        return {(trial.cell, trial.seed): trial for trial in store.trials(name, curves=True)}


def test_the_same_command_trains_nothing_and_shows_the_same(run: Run) -> None:
    first, stored = run(*GRID), trials()
    assert "best cell" in first.out
    assert "trained 9 runs" in first.err
    assert "training" not in first.out
    second = run(*GRID)
    assert second.code == 0
    assert second.err.endswith(f"\n{ADAMW}: 9 of 9 lanes are in the store; nothing to train\n")
    assert second.out == first.out
    assert trials() == stored


def test_extended_study_equals_one_trained_at_once_in_packs_of_any_size(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRWD_STORAGE", f"sqlite:///{tmp_path}/elsewhere.db")
    run(*GRID)
    larger = (*GRID, "--lr=2^-9:2^-6", "--seeds=2", "--wd=0,2^-8:2^-6")  # with a baseline column
    before = trials("elsewhere.db")
    found = run(*larger)
    assert found.code == 0
    assert "9 of 32 lanes are in the store; training the 23 that are missing" in found.err
    after = trials("elsewhere.db")
    assert len(after) == 32
    assert {lane: after[lane] for lane in before} == before
    assert run("report").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere.db"]
    run(*larger, "--max-lanes", "4", "--storage", "once.db")
    assert after == trials("once.db")


def test_one_value_on_an_axis_sweeps_the_other(run: Run) -> None:
    found = run("grid", *TINY, "--lr", "2^-8:2^-5", "--wd", "0", "--full")
    assert found.code == 0
    text = " ".join(found.out.split())
    assert "verdict undetermined" in text
    assert "not applicable to 4 learning rates × 0 weight decays above 0: at least two of each" in text
    for part in ("best cell", "torch.optim.Adam", "sweep wd too"):
        assert part in text
    assert run("tpe", *TINY, "--lr", "0.01", "--trials", "2").code == 0


def test_quiet_writes_errors_only_to_stderr(run: Run) -> None:
    for command in (("grid",), ("grid",), ("tpe", "--trials", "2"), ("compare", "adam", "adamw")):
        found = run(*command, *TINY, "-q")
        assert (found.code, found.err) == (0, ""), command
        assert found.out
    refused = run("grid", "--epochs", "0", "--quiet")
    assert refused.err == "lrwd-sweep: --epochs 0 is too small; choose at least 1\n"


def test_lanes_that_failed_are_exit_3_and_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from lrwd_sweep.engine import pack

    def no_room(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(pack.PackTrainer, "run", no_room)
        found = run(*GRID)
    assert found.code == 3
    assert "9 lanes failed" in found.err
    assert "the same command tries them again" in found.err
    again = run(*GRID)
    assert again.code == 0
    assert {trial.status.value for trial in trials().values()} == {"complete"}


def test_what_trains_collects_garbage(
    run: Run, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The command line loads its libraries without; a sweep may take hours."""
    request.addfinalizer(gc.unfreeze)
    request.addfinalizer(gc.enable)
    assert gc.isenabled()
    gc.disable()
    assert run("grid", *TINY).code == 0
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_precision_makes_a_study_of_its_own_and_is_in_every_answer(run: Run) -> None:
    name = f"{ADAMW}-bfloat16"
    trained = run("grid", *TINY, "--precision", "bfloat16", "--full")
    assert trained.code == 0
    assert "computed in bfloat16" in trained.out
    assert "--precision bfloat16" in trained.out  # in what to do next
    assert run("grid", *TINY).code == 0
    with open_store(STORE, write=False) as store:
        plain, rounded = store.get_study(ADAMW).spec, store.get_study(name).spec
    assert plain.differences(rounded) == ["precision: float32, bfloat16"]
    lanes = trials(), trials(name=name)
    assert lanes[0].keys() == lanes[1].keys()
    assert lanes[0] != lanes[1]
