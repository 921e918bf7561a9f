"""The texts of a report describe the task, the best cell and separability."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import result
from lrwd_sweep.report.view.document import document
from lrwd_sweep.report.view.fields import best_rows, gate_value, separability_rows, task_text, title
from lrwd_sweep.report.view.terminal import headline
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.separability import Estimate
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.report.view.examples import study

LATTICE = Lattice((0.1, 0.2), (0.01, 0.02))


def spec(optimizer: str, **task: Any) -> StudySpec:
    return StudySpec(Kind.GRID, Optimizer.parse(optimizer), LATTICE, (0,), "val_loss", Task(**task))


def described(optimizer: str, **task: Any) -> str:
    return task_text(result("a", spec(optimizer, **task), "", []))


def test_deviations_from_the_defaults_are_described() -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("adamw", {"warmup": 3}, "3 epochs of warm-up"),
        ("adamw", {"warmup": 1}, "1 epoch of warm-up"),
        ("adamwr", {"schedule": Schedule.RESTARTS, "t_0": 5}, "first cycle of 5 epochs"),
        ("adamwr", {"schedule": Schedule.RESTARTS, "t_mult": 3}, "each cycle 3 times the last"),
        ("adamw", {"eta_min": 0.01}, "η down to 0.01"),
        ("sgd", {"momentum": 0.5, "nesterov": True}, "momentum 0.5, Nesterov's momentum"),
        ("sgd", {"momentum_form": "torch"}, "momentum as in torch"),
        ("adam", {"beta1": 0.8, "beta2": 0.95, "eps": 1e-6}, "β₁ 0.8, β₂ 0.95, ε 1e-06"),
        ("adam", {"decay_all": False}, "biases and normalisation not decayed"),
        ("adam", {"augment": "crop-flip"}, "augmented by crop-flip"),
        ("adam", {"precision": "bfloat16"}, "computed in bfloat16"),
    ]
    for optimizer, task, words in cases:
        assert f"; {words}; " in described(optimizer, **task), words


def test_defaults_are_not_described() -> None:
    assert described("rmsprop") == (
        "digits, mlp-norm, cosine schedule, 60 epochs, batch 64; 4 cells × 1 seed; 0 of 4 runs; 4 missing"
    )


def test_time_scale_of_projected_decay_depends_on_how_often_it_was_projected() -> None:
    plain, found = study(optimizer="adamw"), study(optimizer="adampw")
    assert not any(row[0].startswith("κ") for row in best_rows([plain]))
    cases: list[tuple[dict[str, tuple[float, ...]], str, str]] = [
        ({"projection": (1.0,)}, "53.3 epochs", "in 100% of steps, else 1"),
        ({"projection": (0.5, 0.0)}, "6.88 epochs", "in 25% of steps, else 1"),
        ({}, "5.33 to 53.3 epochs", "–"),
    ]
    for curves, scale, often in cases:
        found = result("x", found.spec, "", [replace(trial, curves=curves) for trial in found.trials])
        rows = {label: entries for label, *entries in best_rows([plain, found])}
        assert rows["averaging time scale, η = 1"] == ["5.33 epochs", scale]
        assert rows["κ: 0.1 where Π acts"] == ["–", often]
        (cell, *_) = recommendations(found).cells
        assert headline(found, cell).endswith(f"; decay averages over {scale} where η = 1")


def test_transfer_regret_scored_in_sample_has_no_interval() -> None:
    rows = {label: entries for label, *entries in separability_rows([study(seeds=2), study(seeds=3)])}
    in_sample, cross_scored = rows["transfer regret, 1 octave"]
    assert in_sample.endswith(" (in sample: lies high)")
    assert "[" not in in_sample
    assert "[" in cross_scored
    assert rows["  scored"] == ["in sample: no interval below 3 seeds", "on the other seeds"]


def test_interaction_share_is_clipped_where_it_is_shown_and_stored_as_it_is() -> None:
    for share, text in (
        (Estimate(-0.02, -2.21, 2.17), "0.00 [0.00, 1.00]"),
        (Estimate(0.3, 0.1, 1.2), "0.30 [0.10, 1.00]"),
        (Estimate(1.4, reason="one seed"), "1.00 (one seed)"),
        (Estimate(None, reason="noise"), "undetermined: noise"),
    ):
        found = replace(study(), separability=replace(study().separability, interaction_share=share))
        rows = {label: entries for label, *entries in separability_rows([found])}
        assert rows["interaction share"] == [text]
        kept = document([found])["studies"][0]["separability"]["interaction_share"]
        assert (kept["value"], kept["low"], kept["high"]) == (share.value, share.low, share.high)


def test_studies_of_one_optimizer_are_told_apart_by_what_differs() -> None:
    specs = [spec("adam"), spec("adam", schedule=Schedule.STEP), spec("adamw")]
    results = [result(f"study {k}", one, "", []) for k, one in enumerate(specs)]
    assert [title(found, results) for found in results] == ["adam, cosine", "adam, step", "adamw"]


def test_a_value_that_rounds_to_the_other_side_of_its_limit_is_shown_in_full() -> None:
    near = GateOutcome("max-best", "a", 0.15000000001, 0.15, passed=False)
    assert gate_value(near) == "0.15000000001"
    assert gate_value(replace(near, value=0.14999999999, passed=True)) == "0.15"
    assert gate_value(replace(near, value=0.2)) == "0.2"
    assert gate_value(replace(near, value=None)) == "undetermined"
