"""A lane equals a lone run; lanes do not see each other; the same specification gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.pack import PackTrainer, Stopped, generator
from lrwd_sweep.nets import build
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.task import Task
from tests.engine.reference import Network, Rule, eta, follow, paper_adam, paper_sgd

STEPS = 54  # nine epochs of six batches
# Adam divides rounding noise by its own size: from α = 0.01 on, torch.optim started one ulp away from itself
# is more than 1e-10 away after 54 steps, so α stays below.
CELLS = {
    "sgd": [Cell(0.3, 1e-3), Cell(0.05, 0.02), Cell(0.01, 0.0)],
    "adam": [Cell(0.004, 1e-3), Cell(0.002, 0.05), Cell(0.001, 0.0)],
}
NAMES = [f"{family}{rule}" for family in ("sgd", "adam") for rule in ("", "w", "w:lr-scaled")]
NETS = ("mlp-norm", "mlp")
WELL = [Cell(0.1, 1e-3), Cell(0.2, 1e-2), Cell(0.05, 1e-4), Cell(0.01, 0.0), Cell(0.3, 1e-3)]
ILL = Cell(1e38, 1e-3)  # the loss overflows within a few steps


def _pack(name: str, task: Task, cells: list[Cell], splits: Splits, seed: int = 0) -> PackTrainer:
    return PackTrainer(Optimizer.parse(name), task, cells, seed, splits)


def _batches(splits: Splits, seed: int, task: Task) -> list[tuple[Tensor, Tensor]]:
    order = generator(seed, "data order")
    found = []
    for _ in range(task.epochs):
        shuffled = torch.randperm(len(splits.train), generator=order)
        for k in range(task.steps_per_epoch):
            batch = shuffled[k * task.batch_size : (k + 1) * task.batch_size]
            found.append((splits.train.x[batch], splits.train.y[batch]))
    return found


def _lone(net: str, seed: int) -> Network:
    network = Network(norm_logits=net == "mlp-norm").double()
    network.load(build(net, (1, 8, 8), 10).init(generator(seed, "parameters")))
    return network


def _distance(trainer: PackTrainer, lane: int, network: Network) -> float:
    return (trainer.arena.theta[lane] - network.flat()).abs().max().item()


@pytest.mark.parametrize("net", NETS)
def test_lane_follows_the_algorithm_of_the_paper(net: str, digits64: Splits) -> None:
    """Every rule of decay once per network, and every schedule."""
    schedules = list(Schedule) if net == "mlp" else list(Schedule)[::-1]
    for k, name in enumerate(NAMES):
        optimizer, schedule = Optimizer.parse(name), schedules[k % len(schedules)]
        task, cells = Task(epochs=9, net=net, schedule=schedule), CELLS[str(optimizer.family)]
        trainer = _pack(name, task, cells, digits64, seed=3)
        trials = trainer.run()
        assert task.steps == STEPS
        algorithm: Callable[..., Rule] = paper_sgd if name.startswith("sgd") else paper_adam
        for lane, cell in enumerate(cells):
            network = _lone(net, 3)
            rule = algorithm(cell.lr, cell.weight_decay, str(optimizer.rule))
            losses = list(follow(network, _batches(digits64, 3, task), schedule, STEPS, rule))
            assert _distance(trainer, lane, network) < 1e-10, (name, schedule, cell)
            epoch_means = [math.fsum(losses[k : k + 6]) / 6 for k in range(0, STEPS, 6)]
            assert trials[lane].curves["train_loss"] == pytest.approx(epoch_means, abs=1e-10), (name, cell)


def test_lane_follows_torch_optim_and_sgd_only_at_a_constant_rate(digits64: Splits) -> None:
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": partial(torch.optim.SGD, momentum=0.9),
        "adam": torch.optim.Adam,
        "adamw:lr-scaled": torch.optim.AdamW,
    }
    for name, net, schedule in (
        ("adam", "mlp-norm", Schedule.COSINE),
        ("adam", "mlp", Schedule.RESTARTS),
        ("adamw:lr-scaled", "mlp-norm", Schedule.STEP),
        ("adamw:lr-scaled", "mlp", Schedule.LINEAR),
        ("sgd", "mlp-norm", Schedule.FIXED),
        ("sgd", "mlp-norm", Schedule.COSINE),
    ):
        task, cells = Task(epochs=9, net=net, schedule=schedule), CELLS[name.split("w")[0]]
        trainer = _pack(name, task, cells, digits64)
        trainer.run()
        for lane, cell in enumerate(cells):
            network = _lone(net, 0)
            optimizer = kinds[name](network.parameters(), lr=cell.lr, weight_decay=cell.weight_decay)
            for t, (x, y) in enumerate(_batches(digits64, 0, task)):
                for group in optimizer.param_groups:
                    group["lr"] = cell.lr * eta(schedule, t, STEPS)
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            differs = name == "sgd" and schedule is Schedule.COSINE
            assert (_distance(trainer, lane, network) > 1e-6) is differs, (name, net, schedule, cell)
            assert differs or _distance(trainer, lane, network) < 1e-10, (name, net, schedule, cell)


@pytest.mark.parametrize("net", NETS)
def test_measures_equal_those_of_torch(net: str, digits64: Splits) -> None:
    """Errors of training are those of batches before their updates, others those of evaluation mode."""
    cell, task = CELLS["sgd"][0], Task(epochs=1, net=net)
    (trial,) = _pack("sgd", task, [cell], digits64).run()
    network, wrong, missed = _lone(net, 0), 0, 0
    batches, seen = _batches(digits64, 0, task), list[Tensor]()
    hook = network.register_forward_hook(lambda module, inputs, logits: seen.append(logits.detach()))
    assert list(follow(network, batches, "cosine", 6, paper_sgd(cell.lr, cell.weight_decay, "coupled")))
    for logits, (_, y) in zip(seen, batches, strict=True):
        wrong += int((logits.argmax(dim=1) != y).sum())
        missed += int((logits.topk(5, dim=1).indices != y.unsqueeze(1)).all(dim=1).sum())
    assert trial.curves["train_error"][0] == pytest.approx(wrong / 384)
    assert trial.curves["train_top5_error"][0] == pytest.approx(missed / 384)
    hook.remove()
    network.eval()
    for name, split in (("val", digits64.validation), ("test", digits64.test)):
        with torch.no_grad():
            logits = network(split.x)
        expected = {
            "loss": nn.functional.cross_entropy(logits, split.y).item(),
            "error": (logits.argmax(dim=1) != split.y).double().mean().item(),
            "top5_error": (logits.topk(5, dim=1).indices != split.y.unsqueeze(1))
            .all(1)
            .double()
            .mean()
            .item(),
        }
        for measure, value in expected.items():
            assert trial.metrics[f"{name}_{measure}"] == pytest.approx(value, abs=1e-10), (name, measure)


def test_every_restart_leaves_a_snapshot_and_the_last_is_the_result(digits32: Splits) -> None:
    task = Task(epochs=8, schedule=Schedule.RESTARTS, t_0=2, t_mult=2)  # zeros at 2 and 6
    cells = [Cell(0.02, 0.3), Cell(0.01, 0.1)]
    whole = _pack("adamwr", task, cells, digits32).run()
    stopped = _pack("adamwr", task.changed(epochs=6), cells, digits32).run()
    for trial, short in zip(whole, stopped, strict=True):
        assert list(trial.snapshots) == [2, 6]
        assert trial.metrics == trial.snapshots[6] == short.metrics
        assert len(trial.curves["val_loss"]) == 8
        for epoch, found in trial.snapshots.items():
            assert found["val_loss"] == trial.curves["val_loss"][epoch - 1]
            assert {"test_loss", "test_error", "test_top5_error"} <= found.keys()
    assert whole[0].snapshots[2] != whole[0].snapshots[6]
    assert _pack("adamw", Task(epochs=1), cells, digits32).run()[0].snapshots == {}

    trainer = _pack("adamwr", task, cells, digits32)

    def poison(epoch: int, metrics: dict[str, list[float]]) -> None:
        if epoch >= 2:
            trainer.arena.theta[0] = torch.nan

    poisoned = trainer.run(poison)
    assert poisoned[0].status is Status.DIVERGED
    assert poisoned[0].snapshots == {2: whole[0].snapshots[2]}
    assert poisoned[1:] == whole[1:]


def test_neighbours_of_a_diverged_lane_keep_every_bit(digits32: Splits) -> None:
    task = Task(net="mlp", epochs=3)
    for k, name in enumerate(NAMES):
        index = k % len(WELL)
        with_ill = _pack(name, task, [*WELL[:index], ILL, *WELL[index + 1 :]], digits32)
        without = _pack(name, task, WELL, digits32)
        trials, expected = with_ill.run(), without.run()
        assert trials[index].status is Status.DIVERGED, name
        for lane in set(range(len(WELL))) - {index}:
            assert torch.equal(with_ill.arena.theta[lane], without.arena.theta[lane]), (name, lane)
            assert trials[lane] == expected[lane], (name, lane)
            assert expected[lane].status is Status.COMPLETE, (name, lane)


def test_a_diverged_lane_stays_where_it_diverged(digits32: Splits) -> None:
    x, y = digits32.train.x[:64], digits32.train.y[:64]
    for name in NAMES:
        trainer, t = _pack(name, Task(net="mlp", epochs=3), [ILL, WELL[0]], digits32), 0
        while t < 50 and torch.isfinite(trainer.step(x, y, t)[0, 0]):
            t += 1
        frozen, moving = trainer.arena.theta.clone()
        for later in range(t + 1, t + 5):
            trainer.step(x, y, later)
        assert torch.equal(trainer.arena.theta[0].nan_to_num(), frozen.nan_to_num()), name
        assert not torch.equal(trainer.arena.theta[1], moving), name
        assert int(trainer.died_at[0]) == t, name


def test_a_diverged_trial_has_no_metrics_and_reports_its_step(digits32: Splits) -> None:
    (trial,) = _pack("sgd", Task(net="mlp", epochs=3), [ILL], digits32).run()
    assert trial.metrics == {}
    assert "of 18" in trial.detail
    assert all(len(curve) == 3 and math.isnan(curve[-1]) for curve in trial.curves.values())


def test_a_lane_stopped_by_one_bad_batch_has_no_figures_afterwards(digits32: Splits) -> None:
    """It stays where its weights were finite, and on other images their loss is finite too."""
    x = digits32.train.x.clone()
    x[torch.randperm(len(x), generator=generator(0, "data order"))[0]] = 3e38
    splits = replace(digits32, train=replace(digits32.train, x=x))
    task = Task(net="tests.engine.looking:Plain", epochs=3, schedule=Schedule.RESTARTS, t_0=1, t_mult=1)
    trainer = _pack("sgd", task, [WELL[0]], splits)
    (trial,) = trainer.run()
    assert trial.status is Status.DIVERGED
    assert trainer.arena.theta.isfinite().all()
    assert trial.snapshots == {}
    assert all(map(math.isnan, trial.curves["val_loss"]))


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_bits_depend_neither_on_the_pack_nor_on_chance(digits32: Splits, one_thread: None) -> None:
    cells = [Cell(2.0**-7, 2.0 ** (-12 + k / 4)) for k in range(33)]
    for net in NETS:
        task = Task(net=net, epochs=3)
        whole = _pack("adamw", task, cells, digits32).run()
        for size in (1, 2, 5, 22):
            assert _pack("adamw", task, cells[:size], digits32).run() == whole[:size], (net, size)
    for name in NAMES:
        first, again = (_pack(name, Task(epochs=2), WELL, digits32, seed=2).run() for _ in range(2))
        assert first == again, name


def test_seeds_differ_and_are_the_same_for_every_optimizer(digits32: Splits) -> None:
    cell = Cell(1e-30, 0.0)  # too small to move: only the seed is left
    losses = {
        (name, seed): _pack(name, Task(epochs=1), [cell], digits32, seed).run()[0].metrics
        for name in ("sgd", "adamw")
        for seed in (0, 1)
    }
    assert losses["sgd", 0] == losses["adamw", 0]
    assert losses["sgd", 0] != losses["sgd", 1]


def test_training_stops_between_two_steps(digits32: Splits) -> None:
    asked, seen = iter([False] * 8 + [True] * 100), list[int]()
    with pytest.raises(Stopped):
        _pack("adamw", Task(epochs=3), WELL, digits32).run(
            lambda epoch, _: seen.append(epoch), asked.__next__
        )
    assert seen == [1]  # six steps of the first epoch, two of the second


def test_default_task_is_learnt(digits32: Splits) -> None:
    (trial,) = _pack("adamw", Task(), [Cell(2**-7, 2**-6)], digits32).run()
    assert trial.metrics["val_error"] < 0.1
    assert trial.metrics["train_loss"] < 0.1
    assert len(trial.curves["val_loss"]) == 60
