"""Regression, tokens and labels of several kinds on the command line, with metrics in either direction."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run, assert_refused

CODE = """
import torch
from torch import nn

stream = torch.Generator().manual_seed(0)
x = torch.randn(120, 5, generator=stream)

class Net(nn.Module):
    def __init__(self, num_outputs=1):
        super().__init__()
        self.body = nn.Linear(5, num_outputs)
    def forward(self, x):
        return self.body(x)

class Tokens(nn.Module):
    def __init__(self, num_classes, num_tokens):
        super().__init__()
        self.embed, self.head = nn.Embedding(num_tokens, 8), nn.Linear(8, num_classes)
    def forward(self, ids):
        return self.head(self.embed(ids))

def halves(x, y):
    return (x[:80], y[:80]), (x[80:], y[80:])

def numbers():
    return halves(x, 3 * x[:, 0] + 10)

def hot():
    return halves(x, (x[:, :2] > 0).float())

def tokens():
    ids = torch.arange(9).repeat(120, 1) % 5
    return halves(ids[:, :-1], ids[:, 1:])

def two():
    return halves_of_two(x)

def halves_of_two(x):
    y = (x[:, 0] > 0).long()
    return ((x[:80], x[:80]), y[:80]), ((x[80:], x[80:]), y[80:])

def items():
    return [list(zip(*half)) for half in halves(x, (x[:, 0] > 0).long())]

def closeness(outputs, targets):
    return -(outputs.flatten() - targets).abs().mean()
"""
GRID = ("--lr", "2^-6:2^-1", "--wd", "2^-9,2^-7", "--epochs", "3", "--seeds", "1", "--batch-size", "16")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the user's file; forget what is imported from it."""
    (tmp_path / "kinds.py").write_text(CODE)
    monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 1)  # in a thread, without seconds of start
    monkeypatch.setattr(sys, "path", list(sys.path))


def _net(net: str, data: str) -> tuple[str, ...]:
    return "--net", f"./kinds.py:{net}", "--data", f"./kinds.py:{data}"


def test_the_largest_value_is_best_where_higher_is_better(run: Run) -> None:
    numbers = (*_net("Net", "numbers"), "--loss", "mse", "--engine", "loop", *GRID)
    own = ("--metric", "./kinds.py:closeness", "--maximize")
    for options in (("--metric", "val_r2"), own):
        done = run(
            "grid",
            "-o",
            "adamw",
            *numbers,
            *options,
            "--study-name",
            "s",
            "--storage",
            f"{options[1][-4:]}.db",
        )
        assert done.code == 0, done.err
        assert "higher is better" in done.out
        report = run("report", "--format", "json", "--storage", f"{options[1][-4:]}.db")
        (study,) = json.loads(report.out)["studies"]
        values = {(cell["lr"], cell["weight_decay"]): cell["value"] for cell in study["cells"]}
        assert study["direction"] == "maximize"
        assert study["best"]["value"] == max(values.values())
        assert (study["best"]["lr"], study["best"]["weight_decay"]) == max(values, key=values.__getitem__)
        assert study["best"]["lr"] == 0.5
        assert "lr:high" in study["best"]["on_edge"]
        capped = run("report", "--cap", "-0.2", "--format", "json", "--storage", f"{options[1][-4:]}.db")
        (study,) = json.loads(capped.out)["studies"]
        out = {(c["lr"], c["weight_decay"]) for c in study["cells"] if c["status"] != "complete"}
        assert out <= {place for place, value in values.items() if value <= -0.2} or not out
        assert run("report", "--storage", f"{options[1][-4:]}.db", "--min-best", "-100").code == 0
        assert run("report", "--storage", f"{options[1][-4:]}.db", "--min-best", "100").code == 1
    again = run("grid", "-o", "adamw", *numbers, *own, "--study-name", "s", "--storage", "ness.db")
    assert "12 of 12 lanes are in the store" in again.err
    searched = run("tpe", "-o", "adamw", "--trials", "6", *numbers, *own, "--storage", "tpe.db")
    assert searched.code == 0, searched.err
    assert "--metric ./kinds.py:closeness --maximize" in " ".join(searched.out.split())


def test_every_kind_of_target_trains_and_is_reported_in_each_of_its_metrics(run: Run) -> None:
    for net, data, options, metrics in (
        ("Tokens", "tokens", ("--metric", "val_perplexity"), ("val_loss", "val_error", "train_perplexity")),
        ("Net", "items", ("--logit-decay", "0.1"), ("val_loss",)),
        ("Net", "hot", ("--loss", "bce-with-logits", "--clip-norm", "1"), ("train_loss",)),
        ("Net", "numbers", ("--loss", "huber", "--accumulate", "2"), ("val_r2",)),
    ):
        small = ["--engine", "loop", *GRID[:1], "2^-6:2^-5", *GRID[2:]]
        done = run("grid", "-o", "adamw", *_net(net, data), *small, *options, "--storage", f"{data}.db")
        assert done.code == 0, done.err
        for metric in metrics:
            report = run("report", "--metric", metric, "--storage", f"{data}.db")
            assert report.code == 0, report.err
            assert f"numbers: {metric}" in report.out


def test_partly_frozen_networks_and_streamed_data_train_by_every_command(run: Run) -> None:
    small = ("--lr", "2^-6:2^-5", *GRID[2:], "--train", "weight")
    for command in (
        ("grid", "-o", "adamw"),
        ("compare", "adam", "sgdw"),
        ("tpe", "-o", "adamw", "--trials", "4"),
    ):
        streamed = run(*command, *_net("Net", "items"), *small, "--stream")
        assert streamed.code == 0, streamed.err
        assert "--stream --epochs 3 --batch-size 16 --train weight" in " ".join(
            streamed.out.replace("\\", "").split()
        ), command
        held = run(*command, *_net("Net", "items"), *small)
        assert "nothing to train" in held.err, command  # the same study
    refused = run("tpe", "-o", "adamw", "--trials", "4", *_net("Net", "items"), *small[:-1], "head")
    assert_refused(
        refused, 2, "--train head matches no parameter of the network that could train; they are body"
    )


def test_what_a_task_cannot_do_is_refused_in_one_line(run: Run) -> None:
    numbers, hot, mse = _net("Net", "numbers"), _net("Net", "hot"), ("--loss", "mse")
    for options, complaint in (
        (
            numbers,
            "--loss cross-entropy is not for the float targets of ./kinds.py:numbers; choose mse, l1, huber",
        ),
        (hot, "is not for the multi-hot targets of ./kinds.py:hot; choose mse, l1, huber or bce_with"),
        ((*numbers, "--loss", "bce"), "unknown loss 'bce'; did you mean bce_with_logits?"),
        ((*numbers, *mse, "--metric", "val_error"), "; choose val_loss, val_r2, train_loss, train_r2"),
        (
            (*numbers, *mse, "--metric", "val_r2", "--minimize"),
            "--minimize: a higher val_r2 is better; leave",
        ),
        (
            (*numbers, *mse, "--metric", "./kinds.py:closeness"),
            "is a higher or a lower 'val_closeness' better?",
        ),
        ((*numbers, *mse, "--clip-norm", "0"), "--clip-norm 0 leaves nothing of the gradients; choose more"),
        (
            (*numbers, *mse, "--label-smoothing", "0.1"),
            "--label-smoothing has no effect on --loss mse; it is for",
        ),
        ((*numbers, *mse, "--logit-decay", "0.1"), "--logit-decay has no effect on --loss mse; it is for"),
        (("--logit-decay", "-1"), "--logit-decay '-1' is not a number"),
        (("--metric", "val_recall_at_1"), "which mlp-norm does not give; choose --net embed"),
        (
            ("--net", "embed-norm", "--metric", "val_recall_at_1", "--minimize"),
            "a higher val_recall_at_1 is better; leave",
        ),
        (
            ("--net", "embed-norm", *hot[2:], "--loss", "bce_with_logits"),
            "embed-norm takes one class per item, not",
        ),
        (("--engine", "native", "--logit-decay", "0.1"), "native is not written for --logit-decay 0.1"),
        (
            (*numbers, *mse, "--accumulate", "6"),
            "--accumulate 6 batches of 16 are more than the training set of",
        ),
        (
            ("--net", "mlp", *_net("Net", "tokens")[2:]),
            "--net mlp takes one floating-point input, not inputs of",
        ),
        (("--net", "mlp", *_net("Net", "two")[2:]), "--net mlp takes one floating-point input, not 2 inputs"),
        (_net("Net", "two"), "does not take inputs of 5 and 5: TypeError:"),
        (
            ("--engine", "native", "--label-smoothing", "0.1"),
            "--engine native is not written for --label-smoothing 0.1",
        ),
    ):
        assert_refused(run("grid", "-o", "adamw", *options, *GRID), 2, complaint)


def test_averages_have_lattices_of_their_own(run: Run) -> None:
    grid = ("--lr", "2^-8:2^-6", "--wd", "2^-6:2^-4", "--seeds", "1", "--epochs", "7", "--sam", "0.05")
    every = ("--t0", "1", "--swa", "0.1", "--ema", "1", "--ensemble", "2")
    assert run("grid", "-o", "adamwr", *grid, *every).code == 0
    found = {}
    for kind in ("", "swa_", "ema_", "ensemble_"):
        (study,) = json.loads(run("report", "--metric", f"{kind}val_loss", "--format", "json").out)["studies"]
        assert study["counts"]["complete"] == 9, kind
        found[kind] = study["best"]["value"]
    assert len(set(found.values())) == 4
    shown = run("report", "--metric", "swa_val_loss", "--full").out
    assert "# with SAM(rho=0.05), swa of the weights after epochs 1 to 7" in shown
    assert "--sam 0.05 --swa 0.1 --ema 1.0 --ensemble 2" in " ".join(shown.split())
    early = run("report", "--at-restart", "1", "--metric", "swa_val_loss")
    assert early.code == 0  # the average of one cycle
    searched = run(
        "tpe", "-o", "sgdw", "--trials", "3", "--epochs", "4", "--swa", "2", "--metric", "swa_val_loss"
    )
    assert (searched.code, "swa_val_loss" in searched.out) == (0, True)
    for options, complaint in (
        (("--ensemble", "2"), "--ensemble has no effect on schedule cosine; add --schedule restarts"),
        (("--metric", "ema_val_loss"), "is only measured by studies that train with --ema"),
        (("--run", "x {lr} {weight_decay}", "--sam", "0.1"), "--sam has no effect with --run; leave it out"),
        (("--sam", "x"), "--sam 'x' is not a number from 0"),
    ):
        assert_refused(run("grid", "-o", "adamw:independent", *grid[:4], *options), 2, complaint)
