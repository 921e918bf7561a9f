"""Measures of a split, and diagnostics: what the last update of an epoch did, without changing a bit."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.engine.metrics import Diagnostics, Measures, angle, recall_at_1
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.nets import network
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from tests.small import F64, ILL, WELL, pack, splits, task

NAMES = {"norm", "rotation", "effective_lr"}


def test_measures_without_a_finite_loss_are_nan() -> None:
    for loss in (math.inf, math.nan):
        of, alive = task(), torch.tensor([True, True, False])
        total = torch.tensor([[loss, 6.0, 1.0], [3.0, 2.0, 1.0], [1.0, 0.0, 1.0]])
        found = Measures(of, network(of)).means(total, 4, alive)
        assert found[:, [0, 2]].isnan().all()
        assert found[:, 1].tolist() == [1.5, 0.5, 0.0]


def test_recall_counts_items_whose_nearest_other_item_has_their_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lrwd_sweep.engine.metrics.RECALL_ROWS", 4)
    e, y = torch.randn(3, 5, 30, generator=torch.Generator().manual_seed(0), dtype=F64), torch.arange(30) % 3
    e[1] = functional.one_hot(y, 5).t() * torch.arange(1, 31)  # a direction for each class
    e[2, 0, 0] = math.nan
    others = [[k for k in range(30) if k != item] for item in range(30)]
    cosines = functional.cosine_similarity(e[0][:, :, None], e[0][:, None], dim=0)
    nearest = [max(rest, key=cosines[item].__getitem__) for item, rest in enumerate(others)]
    hits = sum(int(y[near] == y[item]) for item, near in enumerate(nearest))
    found = recall_at_1(e, y).tolist()
    assert found[:2] == [hits / 30, 1.0]
    assert math.isnan(found[2])
    assert 0 < hits < 30
    assert recall_at_1(e[:1, :, :1], y[:1]).tolist() == [0]  # no other item
    assert recall_at_1(e[1:2, :, :4], y[:4]).tolist() == [0.5]  # two have no other item of their class


def test_networks_that_embed_have_recall_and_only_scale_invariant_tensors() -> None:
    for name in ("sgdp", "adamp"):
        trials = pack(name, task("embed-norm", 3), WELL).run()
        for trial in trials:
            assert trial.curves["projection"] == (1, 1, 1), name
            named = {f"{split}_recall_at_1" for split in ("val", "test", "initial_val")}
            assert {found for found in trial.metrics if "recall" in found} == named
            assert trial.metrics["val_recall_at_1"] == trial.curves["val_recall_at_1"][-1] > 0.25
    (ill,) = pack("sgd", task("embed-norm", 3), [Cell(math.inf, 0.0)]).run()
    assert (ill.status, math.isnan(ill.curves["val_recall_at_1"][-1])) == (Status.DIVERGED, True)


def _strict(logits: Tensor, y: Tensor) -> Tensor:
    """Compute cross-entropy in place; refuse numbers that are not finite."""
    if not logits.isfinite().all() or not len(y):
        raise ValueError("no numbers")
    return functional.cross_entropy(logits.sub_(1), y.add_(1))


def test_a_user_loss_gets_copies_and_may_raise_only_on_a_diverged_lane() -> None:
    measured = Measures(task(), network(task()))
    measured.loss = _strict
    logits, y = torch.arange(24.0).view(2, 3, 4).sin(), torch.tensor([0, 1, 1, 0])
    expected = [4 * functional.cross_entropy(lane.t(), y + 1).item() for lane in logits]
    assert measured.losses(logits, y).tolist() == pytest.approx(expected)
    assert y.tolist() == [0, 1, 1, 0]
    assert torch.equal(logits, torch.arange(24.0).view(2, 3, 4).sin())
    logits[0, 0, 0] = math.inf
    found = measured.losses(logits, y)
    assert found[0].isnan()
    assert found[1] == pytest.approx(expected[1])
    with pytest.raises(ValueError, match="no numbers"):
        measured.losses(logits[1:, :, :0], y[:0])


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(1e-6, math.pi - 1e-6), st.floats(1e-9, 1e-3))
def test_angle_follows_from_the_sides_of_a_triangle(a: float, b: float, gamma: float, small: float) -> None:
    radial, c = abs(a - b), math.hypot(b * math.sin(gamma), a - b * math.cos(gamma))
    sides = [
        *((a, b, c), (b, a, c), (3, 3, 6 * math.sin(small / 2))),
        *((a, b, radial), (a, b, radial * (1 - 1e-15))),
    ]
    found = angle(*torch.tensor(sides, dtype=torch.float64).T).tolist()
    assert found[0] == found[1] == pytest.approx(gamma, abs=1e-7)
    assert found[2] == pytest.approx(small, rel=1e-9)
    assert found[3:] == pytest.approx([0, 0], abs=1e-6)  # a radial step, also if too short by rounding


def _matrices(trainer: PackTrainer) -> list[list[Tensor]]:  # lane → weights
    names = ("weight1", "weight2", "weight3")
    return [[trainer.arena.named[name][k].flatten().clone() for name in names] for k in range(3)]


def test_diagnostics_describe_the_last_update_of_an_epoch() -> None:
    x, y = splits(F64).train.x[:16], splits(F64).train.y[:16]
    for name, power in (("sgdw", 2), ("sgdp", 2), ("adam", 1), ("adamp", 1)):
        trainer = pack(name, task("mlp-norm", 9), WELL, data=splits(F64))
        for t in range(3):
            before = _matrices(trainer)
            trainer.step(x, y, t)
        eta = trainer.timetable.eta(2)
        curves = {found: values[0] for found, values in trainer.diagnostics.curves.items()}
        for lane, (start, end) in enumerate(zip(before, _matrices(trainer), strict=True)):
            cosines = [float(u @ w / (u.norm() * w.norm())) for u, w in zip(start, end, strict=True)]
            rates = [eta * WELL[lane].lr / float(w.norm()) ** power for w in start]
            norm = math.sqrt(sum(float(w @ w) for w in end))
            assert curves["norm"][lane] == pytest.approx(norm, rel=1e-12), name
            assert curves["rotation"][lane] == pytest.approx(sum(map(math.acos, cosines)) / 3, rel=1e-6), name
            assert curves["effective_lr"][lane] == pytest.approx(sum(rates) / 3, rel=1e-12), name


def test_every_lane_has_a_value_per_epoch_and_nan_after_it_diverged() -> None:
    for name, net in (("sgd", "mlp"), ("adamw", "mlp-norm"), ("adamp", "mlp"), ("sgdp", "mlp-norm")):
        trials = pack(name, task(net, 3), WELL).run()
        for trial in trials:
            measured = {found for found in trial.curves if not found.startswith(("train_", "val_"))}
            assert measured == NAMES | ({"projection"} if name.endswith("p") else set()), name
            for found in measured:
                assert len(trial.curves[found]) == 3
                assert all(0 <= value < math.inf for value in trial.curves[found]), (name, found)
            assert max(trial.curves.get("projection", (0,))) <= 1
            assert not measured & trial.metrics.keys()
    (ill,) = pack("sgd", task("mlp", 3), [ILL]).run()
    assert all(math.isnan(ill.curves[found][-1]) for found in NAMES)


def test_diagnostics_change_no_result_and_make_no_lane_diverge(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> list[Trial]:
        return pack("adamw", task("mlp-norm"), WELL).run()

    measured = trained()
    with monkeypatch.context() as patch:
        patch.setattr("lrwd_sweep.engine.metrics.angle", lambda a, b, c: a / 0)
        for trial, usual in zip(trained(), measured, strict=True):
            assert (trial.status, trial.metrics) == (Status.COMPLETE, usual.metrics)
            assert all(map(math.isnan, trial.curves["rotation"]))
            assert trial.curves["norm"] == usual.curves["norm"]
    monkeypatch.setattr(Diagnostics, "before", lambda self: None)
    for with_, without in zip(measured, trained(), strict=True):
        assert with_.metrics == without.metrics
        assert {name: c for name, c in with_.curves.items() if name not in NAMES} == without.curves
