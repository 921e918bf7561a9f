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
    assert "training 9 lanes" in first.err
    assert "training" not in first.out
    second = run(*GRID)
    assert second.code == 0
    assert second.err == f"{ADAMW}: 9 of 9 lanes are in the store; nothing to train\n"
    assert second.out == first.out
    assert trials() == stored


def test_a_larger_lattice_or_more_seeds_train_what_is_missing(run: Run) -> None:
    for larger, lanes in (("--lr=2^-9:2^-6", 12), ("--seeds=2", 18), ("--wd=0,2^-8:2^-6", 12)):
        storage = ("--storage", f"{larger[2:5]}.db")
        run(*GRID, *storage)
        before = trials(storage[1])
        found = run(*GRID, larger, *storage)
        assert found.code == 0
        missing = f"9 of {lanes} lanes are in the store; training the {lanes - 9} that are missing"
        assert missing in found.err, larger
        after = trials(storage[1])
        assert len(after) == lanes, larger
        assert {lane: after[lane] for lane in before} == before, larger
    assert 0.0 in {cell.weight_decay for cell, _ in after}  # a baseline column


def test_an_extended_study_equals_one_trained_at_once_in_packs_of_any_size(run: Run) -> None:
    run(*GRID)
    run(*GRID, "--seeds", "2", "--lr", "2^-9:2^-6")
    for lanes, storage in (("512", "once.db"), ("2", "small.db")):
        at = ("--max-lanes", lanes, "--storage", storage)
        run(*GRID, "--seeds", "2", "--lr", "2^-9:2^-6", *at)
        assert trials() == trials(storage), lanes


def test_the_store_is_where_the_variable_says(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRWD_STORAGE", f"sqlite:///{tmp_path}/elsewhere.db")
    run(*GRID)
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere.db"]
    assert run("report").code == 0


def test_a_preset_file_defines_the_task(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'variants = ["sgd", "sgdw"]\n[training]\nepochs = 2\n[study]\nseeds = 1\nmetric = "val_error"\n'
        '[axes.sgd]\nlr = "2^-8:2^-6"\nwd = "2^-8:2^-6"\n[axes.sgdw]\nlr = "2^-8:2^-6"\nwd = "2^-8:2^-6"\n'
    )
    found = run("compare", "--preset", "mine.toml")
    assert found.code == 0
    assert "digits-mlp-norm-sgd-cosine-2ep-b64" in found.out
    assert "val_error" in found.out


def test_one_value_on_an_axis_sweeps_the_other(run: Run) -> None:
    for lr, wd, size in (
        ("0.01", "2^-8:2^-5", "1 learning rate × 4 weight decays above 0"),
        ("2^-8:2^-5", "0", "4 learning rates × 0 weight decays above 0"),
    ):
        axes = ("--lr", lr, "--wd", wd, "--study-name", f"at {lr}")
        found = run("grid", *TINY, *axes, "--full")
        assert found.code == 0
        text = " ".join(found.out.split())
        assert "verdict undetermined" in text
        assert f"not applicable to {size}: at least two of each are needed" in text
        assert "best cell" in text
        assert "torch.optim.Adam" in text
        assert run("grid", *TINY, *axes).err.endswith("4 of 4 lanes are in the store; nothing to train\n")
        gates = run("report", "--max-best", "9", "--max-abs-slope", "1", "--no-edge", "--format", "csv")
        assert gates.code == 1
        assert "max-best" not in "".join(line for line in gates.err.splitlines() if "failed" in line)
        assert "gate max-abs-slope failed" in gates.err
    assert "(no cell has weight decay above 0)" in gates.err
    assert "sweep wd too" in text
    assert run("tpe", *TINY, "--lr", "0.01", "--trials", "2").code == 0


def test_quiet_writes_errors_only_to_stderr(run: Run) -> None:
    for command in (("grid",), ("tpe", "--trials", "2"), ("compare", "adam", "adamw")):
        for again in (False, True):
            found = run(*command, *TINY, "-q")
            assert (found.code, found.err) == (0, ""), (command, again)
            assert found.out
    assert (
        run("grid", "--epochs", "0", "--quiet").err
        == "lrwd-sweep: --epochs 0 is too small; choose at least 1\n"
    )


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
