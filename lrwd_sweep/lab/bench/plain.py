"""The plain way: an Optuna study over torch.nn and torch.optim, one network at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.lab.bench.task import (
    EVAL_BATCH,
    Curves,
    Lane,
    Outcome,
    begin,
    computed,
    data,
    epochs,
    module,
    raced,
)
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.spec.task import Task

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every new study on stderr

TrainLane = Callable[[Lane], list[float]]
Step = Callable[[Tensor, Tensor], None]  # batch (B, *shape), (B,)


def run(task: Task, lanes: Sequence[Lane], device: torch.device) -> Outcome:
    """Train lane after lane with torch.optim.AdamW as it comes."""
    splits = data(task, device)

    def train(asked: Task, chosen: Sequence[Lane]) -> Curves:
        return study(lambda lane: train_lane(asked, splits, lane), chosen)

    return raced(train, task, lanes, device)


def train_lane(task: Task, splits: Splits, lane: Lane) -> list[float]:
    """Train a network of its own."""
    net = module(task).to(splits.train.device)
    begin(net, task, lane[1])
    return fit(net, steps(net, adamw(net, lane), task), task, splits, lane[1])


def adamw(net: nn.Module, lane: Lane, fused: bool = False) -> torch.optim.AdamW:
    """The lane's optimizer."""
    cell, _ = lane
    return torch.optim.AdamW(net.parameters(), lr=cell.lr, weight_decay=cell.weight_decay, fused=fused)


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, task: Task) -> Step:
    """What takes one step after another, with the schedule that moves at each."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, task.timetable.eta)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        loss(net, task, x, y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()

    return step


def loss(net: nn.Module, task: Task, x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of a batch, in the precision that is asked for."""
    with computed(task, x.device):
        logits = net(x)
    return functional.cross_entropy(logits.float(), y, reduction=reduction)


def fit(net: nn.Module, step: Step, task: Task, splits: Splits, seed: int) -> list[float]:
    """Train a network; its validation loss after every epoch, and its test loss at the end."""
    curve = []
    for batches in epochs(task, splits.train, seed):
        net.train()
        for x, y in batches:
            step(x, y)
        curve.append(evaluate(net, task, splits.validation))
    return [*curve, evaluate(net, task, splits.test)]


@torch.no_grad()
def evaluate(net: nn.Module, task: Task, split: Split) -> float:
    """The loss on a split, by running statistics; NaN where there is none."""
    if not len(split):
        return math.nan
    net.eval()
    losses = [loss(net, task, x, y, reduction="sum") for x, y in split.batches(EVAL_BATCH)]
    return torch.stack(losses).sum().item() / len(split)


def study(train: TrainLane, lanes: Sequence[Lane]) -> Curves:
    """The lanes as the trials of a study in memory."""
    found = optuna.create_study(sampler=optuna.samplers.RandomSampler())
    enqueue(found, lanes)
    return optimize(found, train, len(lanes))


def enqueue(study: optuna.Study, lanes: Sequence[Lane]) -> None:
    """Have the study try these lanes; a GridSampler, which every `tell` makes slower, is spared."""
    for cell, seed in lanes:
        study.enqueue_trial({"lr": cell.lr, "weight_decay": cell.weight_decay, "seed": seed})


def optimize(study: optuna.Study, train: TrainLane, count: int) -> Curves:
    """Run the next `count` trials of a study."""
    curves = Curves()

    def objective(trial: optuna.Trial) -> float:
        cell = Cell(trial.suggest_float("lr", 0, 1e3), trial.suggest_float("weight_decay", 0, 1e3))
        lane = (cell, trial.suggest_int("seed", 0, 10**6))
        curves[lane] = train(lane)
        return curves[lane][-2]  # the last validation; nothing is chosen by the test

    study.optimize(objective, n_trials=count)
    return curves
