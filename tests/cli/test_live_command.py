"""Commands that train say what begins at once, tell the time before they spend it, and can be watched."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Run, assert_refused, ended, process

LEAVES = """
import os, sys

class Finder:
    def find_spec(self, name, *_):
        if name in ("torch", "numpy", "sqlalchemy"):
            sys.stderr.flush()
            os._exit(77)

sys.meta_path.insert(0, Finder())
from lrwd_sweep.cli import main
main()
"""
SAID = {
    "grid -o adamw:lr-scaled": "adamw:lr-scaled: 11×11 lattice × 5 seeds, 605 runs on cpu",
    "compare sgd adamw --lr 0.1,1 --seeds 1": "sgd, adamw: 2×11 lattices × 1 seed, 44 runs on cpu",
    "tpe --trials 9 --device cuda:1": "adamw: 9 points × 5 seeds, 45 runs on cuda:1",
    "grid --net ./net.py:Net": "loading ./net.py:Net",
    "grid --quiet": "",
}


def test_the_first_line_comes_before_torch_and_the_store_are_loaded() -> None:
    Path("net.py").write_text("class Net: ...\n")
    for command, said in SAID.items():
        line = [sys.executable, "-c", LEAVES, *command.split()]
        environ = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        found = subprocess.run(line, capture_output=True, text=True, env=environ, check=False)
        assert (found.returncode, found.stderr.strip(), found.stdout) == (77, said, ""), command


DRY = {  # command: what it says, besides that nothing is written
    "compare adam adamw": ("adam, adamw: 3×3 lattices × 1 seed, 18 runs", f"{ADAM}: 0 of 9 runs are stored"),
    "tpe --trials 8 --quiet": ("adamw: 8 points × 1 seed, 8 runs", "2 runs at once, 1 in each of 2 packs"),
    "grid --max-lanes 2 --storage new.db": (
        *("4 runs at once, 2 in each of 2 packs", "free", "store   new.db, which would be created"),
        f"study   {ADAMW}: 0 of 9 runs are stored, 9 are new",
    ),
    "grid --data cifar10 --net cnn --data-dir no --download": ("about ",),  # it would be downloaded
}


def test_a_dry_run_tells_runs_time_and_memory_and_writes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("lrwd_sweep.runner.study_loop.SECONDS", 0.1)
    monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 2)
    for command, parts in DRY.items():
        found = run(*command.split(), *TINY, "--dry-run")
        assert (found.code, found.err) == (0, ""), command
        for part in (*parts, "memory  about", "time    about", "dry run: nothing is trained or written"):
            assert part in found.out, (command, part)
        assert list(tmp_path.iterdir()) == [], command


def test_a_dry_run_reads_the_store_and_refuses_what_the_command_refuses(
    run: Run, compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrwd_sweep.runner.study_loop.SECONDS", 0.1)
    whole, before = compared.read_bytes(), sorted(os.listdir())
    assert "nothing to train" in run("compare", "adam", "adamw", *TINY, "--dry-run").out
    found = run("grid", *TINY[:-1], "3", "--dry-run")
    assert f"study   {ADAMW}: 9 of 27 runs are stored, 18 are new" in found.out
    for command, code in {
        f"grid --study-name {ADAM}": 2,  # another specification
        "grid --storage no/such.db": 3,
        "grid --device cuda:77": 3,
        "grid --data cifar10 --net cnn --data-dir nowhere": 3,
        "tpe --trials 0": 2,
    }.items():
        dry, real = (run(*command.split(), *more) for more in (["--dry-run"], ["--quiet"]))
        assert_refused(dry, code)
        assert (dry.code, dry.err.splitlines()[-1]) == (real.code, real.err.splitlines()[-1]), command
    assert_refused(run("grid", "--retrain-damaged", "--dry-run"), 2, "--dry-run", "--retrain-damaged")
    assert compared.read_bytes() == whole
    assert sorted(os.listdir()) == before


LATTICE = Lattice((0.1, 0.2, 0.4), (0.1, 0.2))
SPEC = StudySpec(Kind.GRID, Optimizer.parse("adamw"), LATTICE, (0,), "val_loss", Task(epochs=2))


def add(name: str, spec: StudySpec, *places: int) -> None:
    """Store runs of a study, by their places in the lattice."""
    cells = list(spec.lattice.cells())
    with open_store(STORE, write=True) as store:
        store.begin_study(name, spec)
        metrics = {"val_loss": 0.5}
        store.add_trials(name, [Trial(cells[k], 0, Status.COMPLETE, metrics) for k in places])


def test_watching_follows_a_sweep_to_its_end_and_then_reports(run: Run) -> None:
    other = replace(SPEC, optimizer=Optimizer.parse("adam"))
    add("a", other, 0, 1, 2)
    add("b", SPEC, 0, 1)
    first, second = (process("report", "--watch", "b", "a", *form) for form in ((), ("--format", "json")))
    for started in (first, second):
        assert started.stderr is not None
        assert started.stderr.readline().endswith(": 5 of 12 runs are stored\n")
    first.send_signal(signal.SIGINT)
    found = ended(first)
    assert (found.code, found.out, found.err) == (130, "", "lrwd-sweep: interrupted\n")
    add("a", other, 3, 4, 5)
    add("b", SPEC, 2, 3, 4, 5)
    found = ended(second)
    assert (found.code, found.out.startswith("{")) == (0, True)
    assert {line.partition(" is complete")[0] for line in found.err.splitlines()} >= {"adam", "adamw"}


def test_watching_refuses_what_no_sweep_will_change(run: Run) -> None:
    assert_refused(run("report", "--watch"), 2, "--watch", "there is no lrwd-sweep.db here yet")
    add("whole", SPEC, *range(6))
    add("search", replace(SPEC, kind=Kind.TPE))
    for names, parts in {
        "whole": ("--watch", "'whole' is finished", "leave --watch out"),
        "search": ("'search' is a search", "leave --watch out"),
        "nothing": ("'nothing'", "whole"),
    }.items():
        assert_refused(run("report", *names.split(), "--watch"), 2, *parts)
    assert_refused(run("report", "--watch", "--storage", "no.db"), 3, "no.db")
