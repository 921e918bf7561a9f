"""Sweeps of a script by `--run`, and of a function of Python."""

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import lrwd_sweep
from lrwd_sweep.report.view import document
from lrwd_sweep.store import open_store
from tests.cli.conftest import STORE, Run, assert_refused
from tests.command_line import understood

BOWL = """
import math, sys
optimizer, lr, wd, seed = sys.argv[1], *map(float, sys.argv[2:])
coupled = optimizer == "adam"
x, y = math.log2(lr) + 7, math.log2(wd) + 5
loss = 0.5 + 0.02 * (x + coupled * y) ** 2 + 0.02 * y**2 * (not coupled) + 0.001 * seed * (x + 1)
for step in (10, 20):
    print(f"step {step}: train loss {loss}, val loss {loss + 1 / step - 0.05:.6f}")
"""
RUN = f"{sys.executable} -S -E 'my script.py' {{optimizer}} {{lr}} {{weight_decay}} {{seed}}"
SAID = ("--run", RUN, "--read", "auto", "--lr", "2^-8:2^-6", "--wd", "2^-6:2^-4", "--jobs", "2")


@pytest.fixture(autouse=True)
def _script() -> None:
    Path("my script.py").write_text(BOWL)


def test_compare_runs_both_optimizers_and_says_what_to_paste(run: Run) -> None:
    compared = run("compare", "adam", "adamw:lr-scaled", *SAID)
    assert compared.code == 0, compared.err
    assert compared.err.count("val_loss 0.5 at step 20 from stdout, 2 points; ") == 2
    assert "; 27 runs, 2 at a time: about " in compared.err
    assert "'my script.py' ada" in compared.out.split("use")[1]
    again = run("compare", "adam", "adamw:lr-scaled", *SAID)
    assert again.code == 0
    assert again.err.count("27 of 27 lanes are in the store; nothing to train") == 2
    content = json.loads(run("report", "--format", "json").out)
    schema = json.loads((Path(document.__file__).parent / "report.schema.json").read_text())
    jsonschema.validate(content, schema)
    first, second = content["studies"]
    assert first["command"] == RUN.replace("{optimizer}", "adam").replace("'", '"')
    assert (first["metric"], first["counts"]["complete"], first["best"]["value"]) == ("val_loss", 9, 0.5)
    lines = [line["remark"] for line in second["recommended"]["cells"][0]["lines"]]
    assert f"in your flags: {sys.executable} -S -E 'my script.py' adamw 0.0078125 0.03125 0" in lines
    for form in ("markdown", "html", "csv", "table"):
        assert run("report", "--format", form).code == 0, form
    shown = run("report", first["study_name"], "--show", "curves").out
    assert "val_loss by step" in shown
    assert "val_error" not in shown


def test_the_next_command_is_the_same_study_continued(run: Run) -> None:
    some = ("--timeout", "5m", "--diverged-above", "9.5", "--take", "best", "--seeds", "1")
    rest = (*some, "--cap", "4", "--keep-out")
    for command in (("grid", "-o", "adamw:independent"), ("tpe", "-o", "adam", "--trials", "4")):
        found = run(*command, *SAID, *rest)
        assert found.code == 0, found.err
    with open_store(STORE, write=False) as store:
        specs = {found.name: store.get_study(found.name).spec for found in store.studies()}
    for name, spec in specs.items():
        (study,) = json.loads(run("report", name, "--format", "json").out)["studies"]
        printed = study["recommended"]["next"][-1]["command"]
        asked = understood(printed)
        assert asked.name == name, printed
        assert asked.spec is not None
        assert asked.spec.identity() == spec.identity(), printed
        assert asked.spec.to_dict()["command"] == spec.to_dict()["command"], printed
        assert (asked.spec.given_cap, asked.spec.direction) == (spec.given_cap, spec.direction)


def test_a_script_without_a_seed_runs_with_one_and_is_told_that_a_verdict_needs_more(run: Run) -> None:
    axes = ("--lr", "2^-9:2^-5", "--wd", "2^-7:2^-3", "--jobs", "2")
    found = run("grid", "--run", f"{RUN[:-7]} 0", "--read", "auto", "-o", "adamw:lr-scaled", *axes)
    assert (found.code, "25 runs" in found.err, "let the script take {seed}" in found.out) == (0, True, True)


def test_bad_options_end_with_one_line(run: Run) -> None:
    axes = ("--lr", "0.1", "--wd", "0.1")
    grid, adam = ("grid", "--run", RUN, *axes), ("-o", "adam")
    pair = ("compare", "adam", "adamw:lr-scaled", "--run", "a {lr} {weight_decay}", *axes)
    for words, text in (
        (grid, "--optimizer is required: the decay rule of your script decides the verdict"),
        ((*grid, "-o", "adamw"), "(adamw:lr-scaled), or not, as in the paper (adamw:independent)?"),
        ((*grid, *adam, "--run", RUN), "--run is given 2 times; give it once"),
        ((*grid, *adam, "--timeout", "soon"), "--timeout soon is not a time"),
        (("grid", "--run", RUN[:-7], *adam, *axes, "--seeds", "2"), "--seeds 2: --run has no {seed}"),
        (pair, "write {optimizer}"),
        (("compare", "--run", RUN, *axes), "compare needs the names of the optimizers"),
    ):
        assert_refused(run(*words), 2, text)
    assert not Path("lrwd-runs").exists()
    read = run(*grid, *adam)
    assert (read.code, read.out) == (2, "")
    assert "--read auto or --read stdout:REGEX" in read.err
    Path("my script.py").write_text("raise SystemExit('no GPU')")
    broken = run(*grid, *adam)
    assert (broken.code, broken.out) == (3, "")
    assert "the first run failed: exit status 1: no GPU" in broken.err
    assert run("study", "list").code == 4 or "my-script" not in run("study", "list").out


FUNCTIONS = """
def curve(lr, weight_decay, seed):
    for step in (1, 2, 3):
        yield {"step": step, "val_loss": lr / 2 + weight_decay + (step - 2) ** 2, "acc": 0.5}


def both(a, b, c, optimizer):
    print("to stderr")
    return a + b + (optimizer == "sgd")


def other(lr, weight_decay, seed):
    return {"acc": 0.5, "name": "x"}


def broken(lr, weight_decay, seed):
    return lr / (seed * 0)
"""


def test_a_function_of_python_is_swept_here_or_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    mine: Any = importlib.import_module("mine")
    axes: dict[str, Any] = {"lr": [0.25, 0.5], "weight_decay": [0.5, 1.0], "seeds": 1, "progress": False}
    adam: Any = partial(lrwd_sweep.sweep, "adam", **axes)
    here = adam(objective=mine.curve, take="best")
    for k, function in enumerate((mine.curve, "./mine.py:curve")):
        apart = adam(objective=function, take="best", jobs=2, study_name=f"apart {k}")
        assert (here.surface.mean == apart.surface.mean).all()
    assert here.surface.mean.ravel().tolist() == [0.625, 1.125, 0.75, 1.25]
    assert here.frame["acc"].tolist() == [0.5] * 4
    both = lrwd_sweep.compare(["adam", "sgd"], objective=mine.both, metric="acc", maximize=True, **axes)
    assert [study.best.value for study in both.studies.values() if study.best] == [1.5, 2.5]
    with pytest.raises(lrwd_sweep.LrwdError, match="takes an argument optimizer"):
        lrwd_sweep.compare(["adam", "sgd"], objective=mine.curve, **axes)
    with pytest.raises(ZeroDivisionError):  # the user's own, with its traceback
        adam(objective=mine.broken)
    with pytest.raises(lrwd_sweep.LrwdError, match="objective gave acc, not val_loss"):
        adam(objective=mine.other)
    with pytest.raises(lrwd_sweep.LrwdError, match="cannot be found again by its name"):
        adam(objective=lambda lr, weight_decay, seed: lr, jobs=2)
    diverged = adam(objective=lambda lr, weight_decay, seed: lr / 0 if seed else lr * 1e999)
    assert diverged.surface.counts()["diverged"] == 4
    searched = lrwd_sweep.tpe("adam", objective=mine.curve, trials=5, **axes)
    monkeypatch.delitem(sys.modules, "mine")
    assert len(searched.result.trials) == 5
