"""The work that all contenders share: the same lanes, first weights, batches and curves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from lrwd_sweep.data import Split, Splits, load
from lrwd_sweep.engine.pack import generator
from lrwd_sweep.nets import ModuleNetwork, network
from lrwd_sweep.nets.mlp import LOGIT_SCALE, Mlp
from lrwd_sweep.nets.precision import computing
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import BFLOAT16
from lrwd_sweep.spec.task import Task

ADAMW = Optimizer.parse("adamw:lr-scaled")  # torch.optim.AdamW
EVAL_BATCH = 1024  # all of the digits' validation split at once; the engine has its own
_WARM_UPS = 3  # runs of work before it is recorded

Lane = tuple[Cell, int]  # a cell and a seed
Curves = dict[Lane, list[float]]  # the validation loss after every epoch, and the test loss at the end
Train = Callable[[Task, Sequence[Lane]], Curves]
Work = Callable[[], object]
Timed = tuple[Curves, float]  # the curves, and the seconds that training took once everything was ready
Step = Callable[[Tensor, Tensor], None]  # batch (B, *shape), (B,)
T = TypeVar("T")


def choose_lanes(lattice: Lattice, count: int) -> list[Lane]:
    """Take `count` lanes: the lattice for seed 0, 1, …, then cells spread evenly over it."""
    cells = list(lattice.cells())
    lanes = [(cell, seed) for seed in range(count // len(cells)) for cell in cells]
    rest = count - len(lanes)
    return lanes + [(cells[k * len(cells) // rest], count // len(cells)) for k in range(rest)]


def module(task: Task) -> nn.Module:
    """Build the task's network in torch.nn."""
    net = network(task)
    if isinstance(net, ModuleNetwork):
        return net.make()
    assert isinstance(net, Mlp)
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(net.widths[:-1]):
        layers += [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out, affine=False), nn.ReLU()]
    *_, width, classes = net.widths
    layers.append(nn.Linear(width, classes, bias=False))
    if net.norm_logits:
        layers.append(nn.BatchNorm1d(classes, affine=False))
    return nn.Sequential(*layers, ScaleAndBias(classes, LOGIT_SCALE if net.norm_logits else 1.0))


class ScaleAndBias(nn.Module):
    """The output layer: a constant times the logits, and their bias."""

    def __init__(self, classes: int, scale: float) -> None:
        super().__init__()
        self.bias, self.scale = nn.Parameter(torch.zeros(classes)), scale

    def forward(self, x: Tensor) -> Tensor:  # (B, classes)
        """Return x · scale + bias."""
        return x * self.scale + self.bias


@cache
def initial(task: Task, seed: int) -> tuple[Tensor, ...]:
    """Draw the first values of the parameters of `module`, in their order."""
    return tuple(value.float() for value in network(task).init(generator(seed, "parameters")).values())


@torch.no_grad()
def begin(net: nn.Module, task: Task, seed: int) -> None:
    """Set the parameters to the seed's first values."""
    for parameter, value in zip(net.parameters(), initial(task, seed), strict=True):
        parameter.copy_(value)


def data(task: Task, device: torch.device) -> Splits:
    """Load all of the data into the device's memory."""
    return load(task.data, task.data_set, standardize=task.standardize).to(device, torch.float32)


def epochs(task: Task, train: Split, seed: int) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
    """Yield the batches of every epoch, in the seed's order."""
    order = generator(seed, "data order")
    for _ in range(task.epochs):
        shuffled = torch.randperm(len(train), generator=order).to(train.device)
        batches = shuffled.split(task.batch_size)  # type: ignore[no-untyped-call]
        yield (train.batch(index) for index in batches[: task.steps_per_epoch])


def fit(step: Step, evaluate: Callable[[Split], T], task: Task, splits: Splits, seed: int) -> list[T]:
    """Train; evaluate the validation split after every epoch, and the test split at the end."""
    curve = []
    for batches in epochs(task, splits.train, seed):
        for x, y in batches:
            step(x, y)
        curve.append(evaluate(splits.validation))
    return [*curve, evaluate(splits.test)]


def computed(task: Task, device: torch.device, *, stacked: bool = False) -> AbstractContextManager[None]:
    """Compute a network's products in the task's precision within this context."""
    rounded = task.precision == BFLOAT16
    return computing(torch.bfloat16, device, stacked=stacked) if rounded else nullcontext()


def recorded(work: Work, device: torch.device) -> Work:
    """Return `work` as a CUDA graph, after a few runs of it; on a CPU, `work` itself."""
    if device.type == "cpu":
        return work
    here, beside = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        for _ in range(_WARM_UPS):
            work()
    here.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def timed(train: Train, task: Task, lanes: Sequence[Lane]) -> Timed:
    """Time `train` on the lanes after a warm-up of one epoch of the same."""
    train(task.changed(epochs=1), lanes)
    began = time.perf_counter()
    curves = train(task, lanes)
    return curves, time.perf_counter() - began


def on_best_threads(train: Train, task: Task, lanes: Sequence[Lane], device: torch.device) -> Timed:
    """Time `train`; on a CPU with one thread or all, the faster for an epoch.

    Small networks gain nothing from a second thread, and on a busy machine they lose by it.
    """
    if device.type == "cpu":
        found = {}
        for threads in (torch.get_num_threads(), 1):
            torch.set_num_threads(threads)
            found[timed(train, task.changed(epochs=1), lanes)[1]] = threads
        torch.set_num_threads(found[min(found)])
    return timed(train, task, lanes)
