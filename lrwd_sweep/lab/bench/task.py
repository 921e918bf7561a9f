"""What every contender trains: the same lanes, begun alike, fed alike, and the same curves handed back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

from lrwd_sweep.data import Split, Splits, load
from lrwd_sweep.engine.pack import generator
from lrwd_sweep.nets import ModuleNetwork, network
from lrwd_sweep.nets.mlp import LOGIT_SCALE, Mlp
from lrwd_sweep.nets.precision import computing
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.spec.catalog import BFLOAT16
from lrwd_sweep.spec.task import Task

OPTIMIZER = "adamw:lr-scaled"  # torch.optim.AdamW

EVAL_BATCH = 1024  # all of the digits' validation split at once; what the engine takes is its own affair

Lane = tuple[Cell, int]  # a cell and a seed
Curves = dict[Lane, list[float]]  # the validation loss after every epoch, and the test loss at the end


def choose_lanes(lattice: Lattice, count: int) -> list[Lane]:
    """`count` lanes: the lattice for seed 0, 1, … as often as it fits, then cells spread evenly over it."""
    cells = list(lattice.cells())
    lanes = [(cell, seed) for seed in range(count // len(cells)) for cell in cells]
    rest = count - len(lanes)
    return lanes + [(cells[k * len(cells) // rest], count // len(cells)) for k in range(rest)]


Train = Callable[[Task, Sequence[Lane]], Curves]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a contender trained, and the time that it took once everything was ready."""

    curves: Curves
    seconds: float

    @classmethod
    def timed(cls, train: Train, task: Task, lanes: Sequence[Lane]) -> Self:
        """Of the lanes, behind a warm-up of an epoch of the same."""
        train(_short(task), lanes)
        began = time.perf_counter()
        curves = train(task, lanes)
        return cls(curves, time.perf_counter() - began)


Contender = Callable[[Task, Sequence[Lane], torch.device], Outcome]


def raced(train: Train, task: Task, lanes: Sequence[Lane], device: torch.device) -> Outcome:
    """How `train` does in one process: on a CPU with as many threads as suit it."""
    if device.type == "cpu":
        choose_threads(train, task, lanes)
    return Outcome.timed(train, task, lanes)


def choose_threads(train: Train, task: Task, lanes: Sequence[Lane]) -> None:
    """Set torch's threads to one or to as many as it has, whichever is faster for an epoch.

    Small networks gain nothing from a second thread, and on a busy machine they lose by it.
    """
    found = {}
    for threads in (torch.get_num_threads(), 1):
        torch.set_num_threads(threads)
        found[Outcome.timed(train, _short(task), lanes).seconds] = threads
    torch.set_num_threads(found[min(found)])


def _short(task: Task) -> Task:
    return task.changed(epochs=1)


class Output(nn.Module):
    """A constant times the logits, and their bias."""

    def __init__(self, classes: int, scale: float) -> None:
        super().__init__()
        self.bias, self.scale = nn.Parameter(torch.zeros(classes)), scale

    def forward(self, x: Tensor) -> Tensor:  # (B, classes)
        """x · scale + bias."""
        return x * self.scale + self.bias


def _mlp(net: Mlp) -> nn.Module:
    """A multilayer perceptron as anyone would write it."""
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(net.widths[:-1]):
        layers += [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out, affine=False), nn.ReLU()]
    layers.append(nn.Linear(net.widths[-2], net.widths[-1], bias=False))
    if net.norm_logits:
        layers.append(nn.BatchNorm1d(net.widths[-1], affine=False))
    return nn.Sequential(*layers, Output(net.widths[-1], LOGIT_SCALE if net.norm_logits else 1.0))


def module(task: Task) -> nn.Module:
    """The network in torch.nn."""
    net = network(task)
    if isinstance(net, ModuleNetwork):
        return net.make()
    assert isinstance(net, Mlp)
    return _mlp(net)


@cache
def initial(task: Task, seed: int) -> tuple[Tensor, ...]:
    """The values that the parameters of `module` begin with, in their order; drawn once per seed."""
    return tuple(value.float() for value in network(task).init(generator(seed, "parameters")).values())


@torch.no_grad()
def begin(net: nn.Module, task: Task, seed: int) -> None:
    """Set the parameters to what the seed gives them."""
    for parameter, value in zip(net.parameters(), initial(task, seed), strict=True):
        parameter.copy_(value)


def data(task: Task, device: torch.device) -> Splits:
    """All of the data, in the device's memory."""
    splits = load(task.data, task.data_set, standardize=task.standardize)
    return splits.to(device, torch.float32)


def computed(task: Task, device: torch.device, *, stacked: bool = False) -> AbstractContextManager[None]:
    """Within this a network's products are computed in the precision that is asked for."""
    if task.precision != BFLOAT16:
        return nullcontext()
    return computing(torch.bfloat16, device, stacked=stacked)


def epochs(task: Task, train: Split, seed: int) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    """The batches of every epoch, in the order that the seed gives them."""
    order = generator(seed, "data order")
    for _ in range(task.epochs):
        shuffled = torch.randperm(len(train), generator=order).to(train.device)
        batches = shuffled.split(task.batch_size)  # type: ignore[no-untyped-call]
        yield (train.batch(index) for index in batches[: task.steps_per_epoch])
