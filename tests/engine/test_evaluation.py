"""Validation during training: how often is the user's choice, and no result depends on it."""

from __future__ import annotations

import math

from lrwd_sweep.data import load
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.task import Task

CELLS = (Cell(0.01, 0.1), Cell(0.1, 0.01))


def trained(**overrides: object) -> list[Trial]:
    """Train two cells of the digits under AdamW for a few epochs."""
    optimizer = Optimizer.parse("adamw")
    task = Task(**{"epochs": 20, **overrides}).of(optimizer)  # type: ignore[arg-type]
    return PackTrainer(optimizer, task, CELLS, 0, load(task.data, task.data_set)).run()


def test_evaluations_are_even_in_log_time_and_include_both_ends() -> None:
    assert Task(epochs=60).evaluations == (1, 2, 3, 4, 6, 9, 14, 20, 29, 41, 60)
    assert Task(epochs=1).evaluations == (1,)
    assert Task(epochs=10, eval_every=4).evaluations == (1, 4, 8, 10)
    assert Task(epochs=10, eval_every=100).evaluations == (1, 10)
    assert Task(epochs=3, eval_every=1).evaluations == (1, 2, 3)
    restarts = Task(epochs=15, schedule="restarts", t_0=1, eval_every=15)  # type: ignore[arg-type]
    assert restarts.evaluations == (1, 3, 7, 15)  # the snapshots at the ends of cycles


def test_results_do_not_depend_on_how_often_lanes_are_validated() -> None:
    often, seldom = trained(eval_every=1), trained()
    for a, b in zip(often, seldom, strict=True):
        assert a.metrics == b.metrics
        assert a.curves["train_loss"] == b.curves["train_loss"]
        assert all(math.isfinite(value) for value in a.curves["val_loss"])
        for epoch, (every, some) in enumerate(
            zip(a.curves["val_loss"], b.curves["val_loss"], strict=True), 1
        ):
            assert some == every if epoch in Task(epochs=20).evaluations else math.isnan(some), epoch


def test_value_before_the_first_step_is_measured_and_common_to_the_cells_of_a_seed() -> None:
    first, second = trained(epochs=1)
    assert first.metrics["initial_val_loss"] == second.metrics["initial_val_loss"]
    assert 2 < first.metrics["initial_val_loss"] < 4  # near ln 10
    assert first.metrics["initial_val_error"] > 0.7
