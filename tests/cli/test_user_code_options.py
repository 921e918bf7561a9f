"""User code on the command line: a network, data and a loss, from their files to a report elsewhere."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrwd_sweep.store import open_store
from tests.cli.conftest import STORE, Run, assert_refused
from tests.store.sample import rewrite_spec

CODE = {
    "my_net": """
from torch import nn

print("loading the network")

class Net(nn.Module):
    def __init__(self, num_classes, input_shape, width=8):
        super().__init__()
        self.body = nn.Linear(input_shape[0], width, bias=False)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.norm(self.body(x)).relu())
""",
    "my_data": """
import torch

def load():
    print("loading the data")
    x = torch.randn(96, 5)
    y = (x[:, 0] > 0).long()
    return (x[:64], y[:64]), (x[64:], y[64:])
""",
    "my_loss": """
from torch.nn.functional import cross_entropy

def smooth(logits, y): return cross_entropy(logits, y, label_smoothing=0.1)
""",
    "my_norms": """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(5, 8), nn.Module(), nn.Linear(8, 2)
        self.norm.weight, self.norm.bias = (nn.Parameter(torch.ones(shape) * k) for k in (1, 0))

    def forward(self, x):
        x = nn.functional.layer_norm(self.body(x), (8,))
        return self.head((self.norm.weight * x + self.norm.bias).relu())

def lead(): return Net(1, 8)
def flat(): return Net(8)
""",
}
AXES = ("--lr", "2^-4:2^-3", "--wd", "2^-8:2^-7", "--epochs", "2", "--seeds", "1", "--batch-size", "16")
GRID = ("grid", "--net", "./my_net.py:Net", "--data", "my_data.py:load", *AXES)
NAME = "my_data-load-my_net-net-adamw-cosine-2ep-b16"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a folder with the files; forget what is imported from it."""
    for name, text in CODE.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 1)  # in a thread, without seconds of start
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def test_user_code_trains_once_and_is_reported_without_its_files(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(*GRID, "--engine", "vmap")
    assert (found.code, "loading" in found.out) == (0, False), found.err
    assert found.err.count("loading the data") == 1
    assert "4 of 4 lanes are in the store; nothing to train" in run(*GRID).err
    assert run(*GRID, "--seeds", "2").code == 0
    with open_store(STORE, write=False) as store:
        task = store.get_study(NAME).spec.task
        assert task is not None
        assert task.engine == "vmap"  # kept by the extended study
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    shutil.move(project / STORE, elsewhere / STORE)
    monkeypatch.chdir(elsewhere)
    for name in ("my_net.py", "my_data.py"):
        (project / name).write_text("raise SystemExit('a report imports nothing')")
    assert "my_data.py:load, ./my_net.py:Net" in run("report", "--full").out
    shown = json.loads(run("report", "--format", "json").out)["studies"][0]
    names = [shown[key] for key in ("study_name", "net", "data")]
    assert names == [NAME, "./my_net.py:Net", "./my_data.py:load"]
    assert shown["best"]["test_value"] is None
    for form in ("markdown", "csv", "html", "junit"):
        assert run("report", "--format", form).code == 0, form


def test_changed_code_under_the_same_name_is_refused_with_the_difference(run: Run, project: Path) -> None:
    mine = (*GRID, "--loss", "./my_loss.py:smooth")
    (project / "my_net.py").write_text(CODE["my_net"] + "\nfrom my_blocks import WIDTH\n")
    (project / "my_blocks.py").write_text("WIDTH = 8\n")
    assert run(*mine).code == 0
    for file in ("my_net.py", "my_data.py", "my_loss.py"):
        before = (project / file).read_text()
        (project / file).write_text(f"{before}\n# changed\n")
        assert_refused(run(*mine), 2, "another specification", f"code of ./{file}:", "--study-name")
        (project / file).write_text(before)
    (project / "my_blocks.py").write_text("WIDTH = 9\n")
    assert_refused(run(*mine), 2, "my_blocks.py' has changed on disk since it was imported; restart")
    del sys.modules["my_blocks"]  # as in a new process
    assert_refused(run(*mine), 2, "another specification", "code of ./my_net.py:Net", "--study-name")
    assert run(*mine, "--study-name", "another").code == 0


def test_former_study_in_which_gains_decayed_is_refused_and_no_other(run: Run) -> None:
    options = ("--data", "my_data.py:load", *AXES, "--no-decay-norm-bias", "--study-name")
    commands = [("grid", "--net", f"./my_norms.py:{name}", *options, name) for name in ("flat", "lead")]
    for command in commands:
        some = "2 of 6 tensors decay: body.weight, head.weight; without decay: body.bias, norm.weight"
        assert some in run(*command).err
        assert some in " ".join(run("report", "--full").out.split())
        rewrite_spec(Path(STORE), command[-1], lambda spec: spec["training"].pop("undecayed", None))
    flat, lead = (run(*command) for command in commands)
    assert "nothing to train" in flat.err
    assert_refused(lead, 2, "(undecayed: none, norm.weight, norm.bias: stored, asked for)")


def test_options_of_the_network_come_from_the_preset(run: Run, project: Path) -> None:
    preset, mine = project / "mine.toml", ("grid", "--preset", "mine.toml", *AXES)
    text = '[training]\nnet = "./my_net.py:Net"\ndata = "./my_data.py:load"\nepochs = 2\nbatch_size = 16\n'
    preset.write_text(f"{text}[net.options]\nwidth = 3\n")
    assert run(*mine).code == 0
    assert "-width-3: " in run(*mine).err
    assert "network's options" in run("report", "--full").out
    shown = run("preset", "show", "mine.toml", "--no-estimate")
    assert (shown.code, "(64 train, 32 validation, 0 test)" in shown.out) == (0, True)
    preset.write_text(f"{text}[net.options]\nwidht = 3\n")
    assert_refused(run(*mine), 2, "unknown option", "'widht'; did you mean")


def test_wrong_options_are_refused_in_one_line_and_leave_no_study(run: Run, project: Path) -> None:
    for options, complaint in (
        ("--net ./my_net.py", "write package.module:NAME or ./file.py:NAME"),
        ("--net ./my_data.py:load", "it returns tuple; return a torch.nn.Module"),
        ("--data ./my_net.py:Net", "wants 'num_classes', which nothing gives"),
        ("--loss ./my_data.py:load", "--loss ./my_data.py:load raised TypeError"),
        ("--batch-size 65", "larger than the training set of ./my_data.py:load (64)"),
        ("--engine native", "not written for ./my_net.py:Net; choose auto, vmap or loop"),
        ("--data-dir x", "--data-dir has no effect on ./my_data.py:load"),
        ("--augment crop-flip", "./my_data.py:load holds no images"),
        ("--no-decay gain", "--no-decay gain matches no parameter of ./my_net.py:Net that trains"),
        ("--standardize", "--standardize is for images as uint8"),
    ):
        assert_refused(run(*GRID, *options.split()), 2, complaint)
    assert not Path(STORE).exists() or run("study", "list").code == 4
    (project / "my_data.py").write_text("def load():\n    return open('missing.pt')\n")
    assert_refused(run(*GRID), 3, "--data ./my_data.py:load raised FileNotFoundError", "my_data.py, line 2")
