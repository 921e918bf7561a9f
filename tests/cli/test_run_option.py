"""`--run` sweeps a script, Python a function of its own; `--data` finds data, or fails in one line."""

import importlib
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import lrwd_sweep
from lrwd_sweep.spec import catalog
from lrwd_sweep.store import open_store
from tests.cli.conftest import STORE, Patch, Run, assert_refused, reported, strict
from tests.command_line import understood
from tests.data.formats import CIFAR10, COLOUR, publish, write_images
from tests.refusal import assert_raises
from tests.report.view.schema import faults

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
    compared = run("compare", "adam", "adamw:lr-scaled", *SAID, code=0)
    assert compared.err.count("val_loss 0.5 at step 20 from stdout, 2 points; ") == 2
    assert "; 27 runs, 2 at a time: about " in compared.err
    assert "'my script.py' ada" in compared.out.split("use")[1]
    again = run("compare", "adam", "adamw:lr-scaled", *SAID, code=0)
    assert again.err.count("27 of 27 lanes are in the store; nothing to train") == 2
    content = strict(run("report --format json").out)
    assert faults(content, "report") == []
    first, second = content["studies"]
    assert first["command"] == RUN.replace("{optimizer}", "adam").replace("'", '"')
    assert (first["metric"], first["counts"]["complete"], first["best"]["value"]) == ("val_loss", 9, 0.5)
    lines = [line["remark"] for line in second["recommended"]["cells"][0]["lines"]]
    assert f"in your flags: {sys.executable} -S -E 'my script.py' adamw 0.0078125 0.03125 0" in lines
    for form in ("markdown", "html", "csv", "table"):
        run(f"report --format {form}", code=0)
    shown = run("report", first["study_name"], "--show", "curves").out
    assert ("val_loss by step" in shown, "val_error" in shown) == (True, False)
    seedless = f"grid --run {shlex.quote(RUN[:-7])}' 0' --read auto -o adamw:lr-scaled --jobs 2"
    found = run(f"{seedless} --lr 2^-9:2^-5 --wd 2^-7:2^-3", code=0)
    assert ("25 runs" in found.err, "let the script take {seed}" in found.out) == (True, True)


def test_the_next_command_is_the_same_study_continued(run: Run) -> None:
    rest = "--timeout 5m --diverged-above 9.5 --take best --seeds 1 --cap 4 --keep-out"
    for command in ("grid -o adamw:independent", "tpe -o adam --trials 4"):
        run(*f"{command} {rest}".split(), *SAID, code=0)
    with open_store(STORE, write=False) as store:
        specs = {found.name: store.get_study(found.name).spec for found in store.studies()}
    for name, spec in specs.items():
        printed = reported(run, name)["recommended"]["next"][-1]["command"]
        asked = understood(printed)
        assert asked.name == name, printed
        assert asked.spec.identity() == spec.identity(), printed
        assert asked.spec.to_dict()["command"] == spec.to_dict()["command"], printed
        assert (asked.spec.given_cap, asked.spec.direction) == (spec.given_cap, spec.direction)


def test_bad_options_end_with_one_line(run: Run) -> None:
    command = f"--lr 0.1 --wd 0.1 --run {shlex.quote(RUN)}"
    adam, two = f"grid -o adam {command}", "compare adam adamw:lr-scaled --lr 0.1 --wd 0.1"
    for words, text in (
        (f"grid {command}", "--optimizer is required: the decay rule of your script decides the verdict"),
        (f"grid -o adamw {command}", "(adamw:lr-scaled), or not, as in the paper (adamw:independent)?"),
        (f"{adam} --run x", "--run is given 2 times; give it once"),
        (f"{adam.replace('{seed}', '0')} --seeds 2", "--seeds 2: --run has no {seed}"),
        (f"{two} --run 'a {{lr}} {{weight_decay}}'", "write {optimizer}"),
        (f"compare {command}", "compare needs the names of the optimizers"),
    ):
        assert_refused(run(words), 2, text)
    assert not Path("lrwd-runs").exists()
    assert "--read auto or --read stdout:REGEX" in run(adam, code=2).err


FUNCTIONS = """
def curve(lr, weight_decay, seed):
    for step in (1, 2, 3):
        yield {"step": step, "val_loss": lr / 2 + weight_decay + (step - 2) ** 2, "acc": 0.5}

def both(a, b, c, optimizer):
    print("to stderr")
    return a + b + (optimizer == "sgd")
"""


def test_a_function_of_python_is_swept_here_or_in_processes(monkeypatch: Patch) -> None:
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
    with pytest.raises(ZeroDivisionError):  # the user's own, with its traceback
        adam(objective=lambda lr, weight_decay, seed: lr / (seed * 0))
    for line, call, given in (
        ("takes an argument optimizer", partial(lrwd_sweep.compare, ["adam", "sgd"], **axes), mine.curve),
        ("objective gave acc, not val_loss", adam, lambda lr, weight_decay, seed: {"acc": 0.5, "name": "x"}),
        ("cannot be found again by its name", partial(adam, jobs=2), lambda lr, weight_decay, seed: lr),
    ):
        assert_raises(line, call, objective=given, error=lrwd_sweep.LrwdError)
    diverged = adam(objective=lambda lr, weight_decay, seed: lr / 0 if seed else lr * 1e999)
    assert diverged.surface.counts()["diverged"] == 4
    searched = lrwd_sweep.tpe("adam", objective=mine.curve, trials=5, **axes)
    monkeypatch.delitem(sys.modules, "mine")
    assert len(searched.result.trials) == 5


def test_missing_or_changed_data_are_refused(run: Run, tmp_path: Path, monkeypatch: Patch) -> None:
    grid = "grid --lr 2^-8:2^-7 --wd 2^-8:2^-7 --epochs 2 --seeds 1 --net mlp --data"
    on_cifar = f"{grid} cifar10 --batch-size 16"
    cifar, where = tmp_path / "data", tmp_path / "cache" / "lrwd-sweep"
    monkeypatch.setenv("XDG_CACHE_HOME", str(where.parent))
    monkeypatch.setitem(catalog.DATA_SETS, "cifar10", COLOUR)  # tiny, and as if it were the published one
    CIFAR10(cifar)
    publish(monkeypatch, cifar)
    before = sorted(Path().iterdir())
    assert_refused(run(f"{grid} folder:nowhere"), 3, "--data folder:nowhere", "train/CLASS")
    assert sorted(Path().iterdir()) == before
    missing = f"cifar10 is not in {where} (no cifar-10-batches-py/data_batch_1); add --download, "
    remedy = "put cifar-10-python.tar.gz there, or name another folder by --data-dir"
    assert_refused(run(on_cifar), 3, f"lrwd-sweep: {missing}{remedy}")
    assert not where.exists()
    trained = run(f"{on_cifar} --data-dir {cifar}", code=0)
    next_command = " ".join(trained.out.replace("\\\n", "").split())  # lines joined as a shell does
    assert f"--data-dir {cifar}" in next_command
    monkeypatch.setenv("LRWD_DATA", str(cifar))
    assert "4 of 8 lanes are in the store" in run(f"{on_cifar} --seeds 2", code=0).err
    path = cifar / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(run(f"{on_cifar} --epochs 3"), 3, f"{path} is not the published file")
    train = Path("mine", "train")
    for label in ("cat", "dog"):
        write_images(train / label, 20, side=8, seed=ord(label[0]))
    folder = f"{grid} folder:mine@8 --batch-size 8"
    run(folder, code=0)
    run("report", code=0)
    write_images(train / "cat", 30, side=8, seed=9)
    name = "folder-mine-8-mlp-adamw-cosine-2ep-b8"
    assert_refused(run(folder), 2, name, "sizes: ", "'train': 32", "'train': 40")
