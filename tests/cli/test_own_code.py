"""User code on the command line: networks, data, losses and metrics, from their files to a report."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrwd_sweep.store import open_store
from tests.cli.conftest import STORE, Patch, Run, assert_refused, reported
from tests.store.sample import rewrite_spec

CODE = {
    "my_net.py": """
from torch import nn, ones
print("loading the network")

def Net(num_classes, input_shape, width=8):
    body = nn.Linear(input_shape[0], width, bias=False), nn.BatchNorm1d(width), nn.ReLU()
    return nn.Sequential(*body, nn.Linear(width, num_classes))

class Gains(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(5, 8), nn.Module(), nn.Linear(8, 2)
        self.norm.weight, self.norm.bias = (nn.Parameter(ones(shape) * k) for k in (1, 0))
    def forward(self, x):
        x = nn.functional.layer_norm(self.body(x), (8,))
        return self.head((self.norm.weight * x + self.norm.bias).relu())

def lead(): return Gains(1, 8)
def flat(): return Gains(8)
def line(num_outputs=1): return nn.Linear(5, num_outputs)
def reader(num_classes, num_tokens): return nn.Embedding(num_tokens, num_classes)
""",
    "my_data.py": """
import torch
x = torch.randn(120, 5, generator=torch.Generator().manual_seed(0))
sign = (x[:, 0] > 0).long()

def load():
    print("loading the data")
    return (x[:64], sign[:64]), (x[64:96], sign[64:96])
def split(x, y):
    return (x[:80], y[:80]), (x[80:], y[80:])
def numbers(): return split(x, 3 * x[:, 0] + 10)
def hot(): return split(x, (x[:, :2] > 0).float())
def items(): return [list(zip(*half)) for half in split(x, sign)]
def two(): return ((x[:80], x[:80]), sign[:80]), ((x[80:], x[80:]), sign[80:])
def tokens():
    ids = torch.arange(9).repeat(120, 1) % 5
    return split(ids[:, :-1], ids[:, 1:])
""",
    "my_loss.py": """
from torch.nn.functional import cross_entropy
def smooth(logits, y): return cross_entropy(logits, y, label_smoothing=0.1)
def closeness(outputs, targets): return -(outputs.flatten() - targets).abs().mean()
""",
}
AXES = "--lr 2^-4:2^-3 --wd 2^-8:2^-7 --epochs 2 --seeds 1 --batch-size 16"
GRID = f"grid --net ./my_net.py:Net --data my_data.py:load {AXES}"
NAME = "my_data-load-my_net-net-adamw-cosine-2ep-b16"
REST = "--wd 2^-9,2^-7 --epochs 3 --seeds 1 --batch-size 16"
KEYS = ("value", "lr", "weight_decay")
LARGE, SMALL = f"--lr 2^-6:2^-1 {REST}", f"--lr 2^-6:2^-5 {REST}"


@pytest.fixture(autouse=True)
def _project(_empty_directory: None, monkeypatch: Patch) -> Iterator[None]:
    """Make a folder with the files; forget what is imported from it."""
    for name, text in CODE.items():
        Path(name).write_text(text)
    monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 1)  # in a thread, without seconds of start
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def test_user_code_trains_once_and_is_reported_without_its_files(run: Run, monkeypatch: Patch) -> None:
    mine = f"grid --preset mine.toml {AXES}"
    text = '[training]\nnet = "./my_net.py:Net"\ndata = "./my_data.py:load"\nepochs = 2\nbatch_size = 16\n'
    Path("mine.toml").write_text(f"{text}[net.options]\nwidth = 3\n")
    run(mine, code=0)
    assert "-width-3: " in run(mine).err
    assert "network's options" in run("report --full").out
    assert "(64 train, 32 validation, 0 test)" in run("preset show mine.toml --no-estimate", code=0).out
    found = run(f"{GRID} --engine vmap", code=0)
    assert (found.err.count("loading the data"), "loading" in found.out) == (1, False)
    assert "4 of 4 lanes are in the store; nothing to train" in run(GRID).err
    run(f"{GRID} --seeds 2", code=0)
    with open_store(STORE, write=False) as store:
        task = store.get_study(NAME).spec.task
        assert task is not None
        assert task.engine == "vmap"  # kept by the extended study
    for name in ("my_net.py", "my_data.py"):
        Path(name).write_text("raise SystemExit('a report imports nothing')")
    Path("elsewhere").mkdir()
    shutil.move(STORE, "elsewhere")
    monkeypatch.chdir("elsewhere")
    assert "my_data.py:load, ./my_net.py:Net" in run("report --full").out
    shown = reported(run)
    names = [shown[key] for key in ("study_name", "net", "data")]
    assert names == [NAME, "./my_net.py:Net", "./my_data.py:load"]
    assert shown["best"]["test_value"] is None
    for form in ("markdown", "csv", "html", "junit"):
        run(f"report --format {form}", code=0)


def test_changed_code_and_former_decay_of_gains_are_refused_with_the_difference(run: Run) -> None:
    mine = f"{GRID} --loss ./my_loss.py:smooth"
    Path("my_net.py").write_text(CODE["my_net.py"] + "\nfrom my_blocks import WIDTH\n")
    Path("my_blocks.py").write_text("WIDTH = 8\n")
    run(mine, code=0)
    for file in map(Path, CODE):
        before = file.read_text()
        file.write_text(f"{before}\n# changed\n")
        assert_refused(run(mine), 2, "another specification", f"code of ./{file}:", "--study-name")
        file.write_text(before)
    Path("my_blocks.py").write_text("WIDTH = 9\n")
    assert_refused(run(mine), 2, "my_blocks.py' has changed on disk since it was imported; restart")
    del sys.modules["my_blocks"]  # as in a new process
    assert_refused(run(mine), 2, "another specification", "code of ./my_net.py:Net", "--study-name")
    run(f"{mine} --study-name another", code=0)
    grid = f"grid --data my_data.py:load {AXES} --no-decay-norm-bias"
    commands = {name: f"{grid} --net ./my_net.py:{name} --study-name {name}" for name in ("flat", "lead")}
    for name, command in commands.items():
        some = "2 of 6 tensors decay: body.weight, head.weight; without decay: body.bias, norm.weight"
        assert some in run(command).err
        assert some in " ".join(run("report --full").out.split())
        rewrite_spec(Path(STORE), name, lambda spec: spec["training"].pop("undecayed", None))
    flat, lead = map(run, commands.values())
    assert "nothing to train" in flat.err
    assert_refused(lead, 2, "(undecayed: none, norm.weight, norm.bias: stored, asked for)")


def _net(net: str, data: str) -> str:
    return f"--net ./my_net.py:{net} --data ./my_data.py:{data}"


def test_the_largest_value_is_best_where_higher_is_better(run: Run) -> None:
    own = "--metric ./my_loss.py:closeness --maximize"
    numbers = f"-o adamw {_net('line', 'numbers')} --loss mse --engine loop {LARGE}"
    for metric, storage in (("--metric val_r2", "r2.db"), (own, "own.db")):
        assert "higher is better" in run(f"grid {numbers} {metric} --study-name s --storage {storage}").out
        study = reported(run, f"--storage {storage}")
        best = max(study["cells"], key=lambda cell: cell["value"])
        assert (study["direction"], "lr:high" in study["best"]["on_edge"]) == ("maximize", True)
        assert {key: study["best"][key] for key in KEYS} == {key: best[key] for key in KEYS}
        for gate, code in (("-100", 0), ("100", 1)):
            run(f"report --storage {storage} --min-best={gate}", code=code)
    again = run(f"grid {numbers} {own} --study-name s --storage own.db")
    assert "12 of 12 lanes are in the store" in again.err
    searched = run(f"tpe --trials 6 {numbers} {own} --storage tpe.db", code=0)
    assert own in " ".join(searched.out.split())


def test_every_kind_of_target_and_frozen_or_streamed_training_is_reported(run: Run) -> None:
    for net, data, options, metrics in (
        ("reader", "tokens", "--metric val_perplexity", "val_loss val_error train_perplexity"),
        ("line", "items", "--logit-decay 0.1", "val_loss"),
        ("line", "hot", "--loss bce-with-logits --clip-norm 1", "train_loss"),
        ("line", "numbers", "--loss huber --accumulate 2", "val_r2"),
    ):
        store = f"--storage {data}.db"
        run(f"grid -o adamw {_net(net, data)} --engine loop {SMALL} {options} {store}", code=0)
        for metric in metrics.split():
            assert f"numbers: {metric}" in run(f"report --metric {metric} {store}").out
    for command in ("grid -o adamw", "compare adam sgdw", "tpe -o adamw --trials 4"):
        words = f"{command} {_net('line', 'items')} {SMALL} --train weight"
        out = " ".join(run(f"{words} --stream", code=0).out.replace("\\", "").split())
        assert "--stream --epochs 3 --batch-size 16 --train weight" in out, command
        assert "nothing to train" in run(words).err, command  # the same study


def test_averages_have_lattices_of_their_own(run: Run) -> None:
    grid = "--lr 2^-8:2^-6 --wd 2^-6:2^-4 --seeds 1 --epochs 7 --sam 0.05"
    run(f"grid -o adamwr {grid} --t0 1 --swa 0.1 --ema 1 --ensemble 2", code=0)
    studies = [reported(run, f"--metric {kind}val_loss") for kind in ("", "swa_", "ema_", "ensemble_")]
    assert [study["counts"]["complete"] for study in studies] == [9] * 4
    assert len({study["best"]["value"] for study in studies}) == 4
    shown = run("report --metric swa_val_loss --full").out
    assert "# with SAM(rho=0.05), swa of the weights after epochs 1 to 7" in shown
    assert "--sam 0.05 --swa 0.1 --ema 1.0 --ensemble 2" in " ".join(shown.split())
    run("report --at-restart 1 --metric swa_val_loss", code=0)  # of one cycle
    assert "swa_val_loss" in run(f"tpe -o sgdw --trials 3 {grid} --swa 2 --metric swa_val_loss", code=0).out


NUMBERS, HOT = f"{_net('line', 'numbers')} --loss mse", _net("line", "hot")
OWN = "--net ./my_net.py:Net --data my_data.py:load"
REFUSED = (
    (f"{OWN} --net ./my_net.py", "write package.module:NAME or ./file.py:NAME"),
    (f"{OWN} --loss ./my_data.py:load", "--loss ./my_data.py:load raised TypeError"),
    (f"{OWN} --data-dir x", "--data-dir has no effect on ./my_data.py:load"),
    (f"{OWN} --augment crop-flip", "./my_data.py:load holds no images"),
    (_net("line", "numbers"), "is not for the float targets of ./my_data.py:numbers; choose mse"),
    (f"{_net('reader', 'tokens')} --loss mse", "my_data.py:tokens; make these integers floats, or choose"),
    (HOT, "is not for the multi-hot targets of ./my_data.py:hot; choose mse, l1, huber or bce_with"),
    (f"{HOT} --loss bce", "unknown loss 'bce'; did you mean bce_with_logits?"),
    (f"{NUMBERS} --metric val_error", "; choose val_loss, val_r2, train_loss, train_r2"),
    (f"{NUMBERS} --metric val_r2 --minimize", "--minimize: a higher val_r2 is better; leave"),
    (f"{NUMBERS} --metric ./my_loss.py:closeness", "is a higher or a lower 'val_closeness' better?"),
    (f"{NUMBERS} --clip-norm 0", "--clip-norm 0 leaves nothing of the gradients; choose more"),
    (f"{NUMBERS} --label-smoothing 0.1", "--label-smoothing has no effect on --loss mse; it is for"),
    (f"{NUMBERS} --accumulate 6", "--accumulate 6 batches of 16 are more than the training set of"),
    ("--logit-decay=-1", "--logit-decay '-1' is not a number"),
    ("--metric val_recall_at_1", "which mlp-norm does not give; choose --net embed"),
    (f"{HOT} --loss bce_with_logits --net embed-norm", "embed-norm takes one class per item, not"),
    (f"{_net('line', 'two')} --net mlp", "--net mlp takes one floating-point input, not 2 inputs"),
    ("--ensemble 2", "--ensemble has no effect on schedule cosine; add --schedule restarts"),
    ("--metric ema_val_loss", "is only measured by studies that train with --ema"),
    ("--sam x", "--sam 'x' is not a number of at least 0; write one like 0.05"),
)


def test_what_code_or_task_cannot_do_is_refused_in_one_line_and_leaves_no_study(run: Run) -> None:
    for options, complaint in REFUSED:
        assert_refused(run(f"grid {LARGE} {options}"), 2, complaint)
    assert not Path(STORE).exists() or run("study list").code == 4
    Path("my_data.py").write_text("def load():\n    return open('missing.pt')\n")
    assert_refused(run(GRID), 3, "--data ./my_data.py:load raised FileNotFoundError", "my_data.py, line 2")
