"""Tables, CSV and the JSON document hold what was measured and found; the package ships the JSON Schema."""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lrwd_sweep.errors import HostError
from lrwd_sweep.report.gates import GateOutcome, MaxAbsSlope, MaxBest, MinSeeds, NoEdge, Require
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.view import ci, lane_table, tables
from lrwd_sweep.report.view.document import document, dumps
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.separability import Contrast, Estimate, LrSensitivity, SequentialRegret, Verdict
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from tests.report.view.examples import HOSTILE, having, known, labelled, lost, stopped
from tests.report.view.examples import study as small
from tests.report.view.schema import faults, shipped
from tests.specs import spec
from tests.studies import LATTICE, bowl, study


def test_task_text_describes_only_deviations_from_the_defaults() -> None:
    for one, words in (
        (spec(optimizer="adamwr", schedule=Schedule.RESTARTS, t_0=5), "first cycle of 5 epochs"),
        (spec(optimizer="sgd", momentum=0.5, nesterov=True), "momentum 0.5, Nesterov's momentum"),
        (spec(precision="bfloat16"), "computed in bfloat16"),
    ):
        assert f"; {words}; " in tables.task_text(result("a", one, "", [])), words
    usual = "digits, mlp-norm, cosine schedule, 60 epochs, batch 64; 4 cells × 1 seed; 0 of 4 runs; 4 missing"
    assert tables.task_text(result("a", spec(optimizer="rmsprop", seeds=(0,)), "", [])) == usual
    specs = [spec(optimizer="adam"), spec(optimizer="adam", schedule=Schedule.STEP), spec()]
    results = [result(f"study {k}", one, "", []) for k, one in enumerate(specs)]
    assert [tables.title(found, results) for found in results] == ["adam, cosine", "adam, step", "adamw"]


def rows(*results: Result) -> dict[str, list[str]]:
    return {label.strip(): entries for label, *entries in tables.separability_rows(results)}


def test_rows_hold_what_the_analysis_found() -> None:
    regret = SequentialRegret("lr", Estimate(0.01, reason="no interval below four seeds"), None, 0, False)
    none = Estimate(None, reason="the value at initialisation is not known")
    several = having(
        bow=Estimate(4.2, 3, 5.4),
        allowed=(Verdict.SEPARABLE, Verdict.COUPLED),
        seeds_to_settle=9,
        windowed=True,
        three_cell_slope=Estimate(-0.5, -0.6, -0.4),
        sequential_regret=(regret,),
        lr_sensitivity=LrSensitivity(Estimate(0.1), none, none),
        expected_best=Estimate(0.12, 0.11, 0.13),
        contrast=Contrast(Estimate(0.0019, 0.0014, 0.0023), (0, 6), (0, 6), (3.321, 6.0)),
    )
    told = {
        "margin": "±0.25: λ* moves by at most 1.5 octaves",
        "its interval allows": "separable or coupled; about 9 seeds would tell",
        "of three-cell minima": "−0.50 [−0.60, −0.40]",
        "bow of the ridge, octaves": "4.20 [3.00, 5.40]",
        "interaction contrast": "0.00190 [0.00140, 0.00230] over 3.3 × 6 octaves",
        "tuning one at a time, α first": "0.0100 (no interval below four seeds)",
        "tuning one at a time, λ first": "–",
        "a wrong α, λ kept": "– (the value at initialisation is not known)",
        "λ retuned": "0.100",
        "best value, new seeds": "0.120 [0.110, 0.130]",
    }
    found = rows(several, study())
    assert {label: found[label][0] for label in told} == told
    assert found["of three-cell minima"][1] == found["interaction contrast"][1] == "–"
    assert float(rows(study())["as lr-scaled"][0].replace("−", "-")) == -1  # of slope 0
    labels = rows(study()).keys()
    assert not {"of three-cell minima", "contour slope", "interaction contrast", "remark"} & labels
    steps = 1 / 2.0**-4  # the ridge of the bowl is at λ = 2⁻⁴, where a run has 60 epochs of 6 steps
    parts = r"^([\d.]+).* steps, ([\d.]+).* epochs, ([\d.]+).* of the run"
    (tau,) = re.findall(parts, found["τ* of the ridge, η = 1"][1])
    assert np.allclose([float(x) for x in tau], [steps, steps / 6, steps / 360], rtol=0.05)
    assert rows(labelled())["τ* of the ridge, η = 1"] == ["–"]  # an import has no task
    given = replace(study().spec, kind=Kind.IMPORT, task=None, run_steps=360)
    imported, trained = map(known, (result("x", given, "", study().trials).timescale, study().timescale))
    assert (imported.steps, imported.share) == (trained.steps, trained.share)
    assert (imported.epochs.value, given.tau_of_one) == (None, 1 / 360)
    assert not any("undetermined: " in entry for entries in rows(lost()).values() for entry in entries)
    found = rows(small(seeds=2), small())
    assert found["scored"] == ["in sample: no interval below 3 seeds", "on the other seeds"]
    assert ci.gate_value(GateOutcome("max-best", "a", 0.15000000001, 0.15, passed=False)) == "0.15000000001"
    for share, text in (
        (Estimate(-0.02, -2.21, 2.17), "0.00 [0.00, 1.00]"),
        (Estimate(1.4, reason="one seed"), "1.00 (one seed)"),
        (Estimate(None, reason="noise"), "undetermined: noise"),
    ):
        assert rows(having(interaction_share=share))["interaction share"] == [text]


CONTRACT = {  # the keys that every object of the schema must require
    "": "schema_version studies comparisons",
    "study": """study_name optimizer family decay_rule formula metric schedule net data epochs seeds axes
        counts best separability cells""",
    "best": "lr weight_decay value sem on_edge test_value conventions timescale_epochs",
    "counts": "cells complete diverged failed missing",
    "separability": "verdict point_verdict reason ridge_slope curvature_coupling transfer_regret "
    "interaction_share top10_tilt basin slope_by_convention",
    "estimate": "value low high",
    "cell": "lr weight_decay value sem status seeds",
    "comparison": "a b slope_difference regret_ratio best_difference verdict",
}


def based() -> Result:
    lattice = replace(LATTICE, weight_decay=(0.0, *LATTICE.weight_decay))
    return study(lambda a, b: bowl(a, b) if math.isfinite(b) else 1.0, "based", lattice=lattice)


def text_of(results: Sequence[Result]) -> str:
    every = MaxBest(1), MaxAbsSlope(0.1), Require(Verdict.SEPARABLE), NoEdge(), MinSeeds(2)
    outcomes = [gate.check(result) for result in results for gate in every]
    return dumps(document(results, [comparison(results[0], other) for other in results[1:]], outcomes))


def test_every_document_is_strict_json_and_the_schema_refuses_anything_else() -> None:
    never = result("never", small().spec, "", [])  # some have no seeds in common
    every = [small(), small("b", "sgd"), based(), study(), stopped(), never, lost(), labelled(),
             small(kind=Kind.IMPORT), small(kind=Kind.TPE), small(seeds=1), small(seeds=2)]  # fmt: skip
    for reference in (small(), lost(), small(seeds=1)):
        text = text_of([reference, *every])
        assert not {"NaN", "Infinity", "-Infinity"} & set(re.findall(r"[-\w]+", text))
        assert (faults(json.loads(text), "report"), text.isascii()) == ([], True)
    schema = shipped("report")
    for name, keys in CONTRACT.items():
        assert set((schema["$defs"][name] if name else schema)["required"]) == set(keys.split()), name
    whole = json.loads(text_of([small(), small("b")]))
    first = whole["studies"][0]
    for part, key, value in (
        (whole, "schema_version", 1),
        (first["separability"], "verdict", "maybe"),
        (first["separability"]["ridge_slope"], "value", "0.1"),
        (first["cells"][0], "status", None),
        (first["best"], "sem", -1),
        (whole["gates"][0], "passed", "yes"),
    ):
        kept, part[key] = part[key], value
        assert faults(whole, "report"), key
        part[key] = kept


def test_document_holds_what_was_measured_and_recommended() -> None:
    found, partial, imported, nothing = document([small(), stopped(), labelled(), lost()])["studies"]
    assert found["counts"] == {"cells": 25, "complete": 22, "diverged": 1, "failed": 1, "missing": 1}
    assert [cell["status"] for cell in found["cells"][:4]] == ["diverged", "failed", "missing", "complete"]
    first, best, (use, *_) = found["cells"][0], found["best"], found["recommended"]["cells"]
    assert (first["value"], first["seeds"][0]) == (None, {"seed": 0, "value": None, "status": "diverged"})
    assert best["test_value"] == pytest.approx(best["value"] + 0.01)
    assert best["conventions"]["lr-scaled"] == pytest.approx(best["weight_decay"] / best["lr"])
    assert best["timescale_epochs"] == pytest.approx(1 / best["weight_decay"] / 6)
    assert (use["role"], use["lr"]) == (recommendations(small()).cells[0].role, best["lr"])
    assert use["lines"][0]["code"].startswith("torch.optim.AdamW(")
    assert nothing["recommended"]["why_not_forgiving"] == "no cell counts"
    assert (partial["runs"], partial["best"]) == ({"done": 42, "all": 147}, None)
    assert [cell["partial_value"] for cell in partial["cells"]].count(None) == 7
    assert [imported[key] for key in ("family", "net", "schedule", "epochs")] == [None] * 4
    found = document([based()])["studies"][0]["separability"]
    assert found["baseline_gain"]["value"] == pytest.approx(0.9, abs=0.05)


NAN = math.nan
CURVES = {"a": (1.0, NAN), "b": (2.0, NAN)}, {"a": (1.0, 0.5), "b": (4.0, 3.0)}
DIVERGED = Trial(Cell(0.1, 0.01), 0, Status.DIVERGED, {}, CURVES[0], "at epoch 2, batch 1")
COMPLETE = Trial(Cell(0.1, 0.001), 1, Status.COMPLETE, {"b": 3.0, "a": 1.0}, CURVES[1])


def test_frames_have_a_row_per_lane_or_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = lane_table.lane_frame({"one": [DIVERGED, COMPLETE]}, "b")
    assert list(frame) == ["lr", "weight_decay", "seed", "status", "detail", "b", "a"]
    assert frame.iloc[0].tolist() == [0.1, 0.001, 1, "complete", "", 3.0, 1.0]
    assert frame[["a", "b"]].iloc[1].isna().all()
    frame = lane_table.curve_frame({"one": [COMPLETE, replace(DIVERGED, curves={"c": (7.0, NAN)})]})
    assert list(frame) == ["lr", "weight_decay", "seed", "epoch", "a", "b", "c"]
    assert frame["epoch"].tolist() == [1, 2, 1, 2]
    np.testing.assert_array_equal(frame[["a", "c"]], [[1, NAN], [0.5, NAN], [NAN, 7], [NAN, NAN]])
    both = {"one": [COMPLETE], HOSTILE: [DIVERGED]}
    for frame in (lane_table.lane_frame(both, "a"), lane_table.curve_frame(both)):
        assert next(iter(frame)) == "study"
        assert frame["study"].unique().tolist() == ["one", HOSTILE]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HostError, match=r"pip install 'lrwd-sweep\[pandas\]'"):
        lane_table.lane_frame({"one": [COMPLETE]}, "a")


def test_csv_keeps_every_bit_and_has_no_row_for_missing_lanes() -> None:
    found, zero = small(), small().trials[40].metrics["val_loss"]  # becomes a value of exactly 0.0
    shifted = [replace(t, metrics={m: v - zero for m, v in t.metrics.items()}) for t in found.trials]
    for each in (found, labelled("it"), result("zero", found.spec, "", shifted)):
        rows = list(csv.DictReader(io.StringIO(lane_table.csv_table([each]))))
        gone = [row for row in rows if row["status"] == "missing"]  # an import cannot be finished
        assert len(gone) == (each.spec.task is None)
        rows = rows[: len(rows) - len(gone)]
        assert list(rows[0]) == ["lr", "weight_decay", "seed", "value", "status", "decay_rule", "test_loss"]
        lanes = {}
        for row in rows:
            value = float(row["value"]) if row["status"] == "complete" else row["value"]
            assert isinstance(value, str) or float(row["test_loss"]) == pytest.approx(value + 0.01)
            cell = Cell(float(row["lr"]), float(row["weight_decay"]))
            lanes[cell, int(row["seed"])] = row["status"], value
        lost, expected = {Status.DIVERGED: "nan", Status.FAILED: ""}, {}
        for t in each.trials:
            expected[t.cell, t.seed] = t.status, t.metrics.get("val_loss", lost.get(t.status))
        assert lanes == expected
