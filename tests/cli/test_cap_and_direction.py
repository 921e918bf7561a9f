"""--cap, --maximize and --minimize: what counts, and which end of a metric is better."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lrwd_sweep.science.trial import Direction
from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAMW, STORE, TINY, Run
from tests.studies import bowl, mirrored, plain, study


@pytest.fixture
def imported() -> None:
    """A study in which higher is better, and the same with lower as better."""
    with open_store(STORE, write=True) as store:
        for found in (mirrored(plain(study(bowl, "high"))), plain(study(bowl, "low"))):
            store.import_study(found.name, found.spec, found.trials)


def test_a_cap_is_stored_with_the_study_and_belongs_to_its_metric(run: Run) -> None:
    found = run("grid", "--optimizer", "adamw", *TINY, "--cap", "1.5")
    assert found.code == 0
    with open_store(STORE, write=False) as store:
        assert store.get_study(ADAMW).spec.given_cap == 1.5
    assert "cells at or above the cap of 1.5 are out" in " ".join(run("report").out.split())
    (as_stored,) = json.loads(run("report", "--format", "json").out)["studies"]
    assert as_stored["cap"] == 1.5
    (other,) = json.loads(run("report", "--format", "json", "--metric", "val_error").out)["studies"]
    assert other["cap"] == 0.9
    (asked,) = json.loads(run("report", "--format", "json", "--metric", "val_error", "--cap", "0.5").out)[
        "studies"
    ]
    assert asked["cap"] == 0.5
    again = run("grid", "--optimizer", "adamw", *TINY, "--cap", "2.5")
    assert "9 of 9 lanes are in the store; nothing to train" in again.err
    with open_store(STORE, write=False) as store:
        assert store.get_study(ADAMW).spec.given_cap == 2.5


def test_a_cap_that_is_not_a_number_is_refused(run: Run) -> None:
    for command in ("grid", "compare", "tpe", "report"):
        for cap, why in (("high", "is not a number"), ("nan", "is not finite")):
            found = run(command, "--cap", cap)
            assert found.code == 2, command
            assert found.err.startswith(f"lrwd-sweep: --cap '{cap}' {why}"), command
            assert found.err.count("\n") == 1, command


def test_losses_above_a_uniform_guess_count(run: Run, compared: Path) -> None:
    (study,) = json.loads(run("report", ADAMW, "--format", "json").out)["studies"]
    assert study["cap"] is None
    assert study["best"] is not None


@pytest.mark.usefixtures("imported")
def test_direction_options_override_the_stored_direction(run: Run) -> None:
    (high,) = json.loads(run("report", "high", "--format", "json").out)["studies"]
    (low,) = json.loads(run("report", "low", "--format", "json").out)["studies"]
    assert (high["direction"], low["direction"]) == ("maximize", "minimize")
    assert high["best"]["lr"] == low["best"]["lr"]
    (turned,) = json.loads(run("report", "high", "--minimize", "--format", "json").out)["studies"]
    assert turned["direction"] == "minimize"
    assert turned["best"]["value"] < high["best"]["value"]
    assert run("report", "high", "--minimize", "--maximize").code == 2


@pytest.mark.usefixtures("imported")
def test_two_directions_are_not_compared_in_one_report(run: Run) -> None:
    found = run("report", "high", "low")
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "a higher val_loss is better in study 'high', a lower one in 'low'" in found.err
    assert run("report", "high", "low", "--minimize").code == 0


@pytest.mark.usefixtures("imported")
def test_gates_on_the_best_know_the_direction(run: Run) -> None:
    assert run("report", "high", "--min-best", "-0.2").code == 0
    assert run("report", "high", "--min-best", "0").code == 1
    wrong = run("report", "high", "--max-best", "0")
    assert wrong.code == 2
    assert wrong.err == (
        "lrwd-sweep: --max-best 0: in study 'high' a higher val_loss is better; give --min-best 0\n"
    )
    assert run("report", "low", "--min-best", "0").err.endswith("give --max-best 0\n")


def test_another_metric_whose_name_says_higher_needs_a_direction(run: Run) -> None:
    found = plain(study(bowl, "low"))
    trials = [replace(t, metrics={**t.metrics, "val_acc": 1 - t.metrics["val_loss"]}) for t in found.trials]
    with open_store(STORE, write=True) as store:
        store.import_study("low", found.spec, trials)
    refused = run("report", "--metric", "val_acc")
    assert (refused.code, refused.out) == (2, "")
    assert "add --maximize, or --minimize if lower is better" in refused.err
    (read,) = json.loads(run("report", "--metric", "val_acc", "--maximize", "--format", "json").out)[
        "studies"
    ]
    assert read["direction"] == Direction.MAXIMIZE
    assert (read["best"]["lr"], read["best"]["weight_decay"]) == (found.best.lr, found.best.weight_decay)  # type: ignore[union-attr]


def test_optuna_export_keeps_the_direction(run: Run, imported: None) -> None:
    assert run("study", "export", "high", "--format", "optuna", "--output", "o.db").code == 0
    import optuna

    assert optuna.load_study(study_name="high", storage="sqlite:///o.db").direction.name == "MAXIMIZE"
