"""A lane equals a lone run; lanes do not see each other; the same spec gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

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


def _training(**options: object) -> Task:
    return Task(**{"epochs": 9, **options})  # type: ignore[arg-type]


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


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("net", ["mlp-norm", "mlp"])
def test_lane_follows_the_papers_algorithm(net: str, name: str, schedule: str, digits64: Splits) -> None:
    optimizer = Optimizer.parse(name)
    task = _training(net=net, schedule=schedule)
    cells = CELLS[str(optimizer.family)]
    trainer = PackTrainer(optimizer, task, cells, 3, digits64)
    trials = trainer.run()
    assert task.steps == STEPS
    algorithm: Callable[..., Rule] = paper_sgd if name.startswith("sgd") else paper_adam
    for lane, cell in enumerate(cells):
        network = _lone(net, 3)
        rule = algorithm(cell.lr, cell.weight_decay, str(optimizer.rule))
        losses = list(follow(network, _batches(digits64, 3, task), schedule, STEPS, rule))
        assert _distance(trainer, lane, network) < 1e-10
        epoch_means = [math.fsum(losses[k : k + 6]) / 6 for k in range(0, STEPS, 6)]
        assert trials[lane].curves["train_loss"] == pytest.approx(epoch_means, abs=1e-10)


def _torch_optimizer(name: str, network: Network, cell: Cell) -> torch.optim.Optimizer:
    kind: type[torch.optim.Adam] = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(network.parameters(), lr=cell.lr, weight_decay=cell.weight_decay)


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("name", ["adam", "adamw:lr-scaled"])
@pytest.mark.parametrize("net", ["mlp-norm", "mlp"])
def test_lane_follows_torch_optim(net: str, name: str, schedule: str, digits64: Splits) -> None:
    task = _training(net=net, schedule=schedule)
    trainer = PackTrainer(Optimizer.parse(name), task, CELLS["adam"], 0, digits64)
    trainer.run()
    for lane, cell in enumerate(CELLS["adam"]):
        network = _lone(net, 0)
        optimizer = _torch_optimizer(name, network, cell)
        for t, (x, y) in enumerate(_batches(digits64, 0, task)):
            for group in optimizer.param_groups:
                group["lr"] = cell.lr * eta(schedule, t, STEPS)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert _distance(trainer, lane, network) < 1e-10


def test_sgd_is_torchs_at_a_constant_rate_and_not_under_a_schedule(digits64: Splits) -> None:
    distances = {}
    for schedule in ("fixed", "cosine"):
        task = _training(schedule=schedule)
        trainer = PackTrainer(Optimizer.parse("sgd"), task, CELLS["sgd"], 0, digits64)
        trainer.run()
        network, cell = _lone("mlp-norm", 0), CELLS["sgd"][1]
        optimizer = torch.optim.SGD(
            network.parameters(), lr=cell.lr, momentum=0.9, weight_decay=cell.weight_decay
        )
        for t, (x, y) in enumerate(_batches(digits64, 0, task)):
            optimizer.param_groups[0]["lr"] = cell.lr * eta(schedule, t, STEPS)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        distances[schedule] = _distance(trainer, 1, network)
    assert distances["fixed"] < 1e-10
    assert distances["cosine"] > 1e-4


@pytest.mark.parametrize("net", ["mlp-norm", "mlp"])
def test_evaluation_is_that_of_torch_nn_in_eval_mode(net: str, digits64: Splits) -> None:
    task = _training(net=net)
    cell = CELLS["adam"][0]
    trainer = PackTrainer(Optimizer.parse("adamw"), task, [cell], 1, digits64)
    trial = trainer.run()[0]
    network = _lone(net, 1)
    rule = paper_adam(cell.lr, cell.weight_decay, "independent")
    assert list(follow(network, _batches(digits64, 1, task), "cosine", STEPS, rule))
    network.eval()
    for name, split in (("val", digits64.validation), ("test", digits64.test)):
        with torch.no_grad():
            logits = network(split.x)
        assert trial.metrics[f"{name}_loss"] == pytest.approx(
            nn.functional.cross_entropy(logits, split.y).item(), abs=1e-10
        )
        wrong = (logits.argmax(dim=1) != split.y).double().mean().item()
        assert trial.metrics[f"{name}_error"] == pytest.approx(wrong, abs=1e-12)
        five = (logits.topk(5, dim=1).indices == split.y.unsqueeze(1)).any(dim=1)
        missed = 1 - five.double().mean().item()
        assert trial.metrics[f"{name}_top5_error"] == pytest.approx(missed, abs=1e-12)


def test_training_errors_are_those_of_the_batches_before_their_updates(digits64: Splits) -> None:
    cell, task = CELLS["sgd"][0], _training(epochs=1)
    trial = PackTrainer(Optimizer.parse("sgd"), task, [cell], 0, digits64).run()[0]
    network, wrong, missed = _lone("mlp-norm", 0), 0, 0
    batches = _batches(digits64, 0, task)
    seen: list[Tensor] = []
    network.register_forward_hook(lambda module, inputs, logits: seen.append(logits.detach()))
    assert list(follow(network, batches, "cosine", 6, paper_sgd(cell.lr, cell.weight_decay, "coupled")))
    for logits, (_, y) in zip(seen, batches, strict=True):
        wrong += int((logits.argmax(dim=1) != y).sum())
        missed += int((logits.topk(5, dim=1).indices != y.unsqueeze(1)).all(dim=1).sum())
    assert trial.curves["train_error"][0] == pytest.approx(wrong / 384)
    assert trial.curves["train_top5_error"][0] == pytest.approx(missed / 384)


def test_every_restart_leaves_a_snapshot_and_the_newest_is_handed_over(digits32: Splits) -> None:
    task = Task(epochs=8, schedule=Schedule.RESTARTS, t_0=2, t_mult=2)  # zeros at 2 and 6
    optimizer, cells = Optimizer.parse("adamwr"), [Cell(0.02, 0.3), Cell(0.01, 0.1)]
    whole = PackTrainer(optimizer, task, cells, 0, digits32).run()
    stopped = PackTrainer(optimizer, task.changed(epochs=6), cells, 0, digits32).run()
    for trial, short in zip(whole, stopped, strict=True):
        assert list(trial.snapshots) == [2, 6]
        assert trial.metrics == trial.snapshots[6]
        assert trial.metrics == short.metrics
        assert len(trial.curves["val_loss"]) == 8
        for epoch, found in trial.snapshots.items():
            assert found["val_loss"] == trial.curves["val_loss"][epoch - 1]
            assert {"test_loss", "test_error", "test_top5_error"} <= found.keys()
    assert whole[0].snapshots[2] != whole[0].snapshots[6]


def test_a_run_without_restarts_has_no_snapshots(digits32: Splits) -> None:
    trial = PackTrainer(Optimizer.parse("adamw"), Task(epochs=2), WELL[:1], 0, digits32).run()[0]
    assert trial.snapshots == {}


WELL = [Cell(0.1, 1e-3), Cell(0.2, 1e-2), Cell(0.05, 1e-4), Cell(0.01, 0.0), Cell(0.3, 1e-3)]
ILL = Cell(1e38, 1e-3)  # the loss overflows within a few steps


@pytest.mark.parametrize("index", range(len(WELL)))
@pytest.mark.parametrize("name", NAMES)
def test_neighbours_of_a_diverged_lane_keep_every_bit(name: str, index: int, digits32: Splits) -> None:
    optimizer, task = Optimizer.parse(name), Task(net="mlp", epochs=3)
    cells = [ILL if lane == index else cell for lane, cell in enumerate(WELL)]
    with_ill = PackTrainer(optimizer, task, cells, 0, digits32)
    trials = with_ill.run()
    without = PackTrainer(optimizer, task, WELL, 0, digits32)
    expected = without.run()
    assert trials[index].status is Status.DIVERGED
    for lane in set(range(len(WELL))) - {index}:
        assert torch.equal(with_ill.arena.theta[lane], without.arena.theta[lane])
        assert trials[lane] == expected[lane]
        assert expected[lane].status is Status.COMPLETE


@pytest.mark.parametrize("name", NAMES)
def test_diverged_lane_stays_where_it_diverged(name: str, digits32: Splits) -> None:
    task = Task(net="mlp", epochs=3)
    trainer = PackTrainer(Optimizer.parse(name), task, [ILL, WELL[0]], 0, digits32)
    x, y = digits32.train.x[:64], digits32.train.y[:64]
    t = 0
    while t < 50 and torch.isfinite(trainer.step(x, y, t)[0, 0]):
        t += 1
    frozen = trainer.arena.theta[0].clone()
    moving = trainer.arena.theta[1].clone()
    for later in range(t + 1, t + 5):
        trainer.step(x, y, later)
    assert torch.equal(trainer.arena.theta[0].nan_to_num(), frozen.nan_to_num())
    assert not torch.equal(trainer.arena.theta[1], moving)
    assert int(trainer.died_at[0]) == t


def test_diverged_trial_has_no_metrics_and_says_where(digits32: Splits) -> None:
    task = Task(net="mlp", epochs=3)
    trial = PackTrainer(Optimizer.parse("sgd"), task, [ILL], 0, digits32).run()[0]
    assert trial.metrics == {}
    assert "of 18" in trial.detail
    assert all(len(curve) == 3 for curve in trial.curves.values())
    assert all(math.isnan(curve[-1]) for curve in trial.curves.values())


def test_a_lane_that_stopped_at_one_bad_batch_has_no_figures_from_there_on(digits32: Splits) -> None:
    """It stays where its weights were finite, and what they give on other images is finite too."""
    task = _training(net="tests.engine.looking:Plain", schedule=Schedule.RESTARTS, epochs=3, t_0=1, t_mult=1)
    x = digits32.train.x.clone()
    first = torch.randperm(len(x), generator=generator(0, "data order"))[0]
    x[first] = 3e38
    splits = replace(digits32, train=replace(digits32.train, x=x))
    trainer = PackTrainer(Optimizer.parse("sgd"), task, [WELL[0]], 0, splits)
    (trial,) = trainer.run()
    assert trial.status is Status.DIVERGED
    assert trainer.arena.theta.isfinite().all()
    assert trial.snapshots == {}
    assert all(map(math.isnan, trial.curves["val_loss"]))


@pytest.mark.parametrize("name", NAMES)
def test_same_spec_twice_gives_the_same_bits(name: str, digits32: Splits) -> None:
    optimizer, task = Optimizer.parse(name), Task(epochs=3)
    first = PackTrainer(optimizer, task, WELL, 2, digits32).run()
    again = PackTrainer(optimizer, task, WELL, 2, digits32).run()
    assert first == again


@pytest.mark.parametrize("net", ["mlp-norm", "mlp"])
def test_result_does_not_depend_on_the_size_of_the_pack(net: str, digits32: Splits) -> None:
    torch.set_num_threads(1)
    optimizer, task = Optimizer.parse("adamw"), Task(net=net, epochs=3)
    cells = [Cell(2.0**-7, 2.0 ** (-12 + k / 4)) for k in range(33)]
    whole = PackTrainer(optimizer, task, cells, 0, digits32).run()
    for size in (1, 2, 5, 22):
        assert PackTrainer(optimizer, task, cells[:size], 0, digits32).run() == whole[:size]


def test_seeds_differ_and_are_the_same_for_every_optimizer(digits32: Splits) -> None:
    task, cell = Task(epochs=1), Cell(1e-30, 0.0)  # too small to move: what is left is the seed
    losses = {
        (name, seed): PackTrainer(Optimizer.parse(name), task, [cell], seed, digits32).run()[0].metrics
        for name in ("sgd", "adamw")
        for seed in (0, 1)
    }
    assert losses["sgd", 0] == losses["adamw", 0]
    assert losses["sgd", 0] != losses["sgd", 1]


def test_training_stops_between_two_steps_when_asked(digits32: Splits) -> None:
    asked = iter([False] * 8 + [True] * 100)
    trainer = PackTrainer(Optimizer.parse("adamw"), Task(epochs=3), WELL, 0, digits32)
    seen: list[int] = []
    with pytest.raises(Stopped):
        trainer.run(lambda epoch, metrics: seen.append(epoch), lambda: next(asked))
    assert seen == [1]  # six steps of the first epoch, two of the second


def test_default_task_is_learnt(digits32: Splits) -> None:
    trial = PackTrainer(Optimizer.parse("adamw"), Task(), [Cell(2**-7, 2**-6)], 0, digits32).run()[0]
    assert trial.metrics["val_error"] < 0.1
    assert trial.metrics["train_loss"] < 0.1
    assert len(trial.curves["val_loss"]) == 60
