"""An estimate adds up what each kind of step costs."""

from __future__ import annotations

import pytest

from lrwd_sweep.engine.speed import Speed
from lrwd_sweep.runner import estimate as module
from lrwd_sweep.runner.estimate import estimate
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task

TWO = Lattice((0.1, 0.2), (0.0,))  # cells


def study(optimizer: str, seeds: int = 1, **task: int | str) -> StudySpec:
    return StudySpec(
        Kind.GRID,
        Optimizer.parse(optimizer),
        TWO,
        tuple(range(seeds)),
        "val_loss",
        Task(**task),  # type: ignore[arg-type]
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int, float]]:
    """What was measured: optimizer, network, lanes, seconds; a step costs 1 s, of mlp extrapolated."""
    found = []

    def measure(optimizer: Optimizer, task: Task, lanes: int, seconds: float) -> Speed:
        found.append((str(optimizer), task.net, lanes, seconds))
        return Speed(step=1.0, sample=0.0, whole=task.net != "mlp")

    monkeypatch.setattr(module, "measure", measure)
    return found


def test_studies_add_up(asked: list[object]) -> None:
    found = estimate([study("adam", seeds=3, epochs=10), study("sgd", epochs=20)])
    assert found.seconds == 2 * 3 * 10 * 6 + 2 * 20 * 6
    assert found.whole


def test_each_kind_of_step_is_measured_once_with_its_share_of_the_time(asked: list[object]) -> None:
    estimate([study("adam"), study("adamw", seeds=5, epochs=9), study("sgd"), study("adam", net="mlp")], 9.0)
    assert asked == [("adam", "mlp-norm", 10, 3.0), ("sgd", "mlp-norm", 2, 3.0), ("adam", "mlp", 2, 3.0)]


def test_one_extrapolated_study_makes_all_of_it_so(asked: list[object]) -> None:
    assert not estimate([study("adam"), study("adam", net="mlp")]).whole
