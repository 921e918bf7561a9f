"""--cap, --maximize and --minimize decide which cells count and which end of a metric is better."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAMW, STORE, TINY, Run
from tests.studies import bowl, mirrored, plain, study


def only_study(run: Run, *arguments: str) -> Any:
    (found,) = json.loads(run("report", *arguments, "--format", "json").out)["studies"]
    return found


@pytest.fixture
def imported() -> None:
    """Store a study in which higher is better, and the same with lower as better."""
    with open_store(STORE, write=True) as store:
        for found in (mirrored(plain(study(bowl, "high"))), plain(study(bowl, "low"))):
            trials = [
                replace(t, metrics={**t.metrics, "val_acc": 1 - t.metrics["val_loss"]}) for t in found.trials
            ]
            store.import_study(found.name, found.spec, trials)


def test_a_cap_is_stored_with_the_study_and_belongs_to_its_metric(run: Run) -> None:
    assert run("grid", "--optimizer", "adamw", *TINY).code == 0
    assert only_study(run)["cap"] is None  # losses above a uniform guess count
    assert only_study(run)["best"] is not None
    for cap in ("1.5", "2.5"):
        again = run("grid", "--optimizer", "adamw", *TINY, "--cap", cap)
        assert "9 of 9 lanes are in the store; nothing to train" in again.err
        with open_store(STORE, write=False) as store:
            assert store.get_study(ADAMW).spec.given_cap == float(cap)
    assert "cells at or above the cap of 2.5 are out" in " ".join(run("report", "--full").out.split())
    assert only_study(run)["cap"] == 2.5
    assert only_study(run, "--metric", "val_error")["cap"] == 0.9
    assert only_study(run, "--metric", "val_error", "--cap", "0.5")["cap"] == 0.5


def test_a_cap_that_is_not_a_number_is_refused(run: Run) -> None:
    for command in ("grid", "compare", "tpe", "report"):
        for cap, why in (("high", "is not a number"), ("nan", "is not finite")):
            found = run(command, "--cap", cap)
            assert (found.code, found.err.count("\n")) == (2, 1), command
            assert found.err.startswith(f"lrwd-sweep: --cap '{cap}' {why}"), command


@pytest.mark.usefixtures("imported")
def test_direction_options_override_the_stored_direction(run: Run) -> None:
    high, low, turned = (only_study(run, *words) for words in (("high",), ("low",), ("high", "--minimize")))
    assert [each["direction"] for each in (high, low, turned)] == ["maximize", "minimize", "minimize"]
    assert high["best"]["lr"] == low["best"]["lr"]
    assert turned["best"]["value"] < high["best"]["value"]
    assert run("report", "high", "--minimize", "--maximize").code == 2
    found = run("report", "high", "low")
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "a higher val_loss is better in study 'high', a lower one in 'low'" in found.err
    assert run("report", "high", "low", "--minimize").code == 0


@pytest.mark.usefixtures("imported")
def test_gates_on_the_best_know_the_direction(run: Run) -> None:
    assert run("report", "high", "--min-best", "-0.2").code == 0
    assert run("report", "high", "--min-best", "0").code == 1
    for name, gate, better, other in (("high", "max", "higher", "min"), ("low", "min", "lower", "max")):
        wrong = run("report", name, f"--{gate}-best", "0")
        why = f"in study '{name}' a {better} val_loss is better; give --{other}-best 0.0"
        assert (wrong.code, wrong.err) == (2, f"lrwd-sweep: --{gate}-best 0.0: {why}\n")


@pytest.mark.usefixtures("imported")
def test_a_metric_whose_name_implies_higher_needs_a_direction(run: Run) -> None:
    refused = run("report", "low", "--metric", "val_acc")
    assert (refused.code, refused.out) == (2, "")
    assert "add --maximize, or --minimize if lower is better" in refused.err
    read = only_study(run, "low", "--metric", "val_acc", "--maximize")
    assert (read["direction"], read["best"]["lr"]) == ("maximize", only_study(run, "low")["best"]["lr"])


@pytest.mark.usefixtures("imported")
def test_optuna_export_keeps_the_direction(run: Run) -> None:
    assert run("study", "export", "high", "--format", "optuna", "--output", "o.db").code == 0
    import optuna

    assert optuna.load_study(study_name="high", storage="sqlite:///o.db").direction.name == "MAXIMIZE"
