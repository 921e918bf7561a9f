"""The JSON document keeps its contract."""

from __future__ import annotations

import json

import pytest

from lrwd_sweep.decay import DecayRule, Optimizer
from lrwd_sweep.result import comparison
from lrwd_sweep.spec import Kind
from lrwd_sweep.view.document import document, dumps
from tests.view.examples import HOSTILE, study


def test_keys_are_those_of_schema_version_1() -> None:
    a, b = study("a", "adam"), study("b", "adamw")
    content = json.loads(dumps(document([a, b], [comparison(a, b)])))
    assert list(content) == ["schema_version", "studies", "comparisons"]
    assert content["schema_version"] == 1
    found = content["studies"][1]
    assert list(found) == [
        "study_name",
        "optimizer",
        "family",
        "decay_rule",
        "formula",
        "metric",
        "schedule",
        "net",
        "data",
        "epochs",
        "seeds",
        "axes",
        "counts",
        "best",
        "separability",
        "cells",
    ]
    assert set(found["axes"]) == {"lr", "weight_decay"}
    assert set(found["best"]) == {
        "lr",
        "weight_decay",
        "value",
        "sem",
        "on_edge",
        "test_value",
        "conventions",
        "timescale_epochs",
    }
    assert set(found["best"]["conventions"]) == {"independent", "lr-scaled", "coupled", "normalized"}
    assert set(found["separability"]) == {
        "verdict",
        "point_verdict",
        "reason",
        "ridge_slope",
        "curvature_coupling",
        "transfer_regret",
        "interaction_share",
        "top10_tilt",
        "basin",
        "slope_by_convention",
    }
    assert set(found["separability"]["ridge_slope"]) == {"value", "low", "high", "rows"}
    assert set(found["separability"]["slope_by_convention"]) == {"independent", "lr-scaled"}
    assert set(found["cells"][0]) == {"lr", "weight_decay", "value", "sem", "status", "seeds"}
    assert set(content["comparisons"][0]) == {
        "a",
        "b",
        "slope_difference",
        "regret_ratio",
        "best_difference",
        "verdict",
    }


def test_cells_tell_what_became_of_every_lane() -> None:
    found = document([study()])["studies"][0]
    assert found["counts"] == {"cells": 25, "complete": 22, "diverged": 1, "failed": 1, "missing": 1}
    assert [cell["status"] for cell in found["cells"][:4]] == ["diverged", "failed", "missing", "complete"]
    first = found["cells"][0]
    assert (first["value"], first["seeds"][0]) == (None, {"seed": 0, "value": None, "status": "diverged"})


def test_a_best_cell_is_given_with_its_test_value_and_in_every_convention() -> None:
    best = document([study()])["studies"][0]["best"]
    assert best["test_value"] == pytest.approx(best["value"] + 0.01)
    assert best["conventions"]["lr-scaled"] == pytest.approx(best["weight_decay"] / best["lr"])
    assert best["timescale_epochs"] == pytest.approx(1 / best["weight_decay"] / 6)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_text_is_strict_json_and_the_same_every_time(seeds: int) -> None:
    text = dumps(document([study(seeds=seeds)]))
    assert text == dumps(document([study(seeds=seeds)]))
    assert "NaN" not in text
    assert "Infinity" not in text


def test_an_imported_study_has_null_where_nobody_told_us() -> None:
    label = Optimizer(None, DecayRule.LR_SCALED, HOSTILE)
    text = dumps(document([study(HOSTILE, label, kind=Kind.IMPORT)]))
    found = json.loads(text)["studies"][0]
    assert (found["family"], found["net"], found["schedule"], found["epochs"]) == (None,) * 4
    assert found["study_name"] == HOSTILE
    assert text.isascii()
    assert "\x1b" not in text
