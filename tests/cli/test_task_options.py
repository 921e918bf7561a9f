"""Regression, tokens and labels of several kinds on the command line, with metrics in either direction."""

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run, assert_refused

CODE = """
import torch
from torch import nn

x = torch.randn(120, 5, generator=torch.Generator().manual_seed(0))
sign = (x[:, 0] > 0).long()

class Net(nn.Module):
    def __init__(self, num_outputs=1):
        super().__init__()
        self.body = nn.Linear(5, num_outputs)
    def forward(self, x):
        return self.body(x)

def split(x, y):
    return (x[:80], y[:80]), (x[80:], y[80:])

def numbers(): return split(x, 3 * x[:, 0] + 10)
def hot(): return split(x, (x[:, :2] > 0).float())
def items(): return [list(zip(*half)) for half in split(x, sign)]
def two(): return ((x[:80], x[:80]), sign[:80]), ((x[80:], x[80:]), sign[80:])
def tokens():
    ids = torch.arange(9).repeat(120, 1) % 5
    return split(ids[:, :-1], ids[:, 1:])
def reader(num_classes, num_tokens): return nn.Embedding(num_tokens, num_classes)
def closeness(outputs, targets): return -(outputs.flatten() - targets).abs().mean()
"""
REST = "--wd 2^-9,2^-7 --epochs 3 --seeds 1 --batch-size 16"
GRID, SMALL = f"--lr 2^-6:2^-1 {REST}", f"--lr 2^-6:2^-5 {REST}"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the user's file; forget what is imported from it."""
    (tmp_path / "kinds.py").write_text(CODE)
    monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 1)  # in a thread, without seconds of start
    monkeypatch.setattr(sys, "path", list(sys.path))


def _net(net: str, data: str) -> str:
    return f"--net ./kinds.py:{net} --data ./kinds.py:{data}"


def test_the_largest_value_is_best_where_higher_is_better(run: Run) -> None:
    own = "--metric ./kinds.py:closeness --maximize"
    numbers = f"-o adamw {_net('Net', 'numbers')} --loss mse --engine loop {GRID}"
    for metric, storage in (("--metric val_r2", "r2.db"), (own, "own.db")):
        done = run(*f"grid {numbers} {metric} --study-name s --storage {storage}".split())
        assert (done.code, "higher is better" in done.out) == (0, True), done.err
        (study,) = json.loads(run("report", "--format", "json", "--storage", storage).out)["studies"]
        values = {(cell["lr"], cell["weight_decay"]): cell["value"] for cell in study["cells"]}
        best = study["best"]
        assert (study["direction"], best["value"]) == ("maximize", max(values.values()))
        assert (best["lr"], best["weight_decay"]) == max(values, key=values.__getitem__)
        assert (best["lr"], "lr:high" in best["on_edge"]) == (0.5, True)
        for gate, code in (("-100", 0), ("100", 1)):
            assert run("report", "--storage", storage, "--min-best", gate).code == code
    again = run(*f"grid {numbers} {own} --study-name s --storage own.db".split())
    assert "12 of 12 lanes are in the store" in again.err
    searched = run(*f"tpe --trials 6 {numbers} {own} --storage tpe.db".split())
    assert searched.code == 0, searched.err
    assert own in " ".join(searched.out.split())


def test_every_kind_of_target_trains_and_is_reported_in_each_of_its_metrics(run: Run) -> None:
    for net, data, options, metrics in (
        ("reader", "tokens", "--metric val_perplexity", "val_loss val_error train_perplexity"),
        ("Net", "items", "--logit-decay 0.1", "val_loss"),
        ("Net", "hot", "--loss bce-with-logits --clip-norm 1", "train_loss"),
        ("Net", "numbers", "--loss huber --accumulate 2", "val_r2"),
    ):
        words = f"grid -o adamw {_net(net, data)} --engine loop {SMALL} {options} --storage {data}.db"
        done = run(*words.split())
        assert done.code == 0, done.err
        for metric in metrics.split():
            assert f"numbers: {metric}" in run("report", "--metric", metric, "--storage", f"{data}.db").out


def test_partly_frozen_networks_and_streamed_data_train_by_every_command(run: Run) -> None:
    for command in ("grid -o adamw", "compare adam sgdw", "tpe -o adamw --trials 4"):
        words = f"{command} {_net('Net', 'items')} {SMALL} --train weight"
        streamed = run(*words.split(), "--stream")
        assert streamed.code == 0, streamed.err
        out = " ".join(streamed.out.replace("\\", "").split())
        assert "--stream --epochs 3 --batch-size 16 --train weight" in out, command
        assert "nothing to train" in run(*words.split()).err, command  # the same study
    refused = "--train head matches no parameter of the network that could train; they are body"
    assert_refused(run(*words.replace("train weight", "train head").split()), 2, refused)


REGRESSION, HOT, EMBED = f"{_net('Net', 'numbers')} --loss mse", _net("Net", "hot"), "--net embed-norm"
REFUSED = (
    (_net("Net", "numbers"), "cross-entropy is not for the float targets of ./kinds.py:numbers; choose mse"),
    (HOT, "is not for the multi-hot targets of ./kinds.py:hot; choose mse, l1, huber or bce_with"),
    (
        f"{_net('Net', 'tokens')} --loss mse",
        "targets of ./kinds.py:tokens; make these integers floats, or choose",
    ),
    (f"{HOT} --loss bce", "unknown loss 'bce'; did you mean bce_with_logits?"),
    (f"{REGRESSION} --metric val_error", "; choose val_loss, val_r2, train_loss, train_r2"),
    (f"{REGRESSION} --metric val_r2 --minimize", "--minimize: a higher val_r2 is better; leave"),
    (f"{REGRESSION} --metric ./kinds.py:closeness", "is a higher or a lower 'val_closeness' better?"),
    (f"{REGRESSION} --clip-norm 0", "--clip-norm 0 leaves nothing of the gradients; choose more"),
    (f"{REGRESSION} --label-smoothing 0.1", "--label-smoothing has no effect on --loss mse; it is for"),
    (f"{REGRESSION} --accumulate 6", "--accumulate 6 batches of 16 are more than the training set of"),
    ("--logit-decay=-1", "--logit-decay '-1' is not a number"),
    ("--metric val_recall_at_1", "which mlp-norm does not give; choose --net embed"),
    (f"{EMBED} --data ./kinds.py:hot --loss bce_with_logits", "embed-norm takes one class per item, not"),
    ("--engine native --logit-decay 0.1", "native is not written for --logit-decay 0.1"),
    ("--net mlp --data ./kinds.py:tokens", "--net mlp takes one floating-point input, not inputs of"),
    ("--net mlp --data ./kinds.py:two", "--net mlp takes one floating-point input, not 2 inputs"),
    (_net("Net", "two"), "does not take inputs of 5 and 5: TypeError:"),
    ("--ensemble 2", "--ensemble has no effect on schedule cosine; add --schedule restarts"),
    ("--metric ema_val_loss", "is only measured by studies that train with --ema"),
    ("--sam x", "--sam 'x' is not a number of at least 0; write one like 0.05"),
)


def test_what_a_task_cannot_do_is_refused_in_one_line(run: Run) -> None:
    for options, complaint in REFUSED:
        assert_refused(run(*f"grid {options} {GRID}".split()), 2, complaint)


def test_averages_have_lattices_of_their_own(run: Run) -> None:
    grid = "--lr 2^-8:2^-6 --wd 2^-6:2^-4 --seeds 1 --epochs 7 --sam 0.05"
    assert run(*f"grid -o adamwr {grid} --t0 1 --swa 0.1 --ema 1 --ensemble 2".split()).code == 0
    found = {}
    for kind in ("", "swa_", "ema_", "ensemble_"):
        (study,) = json.loads(run("report", "--metric", f"{kind}val_loss", "--format", "json").out)["studies"]
        assert study["counts"]["complete"] == 9, kind
        found[kind] = study["best"]["value"]
    assert len(set(found.values())) == 4
    shown = run("report", "--metric", "swa_val_loss", "--full").out
    assert "# with SAM(rho=0.05), swa of the weights after epochs 1 to 7" in shown
    assert "--sam 0.05 --swa 0.1 --ema 1.0 --ensemble 2" in " ".join(shown.split())
    assert run("report", "--at-restart", "1", "--metric", "swa_val_loss").code == 0  # of one cycle
    search = f"tpe -o sgdw --trials 3 {grid} --swa 2 --metric swa_val_loss"
    searched = run(*search.split())
    assert (searched.code, "swa_val_loss" in searched.out) == (0, True)
