"""A lane equals a lone run; lanes do not see each other; the same specification gives the same bits."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lrwd_sweep.data import digits
from lrwd_sweep.engine.lane_state import Arena, generator
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.lab.bench.contenders import module
from lrwd_sweep.lab.references import lone_rule
from lrwd_sweep.nets import build, network
from lrwd_sweep.optim.projection import columns
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.task import Task
from tests.small import ADAMW, CELLS, CPU, F64, WELL, pack, splits, task

# Each optimizer, in turn with the schedules and both networks; the update alone is tested in tests/optim.
NAMES = [
    *("sgd", "sgdw", "sgdw:lr-scaled", "adam", "adamw", "adamw:lr-scaled", "amsgradw:fixed", "adampw"),
    *("rmspropw:corrected", "adamw:normalized", "sgdpw"),
]


def _lone(name: str, of: Task, cell: Cell, seed: int) -> tuple[Tensor, list[float], list[Tensor]]:
    """Train in torch.nn by the optimizer's reference; return θ, and the loss and logits of every batch."""
    net, train, times = module(of).double(), splits(F64).train, of.timetable
    parameters, losses, seen = list(net.parameters()), list[float](), list[Tensor]()
    with torch.no_grad():
        for value, first in zip(
            parameters, network(of).init(generator(seed, "parameters")).values(), strict=True
        ):
            value.copy_(first)
    rules = [lone_rule(Optimizer.parse(name), of, cell.lr, cell.weight_decay) for _ in parameters]
    order = generator(seed, "data order")
    for t in range(of.steps):
        if t % of.steps_per_epoch == 0:
            batches = iter(torch.randperm(len(train), generator=order).split(of.batch_size))  # type: ignore[no-untyped-call]
        x, y = train.batch(next(batches))
        seen.append(net(x))
        loss = cross_entropy(seen[-1], y)
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for value, g, rule in zip(parameters, grads, rules, strict=True):
                value.copy_(rule(value, g, times.eta(t), t + 1, times.steps_of_cycle(t)))
    return torch.cat([value.detach().flatten() for value in parameters]), losses, seen


def test_lane_follows_a_lone_run_by_the_reference_of_its_optimizer() -> None:
    for k, name in enumerate(NAMES):
        schedule = list(Schedule)[k % len(Schedule)]
        of = task(("mlp-norm", "mlp")[k % 2], epochs=9, schedule=schedule)
        cells = (WELL if name.startswith("sgd") else CELLS)[:2]
        trainer = pack(name, of, cells, seed=3, data=splits(F64))
        trials = trainer.run()
        for lane, cell in enumerate(cells):
            theta, losses, _ = _lone(name, of, cell, 3)
            assert (trainer.arena.theta[lane] - theta).abs().max() < 1e-10, (name, schedule, cell)
            epoch_means = [math.fsum(losses[k : k + 3]) / 3 for k in range(0, of.steps, 3)]
            assert trials[lane].curves["train_loss"] == pytest.approx(epoch_means, abs=1e-10), (name, cell)


def _errors(logits: Tensor, y: Tensor) -> tuple[float, float]:
    missed = (logits.topk(5, dim=1).indices != y.unsqueeze(1)).all(1)
    return (logits.argmax(1) != y).double().mean().item(), missed.double().mean().item()


def test_measures_equal_those_of_torch() -> None:
    """Errors of training are those of batches before their updates, others those of evaluation mode."""
    data = splits(F64)
    of = task("mlp", 1, sizes=replace(task().data_set, classes=10))
    trainer = pack("sgd", of, WELL[:1], data=data)
    (trial,) = trainer.run()
    predictor = trainer.lanes.predictor()
    for name, split in (("val", data.validation), ("test", data.test)):
        logits = predictor.predict(split.x)[0].T
        found = [trial.metrics[f"{name}_{measure}"] for measure in ("loss", "error", "top5_error")]
        assert found == pytest.approx([cross_entropy(logits, split.y).item(), *_errors(logits, split.y)])
    _, losses, seen = _lone("sgd", of, WELL[0], 0)
    shuffled = torch.randperm(48, generator=generator(0, "data order"))
    expected = _errors(torch.cat(seen), data.train.y[shuffled])
    assert trial.curves["train_loss"][0] == pytest.approx(sum(losses) / 3)
    assert (trial.curves["train_error"][0], trial.curves["train_top5_error"][0]) == pytest.approx(expected)


def test_every_restart_leaves_a_snapshot_and_the_last_is_the_result() -> None:
    of = task("mlp-norm", 8, schedule=Schedule.RESTARTS, t_0=2, t_mult=2, eval_every=1)  # zeros at 2 and 6
    cells = [Cell(0.02, 0.3), Cell(0.01, 0.1)]
    whole, stopped = (pack("adamwr", each, cells).run() for each in (of, of.changed(epochs=6)))
    for trial, short in zip(whole, stopped, strict=True):
        assert list(trial.snapshots) == [2, 6]
        assert trial.metrics == trial.snapshots[6] == short.metrics
        assert len(trial.curves["val_loss"]) == 8
        for epoch, found in trial.snapshots.items():
            assert found["val_loss"] == trial.curves["val_loss"][epoch - 1]
            assert {"test_loss", "test_error", "test_top5_error"} <= found.keys()
    assert whole[0].snapshots[2] != whole[0].snapshots[6]
    assert pack("adamw", task(), cells).run()[0].snapshots == {}
    trainer = pack("adamwr", of, cells)

    def poison(epoch: int, metrics: dict[str, list[float]]) -> None:
        if epoch >= 2:
            trainer.arena.theta[0] = torch.nan

    poisoned = trainer.run(poison)
    assert poisoned[0].status is Status.DIVERGED
    assert poisoned[0].snapshots == {2: whole[0].snapshots[2]}
    assert poisoned[1:] == whole[1:]


def test_a_lane_stopped_by_one_bad_batch_has_no_figures_afterwards() -> None:
    """It stays where its weights were finite, and on other images their loss is finite too."""
    x = splits().train.x.clone()
    x[torch.randperm(len(x), generator=generator(0, "data order"))[0]] = torch.inf
    data = replace(splits(), train=replace(splits().train, x=x))
    of = task("tests.nets.awkward:Base", 3, schedule=Schedule.RESTARTS, t_0=1, t_mult=1)
    trainer = pack("sgd", of, WELL[:1], data=data)
    (trial,) = trainer.run()
    assert trial.status is Status.DIVERGED
    assert trainer.arena.theta.isfinite().all()
    assert trial.snapshots == {}
    assert all(map(math.isnan, trial.curves["val_loss"]))


def test_seeds_differ_and_are_the_same_for_every_optimizer() -> None:
    cell = Cell(1e-30, 0.0)  # too small to move: only the seed is left
    lanes = ("sgd", 0), ("adamw", 0), ("sgd", 1)
    first, same, other = (
        pack(name, task(epochs=1), [cell], seed=seed).run()[0].metrics for name, seed in lanes
    )
    assert first == same != other


def test_default_task_is_learnt() -> None:
    data = digits.load().to(CPU, torch.float32)
    (trial,) = PackTrainer(ADAMW, Task(), [Cell(2**-7, 2**-6)], 0, data).run()
    assert trial.metrics["val_error"] < 0.1
    assert trial.metrics["train_loss"] < 0.1
    assert len(trial.curves["val_loss"]) == 60


def test_evaluations_are_even_in_log_time_and_include_both_ends() -> None:
    assert Task(epochs=60).evaluations == (1, 2, 3, 4, 6, 9, 14, 20, 29, 41, 60)
    assert Task(epochs=1).evaluations == (1,)
    assert Task(epochs=10, eval_every=4).evaluations == (1, 4, 8, 10)
    assert Task(epochs=10, eval_every=100).evaluations == (1, 10)
    restarts = Task(epochs=15, schedule=Schedule.RESTARTS, t_0=1, eval_every=15)
    assert restarts.evaluations == (1, 3, 7, 15)  # the snapshots at the ends of cycles


def test_results_do_not_depend_on_how_often_lanes_are_validated() -> None:
    ways = ("mlp", "native", 20), ("cnn-norm", "loop", 6), ("tests.nets.awkward:Normed", "vmap", 6)
    for net, engine, epochs in ways:
        of = task(net, epochs, engine=engine)
        often, seldom = (pack("adamw", of.changed(eval_every=every)).run() for every in (1, None))
        for a, b in zip(often, seldom, strict=True):
            assert (a.metrics, a.curves["train_loss"]) == (b.metrics, b.curves["train_loss"]), net
            assert all(math.isfinite(value) for value in a.curves["val_loss"]), net
            values = zip(a.curves["val_loss"], b.curves["val_loss"], strict=True)
            for epoch, (every, some) in enumerate(values, 1):
                assert some == every if epoch in of.evaluations else math.isnan(some), (net, epoch)
        first, second = (trial.metrics for trial in often[:2])
        assert first["initial_val_loss"] == second["initial_val_loss"], net  # before the first step
        assert 1 < first["initial_val_loss"] < 4
        assert first["initial_val_error"] > 0.5


def _stacked(init: dict[str, Tensor], lanes: int = 3) -> Arena:
    return Arena.stack(init, lanes, device=CPU, dtype=torch.float64)


@pytest.mark.parametrize("net", ["cnn", "torchvision:shufflenet_v2_x0_5"])
def test_every_lane_has_the_initial_parameters(net: str) -> None:
    init = build(net, (3, 8, 8), 4, engine="loop").init(torch.Generator().manual_seed(0))
    arena = _stacked(init)
    for name, value in init.items():
        assert torch.equal(arena.named[name], value.expand(3, *value.shape)), name
        for views in (arena.named, arena.named_grad):
            assert views[name].shape == (3, *value.shape), name
            last = value.dim() == 4
            assert not last or views[name][1].is_contiguous(memory_format=torch.channels_last), name
    assert any(value.dim() == 4 for value in init.values())
    assert [part.shape for part in arena.layout] == [tuple(value.shape) for value in init.values()]
    assert columns(arena.layout) == (slice(0, arena.theta.shape[1]),)


def test_views_share_the_arena_and_keep_a_row_per_output_channel() -> None:
    weight = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    arena = _stacked({"a": torch.zeros(5), "w": weight.contiguous(memory_format=torch.channels_last)})
    arena.named["w"][2].add_(100)
    rows = arena.theta[:, 5:].view(3, 2, 12)
    for channel in range(2):
        assert set(rows[0, channel].tolist()) == set(weight[channel].flatten().tolist())
        assert set(rows[2, channel].tolist()) == set((weight[channel] + 100).flatten().tolist())
    assert rows[0, 0, :3].tolist() == weight[0, :, 0, 0].tolist()


def test_padding_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Arena.stack
    for name in ("adamw", "sgd", "adagradw", "adamp"):
        narrow = pack(name, task(), WELL)
        with monkeypatch.context() as patch:
            patch.setattr(
                Arena, "stack", lambda *given, **options: stack(*given, **options | {"align": 1000})
            )
            wide = pack(name, task(), WELL)
        assert wide.arena.theta.shape[1] % 1000 == 0
        assert wide.run() == narrow.run(), name
        assert wide.arena.theta[:, narrow.arena.theta.shape[1] :].abs().max() == 0, name
