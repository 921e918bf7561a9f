"""The JSON document holds what was found, and the package ships its JSON Schema."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from lrwd_sweep.report.gates import Gate, MaxAbsSlope, MaxBest, MinSeeds, NoEdge, Require
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.view.document import document, dumps
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.separability import Verdict
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from tests import studies
from tests.report.view.examples import labelled, lost, stopped, study
from tests.report.view.schema import faults, shipped

CONTRACT = {  # the keys that every object of the schema must require
    "": "schema_version studies comparisons",
    "study": "study_name optimizer family decay_rule formula metric schedule net data epochs seeds axes "
    "counts best separability cells",
    "best": "lr weight_decay value sem on_edge test_value conventions timescale_epochs",
    "counts": "cells complete diverged failed missing",
    "separability": "verdict point_verdict reason ridge_slope curvature_coupling transfer_regret "
    "interaction_share top10_tilt basin slope_by_convention",
    "estimate": "value low high",
    "cell": "lr weight_decay value sem status seeds",
    "comparison": "a b slope_difference regret_ratio best_difference verdict",
}


def based() -> Result:
    """Return a bowl with a λ = 0 column."""
    found = studies.study()
    lattice = replace(found.spec.lattice, weight_decay=(0.0, *found.spec.lattice.weight_decay))
    column = [Trial(Cell(lr, 0.0), seed, Status.COMPLETE, {"val_loss": 1.0 + noise})
              for lr in lattice.lr for seed, noise in enumerate((0, 0.01, 0.03))]  # fmt: skip
    return result("based", replace(found.spec, lattice=lattice), "", [*found.trials, *column])


def text_of(results: Sequence[Result]) -> str:
    gates: list[Gate] = [MaxBest(1), MaxAbsSlope(0.1), Require(Verdict.SEPARABLE), NoEdge(), MinSeeds(2)]
    outcomes = [gate.check(result) for result in results for gate in gates]
    return dumps(document(results, [comparison(results[0], other) for other in results[1:]], outcomes))


def test_every_document_is_strict_json_and_the_schema_refuses_anything_else() -> None:
    never = result("never", study().spec, "", [])  # some have no seeds in common
    every = [study(), study("b", "sgd"), based(), studies.study(), stopped(), never, lost(), labelled(),
             study(kind=Kind.IMPORT), study(kind=Kind.TPE), study(seeds=1), study(seeds=2)]  # fmt: skip
    for first in (study(), lost(), study(seeds=1)):
        text = text_of([first, *every])
        assert not {"NaN", "Infinity", "-Infinity"} & set(re.findall(r"[-\w]+", text))
        assert faults(json.loads(text), "report") == []
        assert text.isascii()
    schema = shipped("report")
    for name, keys in CONTRACT.items():
        assert set((schema["$defs"][name] if name else schema)["required"]) == set(keys.split()), name
    text = text_of([study(), study("b")])
    cases: list[tuple[tuple[str | int, ...], object]] = [
        (("schema_version",), 1),
        (("studies", 0, "separability", "verdict"), "maybe"),
        (("studies", 0, "separability", "ridge_slope", "value"), "0.1"),
        (("studies", 0, "separability", "ridge_slope", "surprise"), 1),
        (("studies", 0, "cells", 0, "status"), None),
        (("studies", 0, "best", "sem"), -1),
        (("comparisons", 0, "regret_ratio"), {"value": 1}),
        (("gates", 0, "passed"), "yes"),
    ]
    for path, value in cases:
        content = at = json.loads(text)
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value
        assert faults(content, "report"), path


def test_document_holds_what_was_measured_and_recommended() -> None:
    found, partial, imported, nothing = document([study(), stopped(), labelled(), lost()])["studies"]
    assert found["counts"] == {"cells": 25, "complete": 22, "diverged": 1, "failed": 1, "missing": 1}
    assert [cell["status"] for cell in found["cells"][:4]] == ["diverged", "failed", "missing", "complete"]
    first, best, (use, *_) = found["cells"][0], found["best"], found["recommended"]["cells"]
    assert (first["value"], first["seeds"][0]) == (None, {"seed": 0, "value": None, "status": "diverged"})
    assert best["test_value"] == pytest.approx(best["value"] + 0.01)
    assert best["conventions"]["lr-scaled"] == pytest.approx(best["weight_decay"] / best["lr"])
    assert best["timescale_epochs"] == pytest.approx(1 / best["weight_decay"] / 6)
    assert (use["role"], use["lr"]) == (recommendations(study()).cells[0].role, best["lr"])
    assert use["lines"][0]["code"].startswith("torch.optim.AdamW(")
    assert nothing["recommended"]["why_not_forgiving"] == "no cell counts"
    assert (partial["runs"], partial["best"]) == ({"done": 42, "all": 147}, None)
    assert [cell["partial_value"] for cell in partial["cells"]].count(None) == 7
    assert [imported[key] for key in ("family", "net", "schedule", "epochs")] == [None] * 4
    found = document([based()])["studies"][0]["separability"]
    assert found["baseline_gain"]["value"] == pytest.approx(0.9, abs=0.05)
