"""The work that all contenders share: the same lanes, first weights, batches and curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from lrwd_sweep.data import Split, Splits, load
from lrwd_sweep.engine.lane_state import generator
from lrwd_sweep.nets import ModuleNetwork, network
from lrwd_sweep.nets.mlp import Mlp, MlpModule
from lrwd_sweep.nets.precision import computing
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import BFLOAT16
from lrwd_sweep.spec.task import Task

ADAMW = Optimizer.parse("adamw:lr-scaled")  # torch.optim.AdamW
EVAL_BATCH = 1024  # all of the digits' validation split at once; the engine has its own

Lane = tuple[Cell, int]  # a cell and a seed
Curves = dict[Lane, list[float]]  # the validation loss after every epoch, and the test loss at the end
Train = Callable[[Task, Sequence[Lane]], Curves]
Work = Callable[[], object]
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
    assert isinstance(net, ModuleNetwork | Mlp)
    return MlpModule(net) if isinstance(net, Mlp) else net.make()


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


def fit(step: Step, evaluate: Callable[[Split], T], task: Task, splits: Splits, seed: int) -> list[T]:
    """Train in the seed's order; evaluate validation after every epoch, and the test split at the end."""
    train, order, curve = splits.train, generator(seed, "data order"), []
    for _ in range(task.epochs):
        shuffled = torch.randperm(len(train), generator=order).to(train.device)
        for index in shuffled.split(task.batch_size)[: task.steps_per_epoch]:  # type: ignore[no-untyped-call]
            step(*train.batch(index))
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
        for _ in range(3):
            work()
    here.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
