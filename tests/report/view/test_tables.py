"""Tables and texts hold every number that the analysis found, and no more than it means."""

import re
from dataclasses import replace
from typing import Any

import numpy as np

from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view.ci import gate_value
from lrwd_sweep.report.view.tables import separability_rows, task_text, title
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.separability import Contrast, Estimate, LrSensitivity, SequentialRegret, Verdict
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.report.view.examples import labelled, lost
from tests.report.view.examples import study as small
from tests.studies import study


def spec(optimizer: str, **task: Any) -> StudySpec:
    lattice = Lattice((0.1, 0.2), (0.01, 0.02))
    return StudySpec(Kind.GRID, Optimizer.parse(optimizer), lattice, (0,), "val_loss", Task(**task))


def test_task_text_describes_only_deviations_from_the_defaults() -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("adamw", {"warmup": 1}, "1 epoch of warm-up"),
        ("adamwr", {"schedule": Schedule.RESTARTS, "t_0": 5}, "first cycle of 5 epochs"),
        ("sgd", {"momentum": 0.5, "nesterov": True}, "momentum 0.5, Nesterov's momentum"),
        ("adam", {"beta1": 0.8, "beta2": 0.95, "eps": 1e-6}, "β₁ 0.8, β₂ 0.95, ε 1e-06"),
        ("adam", {"precision": "bfloat16"}, "computed in bfloat16"),
    ]
    for optimizer, task, words in cases:
        assert f"; {words}; " in task_text(result("a", spec(optimizer, **task), "", [])), words
    specs = [spec("adam"), spec("adam", schedule=Schedule.STEP), spec("adamw")]
    results = [result(f"study {k}", one, "", []) for k, one in enumerate(specs)]
    assert [title(found, results) for found in results] == ["adam, cosine", "adam, step", "adamw"]
    assert task_text(result("a", spec("rmsprop"), "", [])) == (
        "digits, mlp-norm, cosine schedule, 60 epochs, batch 64; 4 cells × 1 seed; 0 of 4 runs; 4 missing"
    )


def having(**found: Any) -> Result:
    return replace(study(), separability=replace(study().separability, **found))


def rows(*results: Result) -> dict[str, list[str]]:
    return {label.strip(): entries for label, *entries in separability_rows(results)}


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
    found = rows(several, study())
    for label, first in (
        ("margin", "±0.25: λ* moves by at most 1.5 octaves"),
        ("its interval allows", "separable or coupled; about 9 seeds would tell"),
        ("of three-cell minima", "−0.50 [−0.60, −0.40]"),
        ("bow of the ridge, octaves", "4.20 [3.00, 5.40]"),
        ("interaction contrast", "0.00190 [0.00140, 0.00230] over 3.3 × 6 octaves"),
        ("tuning one at a time, α first", "0.0100 (no interval below four seeds)"),
        ("tuning one at a time, λ first", "–"),
        ("a wrong α, λ kept", "– (the value at initialisation is not known)"),
        ("λ retuned", "0.100"),
        ("best value, new seeds", "0.120 [0.110, 0.130]"),
    ):
        assert found[label][0] == first, label
    assert found["of three-cell minima"][1] == found["interaction contrast"][1] == "–"
    assert (
        not {"of three-cell minima", "contour slope", "interaction contrast", "remark"} & rows(study()).keys()
    )
    steps = 1 / 2.0**-4  # the ridge of the bowl is at λ = 2⁻⁴, where a run has 60 epochs of 6 steps
    (tau,) = re.findall(
        r"^([\d.]+).* steps, ([\d.]+).* epochs, ([\d.]+).* of the run", found["τ* of the ridge, η = 1"][1]
    )
    assert np.allclose([float(x) for x in tau], [steps, steps / 6, steps / 360], rtol=0.05)
    assert rows(labelled())["τ* of the ridge, η = 1"] == ["–"]  # an import has no task
    assert not any("undetermined: " in entry for entries in rows(lost()).values() for entry in entries)
    assert "a search's best point is no cell" not in str(rows(small(kind=small().spec.kind)))

    assert rows(small(seeds=2), small())["scored"] == [
        "in sample: no interval below 3 seeds",
        "on the other seeds",
    ]
    assert gate_value(GateOutcome("max-best", "a", 0.15000000001, 0.15, passed=False)) == "0.15000000001"
    for share, text in (
        (Estimate(-0.02, -2.21, 2.17), "0.00 [0.00, 1.00]"),
        (Estimate(1.4, reason="one seed"), "1.00 (one seed)"),
        (Estimate(None, reason="noise"), "undetermined: noise"),
    ):
        assert rows(having(interaction_share=share))["interaction share"] == [text]
