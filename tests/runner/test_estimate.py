"""An estimate adds up the cost of every kind of step."""

from __future__ import annotations

import pytest

from lrwd_sweep.engine.speed import Speed
from lrwd_sweep.runner import estimate as module
from lrwd_sweep.runner.estimate import estimate
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task


def study(name: str, seeds: int = 1, **options: int | str) -> StudySpec:
    task, two = Task(**options), Lattice((0.1, 0.2), (0.0,))  # type: ignore[arg-type]
    return StudySpec(Kind.GRID, Optimizer.parse(name), two, tuple(range(seeds)), "val_loss", task)


def test_each_kind_of_step_is_measured_once_and_studies_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(optimizer: Optimizer, task: Task, lanes: int, seconds: float) -> Speed:
        asked.append((str(optimizer), task.net, lanes, seconds))
        return Speed(step=1.0, sample=0.0, whole=task.net != "mlp")

    monkeypatch.setattr(module, "measure", measure)
    found = estimate([study("adam", seeds=3, epochs=10), study("sgd", epochs=20)])
    assert (found.seconds, found.whole) == (2 * 3 * 10 * 6 + 2 * 20 * 6, True)
    asked.clear()
    found = estimate(
        [study("adam"), study("adamw", seeds=5, epochs=9), study("sgd"), study("adam", net="mlp")], 9.0
    )
    assert asked == [("adam", "mlp-norm", 10, 3.0), ("sgd", "mlp-norm", 2, 3.0), ("adam", "mlp", 2, 3.0)]
    assert not found.whole  # one was extrapolated
