"""A lane equals a lone run, its measures are those of torch, and diagnostics change no bit."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

from lrwd_sweep.engine.lane_state import Arena, generator
from lrwd_sweep.engine.metrics import Diagnostics, Measures, angle, recall_at_1
from lrwd_sweep.lab.bench.contenders import module
from lrwd_sweep.nets import network
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.task import Task
from tests.small import F64, ILL, WELL, pack, splits, task

DIAGNOSTICS = {"norm", "rotation", "effective_lr"}


def test_measures_equal_those_of_torch() -> None:
    """Measures of training are those of batches in training mode, others those of evaluation mode."""
    data, of = splits(F64), task("mlp", 1, sizes=replace(task().data_set, classes=10))
    trainer = pack("sgd", of, [Cell(1e-30, 0.0)], data=data)  # too small a step to move
    (trial,) = trainer.run()
    net, predict = module(of).double(), trainer.lanes.predictor().predict
    nn.utils.vector_to_parameters(trainer.arena.theta[0], net.parameters())
    x, y = data.train.batch(torch.randperm(48, generator=generator(0, "data order")))
    found = {"train": (torch.cat([net(part) for part in x.split(16)]), y)}
    found |= {n: (predict(s.x)[0].T, s.y) for n, s in (("val", data.validation), ("test", data.test))}
    for name, (logits, y) in found.items():
        missed = (logits.topk(5, dim=1).indices != y.unsqueeze(1)).all(1)
        errors = [wrong.double().mean().item() for wrong in (logits.argmax(1) != y, missed)]
        measured = [trial.metrics[f"{name}_{measure}"] for measure in ("loss", "error", "top5_error")]
        assert measured == pytest.approx([cross_entropy(logits, y).item(), *errors]), name


def test_every_restart_leaves_a_snapshot_and_the_last_is_the_result() -> None:
    of = task("mlp-norm", 8, schedule=Schedule.RESTARTS, t_0=2, t_mult=2, eval_every=1)  # zeros at 2 and 6
    cells = [Cell(0.02, 0.3), Cell(0.01, 0.1)]
    whole, stopped = (pack("adamwr", each, cells).run() for each in (of, of.changed(epochs=6)))
    for trial, short in zip(whole, stopped, strict=True):
        assert list(trial.snapshots) == [2, 6]
        assert trial.metrics == trial.snapshots[6] == short.metrics
        curve, snapshots = trial.curves["val_loss"], trial.snapshots.values()
        assert (len(curve), [found["val_loss"] for found in snapshots]) == (8, [curve[1], curve[5]])
        assert all({"test_loss", "test_error", "test_top5_error"} <= found.keys() for found in snapshots)
    assert whole[0].snapshots[2] != whole[0].snapshots[6]
    assert pack("adamw", task(), cells).run()[0].snapshots == {}
    trainer = pack("adamwr", of, cells)
    poisoned = trainer.run(lambda epoch, _: trainer.arena.theta[0].mul_(1.0 if epoch < 2 else torch.nan))  # type: ignore[arg-type]
    assert (poisoned[0].status, poisoned[0].snapshots) == (Status.DIVERGED, {2: whole[0].snapshots[2]})
    assert poisoned[1:] == whole[1:]


def test_a_lane_stopped_by_one_bad_batch_has_no_figures_afterwards() -> None:
    """It stays where its weights were finite, and on other images their loss is finite too."""
    x = splits().train.x.clone()
    x[torch.randperm(len(x), generator=generator(0, "data order"))[0]] = torch.inf
    data = replace(splits(), train=replace(splits().train, x=x))
    of = task("tests.nets.awkward:Base", 3, schedule=Schedule.RESTARTS, t_0=1, t_mult=1)
    trainer = pack("sgd", of, WELL[:1], data=data)
    (trial,) = trainer.run()
    assert (trial.status, trial.snapshots) == (Status.DIVERGED, {})
    assert trainer.arena.theta.isfinite().all()
    assert all(map(math.isnan, trial.curves["val_loss"]))


def test_evaluations_are_even_in_log_time_and_their_number_changes_no_result() -> None:
    assert Task(epochs=60).evaluations == (1, 2, 3, 4, 6, 9, 14, 20, 29, 41, 60)
    assert Task(epochs=1).evaluations == (1,)
    assert Task(epochs=10, eval_every=4).evaluations == (1, 4, 8, 10)
    restarts = Task(epochs=15, schedule=Schedule.RESTARTS, t_0=1, eval_every=15)
    assert restarts.evaluations == (1, 3, 7, 15)  # the snapshots at the ends of cycles
    ways = ("mlp", "native", 20), ("cnn-norm", "loop", 6), ("tests.nets.awkward:Normed", "vmap", 6)
    for net, engine, epochs in ways:
        of = task(net, epochs, engine=engine)
        often, seldom = (pack("adamw", of.changed(eval_every=every)).run() for every in (1, None))
        for a, b in zip(often, seldom, strict=True):
            assert (a.metrics, a.curves["train_loss"]) == (b.metrics, b.curves["train_loss"]), net
            every, some = a.curves["val_loss"], b.curves["val_loss"]
            known = tuple(v if epoch in of.evaluations else math.nan for epoch, v in enumerate(every, 1))
            assert (repr(some), all(map(math.isfinite, every))) == (repr(known), True), net
        first, second = (trial.metrics for trial in often[:2])
        assert 1 < first["initial_val_loss"] == second["initial_val_loss"] < 4, net  # before the first step
        assert first["initial_val_error"] > 0.5


def test_padding_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Arena.stack
    for name in ("adamw", "sgd", "adagradw", "adamp"):
        narrow = pack(name, task(), WELL)
        with monkeypatch.context() as patch:
            patch.setattr(Arena, "stack", lambda *given, **own: stack(*given, **own | {"align": 1000}))
            wide = pack(name, task(), WELL)
        assert wide.arena.theta.shape[1] % 1000 == 0
        assert wide.run() == narrow.run(), name
        assert wide.arena.theta[:, narrow.arena.theta.shape[1] :].abs().max() == 0, name


def test_recall_counts_items_whose_nearest_other_has_their_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrwd_sweep.engine.metrics.RECALL_ROWS", 4)
    e, y = torch.randn(3, 5, 30, generator=torch.Generator().manual_seed(0), dtype=F64), torch.arange(30) % 3
    e[1] = functional.one_hot(y, 5).t() * torch.arange(1, 31)  # a direction for each class
    e[2, 0, 0] = math.nan
    cosines = functional.cosine_similarity(e[0][:, :, None], e[0][:, None], dim=0).fill_diagonal_(-2)
    hits = int((y[cosines.argmax(1)] == y).sum())
    assert recall_at_1(e, y).tolist() == pytest.approx([hits / 30, 1.0, math.nan], nan_ok=True)
    assert 0 < hits < 30
    assert recall_at_1(e[:1, :, :1], y[:1]).tolist() == [0]  # no other item
    assert recall_at_1(e[1:2, :, :4], y[:4]).tolist() == [0.5]  # two have no other item of their class


def _strict(logits: Tensor, y: Tensor) -> Tensor:
    """Compute cross-entropy in place; refuse numbers that are not finite."""
    if not logits.isfinite().all() or not len(y):
        raise ValueError("no numbers")
    return functional.cross_entropy(logits.sub_(1), y.add_(1))


def test_a_lane_without_a_finite_loss_has_no_measures_and_a_user_loss_gets_copies() -> None:
    measured, alive = Measures(task(), network(task())), torch.tensor([True, True, False])
    for loss in (math.inf, math.nan):
        means = measured.means(torch.tensor([[loss, 6.0, 1.0], [3.0, 2.0, 1.0], [1.0, 0.0, 1.0]]), 4, alive)
        assert (means[:, 1].tolist(), bool(means[:, [0, 2]].isnan().all())) == ([1.5, 0.5, 0.0], True)
    measured.loss = _strict
    logits, y = torch.arange(24.0).view(2, 3, 4).sin(), torch.tensor([0, 1, 1, 0])
    expected = [4 * functional.cross_entropy(lane.t(), y + 1).item() for lane in logits]
    assert measured.losses(logits, y).tolist() == pytest.approx(expected)
    assert (y.tolist(), logits.equal(torch.arange(24.0).view(2, 3, 4).sin())) == ([0, 1, 1, 0], True)
    logits[0, 0, 0] = math.inf
    assert measured.losses(logits, y).tolist() == pytest.approx([math.nan, expected[1]], nan_ok=True)
    with pytest.raises(ValueError, match="no numbers"):
        measured.losses(logits[1:, :, :0], y[:0])


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(1e-6, math.pi - 1e-6), st.floats(1e-9, 1e-3))
def test_angle_follows_from_the_sides_of_a_triangle(a: float, b: float, gamma: float, small: float) -> None:
    c, d = math.hypot(b * math.sin(gamma), a - b * math.cos(gamma)), abs(a - b)
    sides = [(a, b, c), (b, a, c), (a, b, d), (a, b, d * (1 - 1e-15)), (3, 3, 6 * math.sin(small / 2))]
    found = angle(*torch.tensor(sides, dtype=F64).T).tolist()
    assert found[:2] == pytest.approx([gamma, gamma], abs=1e-7)
    assert found[2:4] == pytest.approx([0, 0], abs=1e-6)  # a radial step, also if too short by rounding
    assert found[4] == pytest.approx(small, rel=1e-9)


def test_diagnostics_describe_the_last_update_of_an_epoch() -> None:
    x, y = splits(F64).train.x[:16], splits(F64).train.y[:16]
    for name, power in (("sgdw", 2), ("sgdp", 2), ("adam", 1), ("adamp", 1)):
        trainer = pack(name, task("mlp-norm", 9), WELL, data=splits(F64))
        weights = [trainer.arena.named[f"weight{k}"] for k in (1, 2, 3)]
        for t in range(3):
            before = [w.flatten(1).clone() for w in weights]
            trainer.step(x, y, t)
        eta = trainer.timetable.eta(2)
        curves = {found: values[0] for found, values in trainer.diagnostics.curves.items()}
        for lane, cell in enumerate(WELL):
            pairs = [(a[lane], b[lane].flatten()) for a, b in zip(before, weights, strict=True)]
            turns = [math.acos(u @ w / (u.norm() * w.norm())) for u, w in pairs]
            rates = [eta * cell.lr / float(u.norm()) ** power for u, _ in pairs]
            norm = math.sqrt(sum(float(w @ w) for _, w in pairs))
            expected = {"norm": norm, "effective_lr": sum(rates) / 3}
            assert {n: curves[n][lane] for n in expected} == pytest.approx(expected, rel=1e-12), name
            assert curves["rotation"][lane] == pytest.approx(sum(turns) / 3, rel=1e-6), name


def test_every_lane_has_a_value_per_epoch_and_nan_after_it_diverged() -> None:
    for name, net in (("sgd", "mlp"), ("adamw", "mlp-norm"), ("adamp", "embed-norm"), ("sgdp", "mlp-norm")):
        for trial in pack(name, task(net, 3), WELL).run():
            measured = {found for found in trial.curves if not found.startswith(("train_", "val_"))}
            assert measured == DIAGNOSTICS | ({"projection"} if name.endswith("p") else set()), name
            for found in measured:
                assert len(trial.curves[found]) == 3
                assert all(0 <= value < math.inf for value in trial.curves[found]), (name, found)
            rates = trial.curves.get("projection", (1,))
            assert min(rates) == 1 if net == "embed-norm" else max(rates) <= 1, name
            assert not measured & trial.metrics.keys()
            recalls = {found for found in trial.metrics if "recall" in found}
            named = {f"{split}_recall_at_1" for split in ("val", "test", "initial_val")}
            assert recalls == (named if net == "embed-norm" else set()), name
    (ill,) = pack("sgd", task("embed-norm", 3), [Cell(math.inf, 0.0)]).run()
    (worse,) = pack("sgd", task("mlp", 3), [ILL]).run()
    ends = [worse.curves[found][-1] for found in DIAGNOSTICS] + [ill.curves["val_recall_at_1"][-1]]
    assert all(map(math.isnan, ends))


def test_diagnostics_change_no_result_and_make_no_lane_diverge(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = pack("adamw", task("mlp-norm"), WELL).run()
    with monkeypatch.context() as patch:
        patch.setattr("lrwd_sweep.engine.metrics.angle", lambda a, b, c: a / 0)
        for trial, one in zip(pack("adamw", task("mlp-norm"), WELL).run(), usual, strict=True):
            assert (trial.metrics, trial.curves["norm"]) == (one.metrics, one.curves["norm"])
            assert all(map(math.isnan, trial.curves["rotation"]))
    monkeypatch.setattr(Diagnostics, "before", lambda self: None)
    for trial, one in zip(pack("adamw", task("mlp-norm"), WELL).run(), usual, strict=True):
        curves = {name: curve for name, curve in one.curves.items() if name not in DIAGNOSTICS}
        assert (trial.metrics, trial.curves) == (one.metrics, curves)
