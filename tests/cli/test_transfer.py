"""`transfer` trains a lattice for every value of a scale, once, and says what moves."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lrwd_sweep.spec.over import Over
from lrwd_sweep.spec.request import Request
from lrwd_sweep.store import open_store
from tests.cli.conftest import STORE, Run, assert_refused, strict

AXES = ("--lr", "2^-8:2^-5", "--wd", "2^-9:2^-6", "--seeds", "3")
EPOCHS = ("transfer", "--over", "epochs=2,3,4", *AXES)


def test_transfer_reports_exponents_rules_and_cost_and_trains_once(run: Run) -> None:
    first = run(*EPOCHS)
    assert first.code == 0, first.err
    for text in ("epochs 2", "best α", "τ in epochs", "val_loss", "λ ∝ 1/√N", "keep α and λ"):
        assert text in first.out, text
    assert first.out.splitlines()[-1].startswith("the best cell of epochs 2 at epochs 4 costs ")
    with open_store(STORE, write=False) as store:
        names = store.latest()
        assert [store.count_lanes(name) for name in names] == [48, 48, 48]
    again = run(*EPOCHS, "--format", "json")
    assert "nothing to train" in again.err
    found = strict(again.out)
    scales = [(scale["value"], scale["study_name"]) for scale in found["scales"]]
    assert scales == list(zip((2, 3, 4), names, strict=True))
    rows = list(csv.DictReader(io.StringIO(run(*EPOCHS, "--format", "csv").out)))
    assert [row["epochs"] for row in rows] == ["2.0", "3.0", "4.0"]
    assert float(rows[0]["val_loss"]) == found["scales"][0]["best"]
    drawn = run(*EPOCHS, "--format", "html", "--output", "a.html", "--figure", "a.pdf")
    assert (drawn.code, drawn.out) == (0, ""), drawn.err
    assert Path("a.pdf").read_bytes().startswith(b"%PDF-")
    assert "How the best values move" in Path("a.html").read_text()
    cost = found["carry_regret"]["value"]
    assert run(*EPOCHS, "--max-carry-regret", str(cost + 1)).code == 0
    assert cost <= 0 or run(*EPOCHS, "--max-carry-regret", str(cost / 2)).code == 1


def test_other_scales_change_what_they_name() -> None:
    for scale, name, low, high in (
        ("width=8,16", "net_options", '{"width": 8}', '{"width": 16}'),
        ("batch-size=32,64", "batch_size", 32, 64),
        ("train-fraction=0.5,1", "train_fraction", 0.5, None),
    ):
        specs = Over.parse(scale).specs(Request.of(epochs=2), None, lambda spec: spec)
        assert [getattr(spec.task, name) for spec in specs.values()] == [low, high], scale


def test_bad_scales_are_refused_in_one_line(run: Run) -> None:
    for given, part in (
        ("", "--over is required: write --over epochs=15,60,240"),
        ("--over epochs", "--over epochs names no values; write epochs=15,60,240"),
        ("--over epochs=3", "has one value; a scale needs two or more"),
        ("--over epochs=3,4 --figure a.gif", "unknown figure format '.gif'"),
        ("--over epochs=3,4 --figure a.svg --output a.svg", "are both a.svg; name two files"),
        ("--over epochs=3,4 --over width=8,9", "--over is given 2 times; sweep over one quantity"),
        ("--over epochs=3,4 --epochs 60", "--epochs 60 has no effect: --over sets it"),
        ("--over width=8,9 --net-options width=7", "--net-options width=7 has no effect: --over"),
        ("--over epochs=3,4 --shard 1/2 --format csv", "has no effect with --shard 1/2"),
        ("--over epochs=3,4 --full --format json", "--full adds nothing to json; choose table"),
        ("--over epoch=3,4", "unknown scale 'epoch'; did you mean epochs?"),
        ("--over epochs=3,x", "'x' is not a number"),
        ("--over epochs=1.5,2", "1.5 is not a whole number of at least 1"),
        ("--over width=4,8 --net resnet20", "--net-options width=4 has no effect on resnet20"),
        ("--over train-fraction=0.5,2", "2 is not a share above 0, and at most 1"),
        ("--over train-fraction=0.01,1", "is larger than --train-fraction 0.01 of the training set of"),
        ("--over epochs=1,2 --run x{lr}{weight_decay}", "--run cannot be swept over epochs"),
    ):
        assert_refused(run("transfer", *given.split()), 2, part)
