"""What is measured once per epoch is what the last update did, and measuring it changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.metrics import Diagnostics, angle
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.task import Task

CELLS = [Cell(0.02, 1e-3), Cell(0.005, 0.02), Cell(0.3, 0.0)]
ILL = Cell(1e38, 1e-3)  # the loss overflows within a few steps
NAMES = {"norm", "rotation", "effective_lr"}


def _angle(*sides: float) -> float:
    return angle(*(torch.tensor(side, dtype=torch.float64) for side in sides)).item()


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(1e-6, math.pi - 1e-6))
def test_angle_of_a_triangle_is_found_from_its_sides(a: float, b: float, gamma: float) -> None:
    c = math.hypot(b * math.sin(gamma), a - b * math.cos(gamma))
    assert _angle(a, b, c) == pytest.approx(gamma, abs=1e-7)
    assert _angle(a, b, c) == _angle(b, a, c)


@given(st.floats(1e-9, 1e-3))
def test_small_angles_between_vectors_of_one_length_keep_their_digits(gamma: float) -> None:
    assert _angle(3.0, 3.0, 6 * math.sin(gamma / 2)) == pytest.approx(gamma, rel=1e-9)


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_purely_radial_step_turns_nothing(a: float, b: float) -> None:
    assert _angle(a, b, abs(a - b)) == pytest.approx(0, abs=1e-6)
    assert _angle(a, b, abs(a - b) * (1 - 1e-15)) == pytest.approx(0, abs=1e-6)  # by rounding too short


def _matrices(trainer: PackTrainer, lane: int) -> list[Tensor]:
    return [trainer.arena.named[name][lane].flatten().clone() for name in ("weight1", "weight2", "weight3")]


def _stepped(trainer: PackTrainer, splits: Splits, steps: int) -> list[tuple[list[Tensor], list[Tensor]]]:
    """Train for some steps; every lane's matrices before and after the last of them."""
    x, y = splits.train.x[:64], splits.train.y[:64]
    for t in range(steps - 1):
        trainer.step(x, y, t)
    before = [_matrices(trainer, lane) for lane in range(len(CELLS))]
    trainer.step(x, y, steps - 1)
    return [(found, _matrices(trainer, lane)) for lane, found in enumerate(before)]


@pytest.mark.parametrize(("name", "power"), [("sgdw", 2), ("sgdp", 2), ("adam", 1), ("adamp", 1)])
def test_measures_are_those_of_the_epochs_last_update(name: str, power: int, digits64: Splits) -> None:
    task = Task(epochs=9, schedule=Schedule.COSINE)
    trainer = PackTrainer(Optimizer.parse(name), task, CELLS, 0, digits64)
    turned = _stepped(trainer, digits64, 6)
    eta = trainer.timetable.eta(5)
    curves = {found: values[0] for found, values in trainer.diagnostics.curves.items()}
    for lane, (before, after) in enumerate(turned):
        norm = math.sqrt(sum(float(w @ w) for w in after))
        cosines = [float(u @ w / (u.norm() * w.norm())) for u, w in zip(before, after, strict=True)]
        rates = [eta * CELLS[lane].lr / float(w.norm()) ** power for w in before]
        assert curves["norm"][lane] == pytest.approx(norm, rel=1e-12)
        assert curves["rotation"][lane] == pytest.approx(sum(map(math.acos, cosines)) / 3, rel=1e-6)
        assert curves["effective_lr"][lane] == pytest.approx(sum(rates) / 3, rel=1e-12)


def _trials(name: str, splits: Splits, cells: list[Cell] = CELLS, **options: object) -> list[Trial]:
    task = Task(**{"epochs": 3, **options})  # type: ignore[arg-type]
    return PackTrainer(Optimizer.parse(name), task, cells, 0, splits).run()


@pytest.mark.parametrize("net", ["mlp-norm", "mlp"])
@pytest.mark.parametrize("name", ["sgd", "adamw", "adamp", "sgdp"])
def test_every_lane_has_a_value_per_epoch(name: str, net: str, digits32: Splits) -> None:
    projection = {"projection"} if name.endswith("p") else set()
    for trial in _trials(name, digits32, net=net):
        measured = {found for found in trial.curves if not found.startswith(("train_", "val_"))}
        assert measured == NAMES | projection
        for found in measured:
            assert len(trial.curves[found]) == 3
            assert all(0 <= value < math.inf for value in trial.curves[found])
        assert max(trial.curves.get("projection", (0,))) <= 1
        assert not measured & trial.metrics.keys()


def test_measuring_changes_no_bit_of_the_training(digits32: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = _trials("adamw", digits32)
    monkeypatch.setattr(Diagnostics, "before", lambda self: None)
    for with_, without in zip(measured, _trials("adamw", digits32), strict=True):
        assert with_.metrics == without.metrics
        assert {name: c for name, c in with_.curves.items() if name not in NAMES} == without.curves


def test_a_measure_that_is_not_finite_makes_no_lane_diverge(
    digits32: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _trials("adamw", digits32)
    monkeypatch.setattr("lrwd_sweep.engine.metrics.angle", lambda a, b, c: a / 0)
    for trial, usual in zip(_trials("adamw", digits32), expected, strict=True):
        assert trial.status is Status.COMPLETE
        assert trial.metrics == usual.metrics
        assert all(map(math.isnan, trial.curves["rotation"]))
        assert trial.curves["norm"] == usual.curves["norm"]


@pytest.mark.parametrize("name", ["sgdw", "adamp"])
def test_a_diverged_lane_has_no_measures_and_its_neighbours_keep_theirs(name: str, digits32: Splits) -> None:
    with_ill = _trials(name, digits32, [CELLS[0], ILL, CELLS[1]], net="mlp")
    assert with_ill[1].status is Status.DIVERGED
    for found in NAMES:
        assert math.isnan(with_ill[1].curves[found][-1])
    assert [with_ill[0], with_ill[2]] == _trials(name, digits32, CELLS[:2], net="mlp")


def test_a_network_without_scale_invariant_tensors_has_none_of_the_measures(digits32: Splits) -> None:
    trainer = PackTrainer(Optimizer.parse("adamp"), Task(epochs=3), CELLS, 0, digits32)
    trainer.diagnostics = Diagnostics(trainer.arena, (), trainer.update, Family.ADAMP)
    assert set(trainer.run()[0].curves) & {*NAMES, "projection"} == {"projection"}


def test_a_lane_that_diverges_keeps_the_snapshots_before(digits32: Splits) -> None:
    task = Task(epochs=3, schedule=Schedule.RESTARTS, t_0=1, t_mult=2)
    expected = PackTrainer(Optimizer.parse("adamw"), task, CELLS, 0, digits32).run()
    trainer = PackTrainer(Optimizer.parse("adamw"), task, CELLS, 0, digits32)

    def poison(epoch: int, metrics: dict[str, list[float]]) -> None:
        trainer.arena.theta[0] = torch.nan

    poisoned = trainer.run(poison)
    assert poisoned[0].status is Status.DIVERGED
    assert poisoned[0].snapshots == {1: expected[0].snapshots[1]}
    assert poisoned[1:] == expected[1:]
