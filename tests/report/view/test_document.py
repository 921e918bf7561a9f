"""The JSON document keeps its contract, which the package ships as a JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lrwd_sweep.report.gates import Gate, MaxAbsSlope, MaxBest, MinSeeds, NoEdge, Require
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.view.document import document, dumps
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.separability import Verdict
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from tests import studies
from tests.report.view.examples import HOSTILE, study
from tests.report.view.schema import faults, shipped

CONTRACT = {
    "": {"schema_version", "studies", "comparisons"},
    "study": {
        "study_name", "optimizer", "family", "decay_rule", "formula", "metric", "schedule", "net", "data",
        "epochs", "seeds", "axes", "counts", "best", "separability", "cells",
    },
    "best": {
        "lr", "weight_decay", "value", "sem", "on_edge", "test_value", "conventions", "timescale_epochs",
    },
    "counts": {"cells", "complete", "diverged", "failed", "missing"},
    "separability": {
        "verdict", "point_verdict", "reason", "ridge_slope", "curvature_coupling", "transfer_regret",
        "interaction_share", "top10_tilt", "basin", "slope_by_convention",
    },
    "estimate": {"value", "low", "high"},
    "cell": {"lr", "weight_decay", "value", "sem", "status", "seeds"},
    "comparison": {"a", "b", "slope_difference", "regret_ratio", "best_difference", "verdict"},
}  # fmt: skip


def grid(
    rows: int = 5, columns: int = 5, *, seeds: int = 3, kept: float = 1.0, kind: Kind = Kind.GRID
) -> Result:
    """A noisy bowl with a λ = 0 column, of which a share of the lanes is trained."""
    random = np.random.default_rng(rows + columns)
    spec = replace(
        study().spec,
        kind=kind,
        lattice=Lattice(tuple(2.0 ** np.arange(rows)), (0.0, *(3.0 ** np.arange(columns - 1)))),
        seeds=tuple(range(seeds)),
    )
    trials = []
    for k, cell in enumerate(spec.lattice.cells()):
        i, j = divmod(k, columns)
        for seed in spec.seeds:
            if k * seeds + seed < kept * rows * columns * seeds:
                value = 0.1 + 0.01 * ((i - rows // 2) ** 2 + (j - columns // 2) ** 2) + 1e-4 * random.normal()
                point = cell if kind is Kind.GRID else Cell(cell.lr * 1.1, cell.weight_decay)
                trials.append(Trial(point, seed, Status.COMPLETE, {"val_loss": value}))
    return result(f"{kind} {rows}×{columns}", spec, "2025-01-01T00:00:00Z", trials)


def sloped(name: str, slope: float, seeds: int = 4) -> Result:
    """A valley along which α may not move without λ, its noise that of the name."""
    found = studies.study(lambda a, b: 0.1 + 0.01 * (slope * a + b) ** 2 + 1e-3 * a**2, name, seeds=seeds)
    random = np.random.default_rng(ord(name))
    noisy = [
        replace(t, metrics={"val_loss": t.metrics["val_loss"] + 1e-3 * random.normal()}) for t in found.trials
    ]
    return result(name, found.spec, "", noisy)


def diverged() -> Result:
    """A study of which nothing is left."""
    found = grid()
    return result("x", found.spec, "", [Trial(t.cell, t.seed, Status.DIVERGED) for t in found.trials])


LION = Optimizer(None, DecayRule.LR_SCALED, "lion")
CASES = {
    "complete": [grid()],
    "large": [grid(11, 11, seeds=5)],
    "a diverged, a failed and a missing lane": [study()],
    "half trained": [grid(kept=0.5)],
    "never trained": [grid(kept=0)],
    "all diverged": [diverged()],
    "imported": [study(kind=Kind.IMPORT)],
    "imported under a free label": [study(HOSTILE, LION, kind=Kind.IMPORT)],
    "search": [grid(kind=Kind.TPE)],
    "one seed": [study(seeds=1)],
    "two seeds, no interval": [study(seeds=2)],
    "one row": [grid(1, 5)],
    "3×3": [grid(3, 3)],
    "compared": [study("a", "adam"), study("b", "sgd"), grid(11, 11)],
    "compared without common seeds": [study("a", seeds=1), study("b")],
    "compared with nothing": [study(), diverged()],
}


def text_of(results: Sequence[Result]) -> str:
    """The document of all results, compared with the first and judged by gates."""
    gates: list[Gate] = [MaxBest(1), MaxAbsSlope(0.1), Require(Verdict.SEPARABLE), NoEdge(), MinSeeds(2)]
    outcomes = [gate.check(result) for result in results for gate in gates]
    return dumps(document(results, [comparison(results[0], other) for other in results[1:]], outcomes))


def test_every_document_is_strict_json_within_the_schema() -> None:
    def refused(constant: str) -> None:
        raise AssertionError(constant)

    for case, results in CASES.items():
        text = text_of(results)
        assert faults(json.loads(text, parse_constant=refused), "report") == [], case
        assert text == text_of(results), case
        assert text.isascii(), case


def test_the_schema_requires_the_contract() -> None:
    schema = shipped("report")
    for name, keys in CONTRACT.items():
        described = schema["$defs"][name] if name else schema
        assert set(described["required"]) == keys


def test_the_schema_refuses_what_is_not_in_the_contract() -> None:
    text = text_of([study("a"), study("b")])
    cases: list[tuple[tuple[str | int, ...], object]] = [
        (("schema_version",), 2),
        (("studies", 0, "separability", "verdict"), "maybe"),
        (("studies", 0, "separability", "ridge_slope", "value"), "0.1"),
        (("studies", 0, "separability", "ridge_slope", "surprise"), 1),
        (("studies", 0, "cells", 0, "status"), None),
        (("studies", 0, "best", "sem"), -1),
        (("studies", 0, "surprise"), 1),
        (("comparisons", 0, "regret_ratio"), {"value": 1}),
        (("gates", 0, "passed"), "yes"),
    ]
    for path, value in cases:
        content = at = json.loads(text)
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value
        assert faults(content, "report"), path


def test_gates_are_present_only_if_requested() -> None:
    found = study()
    assert "gates" not in document([found])
    outcomes = [MaxBest(0.05).check(found), NoEdge().check(found)]
    assert [
        (gate["gate"], gate["limit"], gate["passed"]) for gate in document([found], (), outcomes)["gates"]
    ] == [
        ("max-best", 0.05, False),
        ("no-edge", "inside", True),
    ]


def test_a_regret_ratio_is_a_number_beside_its_interval() -> None:
    a, b = sloped("a", 0.9), sloped("b", 1.1)
    found = document([a, b], [comparison(a, b)])["comparisons"][0]
    assert found["regret_ratio"] == found["regret_ratio_interval"]["value"]
    assert (
        found["regret_ratio_interval"]["low"] < found["regret_ratio"] < found["regret_ratio_interval"]["high"]
    )


def test_a_regret_scored_in_sample_has_no_interval() -> None:
    found = document([sloped("a", 0.9, 2), sloped("b", 1.1, 3)])["studies"]
    in_sample, cross_scored = (each["separability"]["transfer_regret"][0] for each in found)
    assert (in_sample["in_sample"], in_sample["low"], in_sample["high"]) == (True, None, None)
    assert not cross_scored["in_sample"]
    assert cross_scored["low"] < cross_scored["value"] < cross_scored["high"]
    few = document([], [comparison(sloped("a", 0.9, 2), sloped("b", 1.1, 2))])["comparisons"][0]
    assert few["regret_ratio_interval"] == {"value": few["regret_ratio"], "low": None, "high": None}


def test_cells_hold_the_status_of_every_lane() -> None:
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


def test_unknown_fields_of_an_imported_study_are_null() -> None:
    label = Optimizer(None, DecayRule.LR_SCALED, HOSTILE)
    text = dumps(document([study(HOSTILE, label, kind=Kind.IMPORT)]))
    found = json.loads(text)["studies"][0]
    assert (found["family"], found["net"], found["schedule"], found["epochs"]) == (None,) * 4
    assert found["study_name"] == HOSTILE


def test_half_and_double_the_basin_are_in_the_document() -> None:
    found = document([grid(11, 11)])["studies"][0]["separability"]
    assert [other["basin"] for other in found["robustness"]] == [0.25, 1.0]
    assert found["baseline_gain"]["value"] is not None


def test_recommendations_equal_those_of_the_report() -> None:
    study_of = grid(5, 5, seeds=2)
    found = document([study_of])["studies"][0]["recommended"]
    expected = recommendations(study_of)
    assert [(cell["role"], cell["lr"], cell["weight_decay"]) for cell in found["cells"]] == [
        (cell.role, cell.cell.lr, cell.cell.weight_decay) for cell in expected.cells
    ]
    assert found["cells"][0]["lines"][0]["code"].startswith("torch.optim.AdamW(")
    assert found["next"][0]["command"] == expected.next[0].command_line
    assert "lrwd-sweep grid --optimizer adamw" in found["next"][0]["command"]


def test_without_a_cell_that_counts_there_is_only_a_next_step() -> None:
    found = document([diverged()])["studies"][0]["recommended"]
    assert found["cells"] == []
    assert found["why_not_forgiving"] == "no cell counts"
    assert "extend lr downward" in found["next"][0]["why"]


def test_means_of_incomplete_cells_are_stored_apart() -> None:
    every = [(i, j, seed) for i in range(7) for j in range(7) for seed in range(3)]
    stopped = studies.without(studies.study(), *(lane for lane in every if lane[2] or lane[0] == 6))
    (found,) = document([stopped])["studies"]
    assert found["runs"] == {"done": 42, "all": 147}
    assert found["best"] is None
    assert [cell["partial_value"] for cell in found["cells"]].count(None) == 7
    assert all(cell["value"] is None for cell in found["cells"])
    whole = document([studies.study()])["studies"][0]
    assert {cell["partial_value"] for cell in whole["cells"]} == {None}
