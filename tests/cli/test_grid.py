"""`grid`: the same command trains once, and a larger one extends what is there."""

import gc
import json
import os
import re
from pathlib import Path

import pytest

from tests.cli.conftest import ADAMW, TINY, Run, process, trials

GRID = ("grid", *TINY)


def test_same_command_trains_nothing_and_shows_the_same(run: Run, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(gc.unfreeze)
    request.addfinalizer(gc.enable)
    gc.disable()  # as the command line loads its libraries; a sweep may take hours
    first, stored = run(*GRID), trials()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert ("best cell" in first.out, "trained 9 runs" in first.err, "training" in first.out) == (1, 1, 0)
    second = run(*GRID)
    assert second.err.endswith(f"\n{ADAMW}: 9 of 9 lanes are in the store; nothing to train\n")
    assert (second.code, second.out, trials()) == (0, first.out, stored)


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


def test_one_value_on_an_axis_sweeps_the_other_and_quiet_writes_only_errors(run: Run) -> None:
    found = run(*GRID, "--lr", "2^-8:2^-5", "--wd", "0", "--full")
    assert found.code == 0
    text = " ".join(found.out.split())
    assert "not applicable to 4 learning rates × 0 weight decays above 0: at least two of each" in text
    for part in ("verdict undetermined", "best cell", "torch.optim.Adam", "sweep wd too"):
        assert part in text
    assert run("tpe", *TINY, "--lr", "0.01", "--trials", "2").code == 0
    for command in (("grid",), ("grid",), ("tpe", "--trials", "2"), ("compare", "adam", "adamw")):
        found = run(*command, *TINY, "-q")
        assert (found.code, found.err, bool(found.out)) == (0, "", True), command
    refused = run("grid", "--epochs", "0", "--quiet")
    assert refused.err == "lrwd-sweep: --epochs 0 is too small; choose at least 1\n"


def test_lanes_that_failed_are_exit_3_and_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("lrwd_sweep.engine.pack.PackTrainer.run", no_room)
        found = run(*GRID)
    assert (found.code, "9 lanes failed" in found.err) == (3, True)
    assert "the same command tries them again" in found.err
    assert run(*GRID).code == 0
    assert {trial.status.value for trial in trials().values()} == {"complete"}


def test_refined_lattice_trains_in_rounds_and_is_completed_by_the_same_command_without_it(run: Run) -> None:
    grid = (*GRID, "--lr=2^-11:2^-5", "--wd=2^-9:2^-3", "--seeds=2")
    first = run(*grid, "--refine", "--max-runs", "34")
    assert (first.code, "refined, at most 34 runs" in first.err) == (0, True)
    text = " ".join(first.out.replace("\\", "").split())
    more = re.search(r"--refine --max-runs (\d+).* \+(\d+) runs: --max-runs 34 holds no further round", text)
    assert more is not None
    assert int(more[1]) == 32 + int(more[2])
    found = run(*grid, "--refine")
    assert f"{ADAMW}: 32 runs of a refined lattice in the store; training the next " in found.err
    assert "· never trained" in found.out
    study = json.loads(run("report", "--format", "json").out)["studies"][0]
    refined, lanes = study["refined"], len(trials())
    assert 32 < lanes == refined["runs"] < 98 == refined["of"]
    assert {(cell["lr"], cell["weight_decay"]) for cell in refined["never_trained"]} == {
        (cell["lr"], cell["weight_decay"])
        for cell in study["cells"]
        if all(seed["status"] == "missing" for seed in cell["seeds"])
    }
    again = run(*grid, "--refine")
    assert ("nothing to train" in again.err, again.out) == (True, found.out)
    assert f"refined, {lanes} runs" in " ".join(run("study", "list").out.split())
    whole = run(*grid)
    assert f"{lanes} of 98 lanes are in the store" in whole.err
    assert (len(trials()), "never trained" in whole.out) == (98, False)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_lanes_that_are_done() -> None:
    def peak(seeds: int) -> int:
        axes = ("--lr", "1e-4:1e-1:50", "--wd", "1e-4:1e-1:40", "--seeds", str(seeds), "--epochs", "1")
        started = process("grid", *axes, "-q", "--storage", f"{seeds}.db", "--study-name", "s")
        with started:
            assert started.stdout is not None
            assert started.stdout.read()
            _, status, usage = os.wait4(started.pid, 0)
            started.returncode = os.waitstatus_to_exitcode(status)
        assert started.returncode == 0
        assert len(trials(f"{seeds}.db", "s")) == 2_000 * seeds
        return usage.ru_maxrss

    assert peak(5) < 1.05 * peak(1)
