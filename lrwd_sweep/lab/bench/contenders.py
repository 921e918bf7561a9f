"""Alternatives to the engine: each is given a task and yields a function that trains lanes in its way."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from operator import itemgetter

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.functional import cross_entropy

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.engine.device import cores
from lrwd_sweep.errors import HostError
from lrwd_sweep.lab.bench import workload
from lrwd_sweep.lab.bench.workload import EVAL_BATCH, Curves, Lane, Step, Train, fit
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.spec.task import Task

MOST_STACKED = {"cpu": 64, "cuda": 1024}  # networks in one stack
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # of torch.optim.AdamW

Stack = dict[str, Tensor]  # name → (L, *shape)


@contextmanager
def plain(task: Task, device: torch.device) -> Iterator[Train]:
    """Train lane after lane, each in a new network, with torch.optim.AdamW as it comes."""
    splits = workload.data(task, device)
    yield lambda asked, lanes: {lane: _train_lane(asked, splits, lane) for lane in lanes}


@contextmanager
def compiled(task: Task, device: torch.device) -> Iterator[Train]:
    """Train lane after lane in one network, compiled once, with AdamW(fused=True)."""
    if device.type == "cpu" and not shutil.which(compiler := os.environ.get("CXX", "g++")):
        raise HostError(f"no C++ compiler ({compiler}); install one, or set CXX")
    net = workload.module(task).to(device)
    train = _in_one_network(net, partial(_steps, net, fused=True), workload.data(task, device))
    net.compile()
    yield train


@contextmanager
def graphs(task: Task, device: torch.device) -> Iterator[Train]:
    """Train lane after lane in one network, its step recorded once as a CUDA graph, with fused AdamW."""
    splits, net = workload.data(task, device), workload.module(task).to(device)
    fresh = deepcopy(net)  # recording takes steps
    steps = _recorded_steps(net, task, splits.train)
    net.load_state_dict(fresh.state_dict())
    yield _in_one_network(net, steps, splits)


@contextmanager
def processes(task: Task, device: torch.device) -> Iterator[Train]:
    """Train as plain, in a process of one thread per core."""
    with ProcessPoolExecutor(cores(), get_context("spawn"), _start_worker, (task, device)) as pool:
        yield lambda asked, lanes: dict(zip(lanes, pool.map(partial(_work, asked), lanes), strict=True))


@contextmanager
def vmap(task: Task, device: torch.device) -> Iterator[Train]:
    """Train stacks of a seed's networks with torch.func, and AdamW written for stacks."""
    splits, net = workload.data(task, device), workload.module(task).to(device)
    most = MOST_STACKED[device.type]

    def train(asked: Task, lanes: Sequence[Lane]) -> Curves:
        curves = Curves()
        for seed, lanes_of_seed in groupby(lanes, itemgetter(1)):
            cells = [cell for cell, _ in lanes_of_seed]
            for some in (cells[k : k + most] for k in range(0, len(cells), most)):
                rows = fit(*_stack(net, asked, splits, some, seed), asked, splits, seed)
                of_cells = zip(some, zip(*rows, strict=True), strict=True)
                curves |= {(cell, seed): list(curve) for cell, curve in of_cells}
        return curves

    yield train


def _train_lane(task: Task, splits: Splits, lane: Lane) -> list[float]:
    net = workload.module(task).to(splits.train.device)
    return _in_one_network(net, partial(_steps, net), splits)(task, [lane])[lane]


_splits_of_worker: list[Splits] = []


def _start_worker(task: Task, device: torch.device) -> None:
    torch.set_num_threads(1)
    _splits_of_worker.append(workload.data(task, device))


def _work(task: Task, lane: Lane) -> list[float]:
    return _train_lane(task, _splits_of_worker[0], lane)


def _in_one_network(net: nn.Module, steps: Callable[[Task, Cell], Step], splits: Splits) -> Train:
    """Return a function that trains lane after lane in `net`, so that it is compiled or recorded once."""
    fresh = {name: value.clone() for name, value in net.named_buffers()}

    def train(task: Task, lanes: Sequence[Lane]) -> Curves:
        curves = Curves()
        for cell, seed in lanes:
            workload.begin(net, task, seed)
            net.load_state_dict(fresh, strict=False)
            curves[cell, seed] = fit(steps(task, cell), partial(_evaluate, net, task), task, splits, seed)
        return curves

    return train


def _steps(net: nn.Module, task: Task, cell: Cell, *, fused: bool = False) -> Step:
    """Return a function that takes one step after another, with the schedule."""
    adamw = torch.optim.AdamW(net.parameters(), lr=cell.lr, weight_decay=cell.weight_decay, fused=fused)
    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, task.timetable.eta)

    def step(x: Tensor, y: Tensor) -> None:
        adamw.zero_grad()
        _loss(net, task, x, y).backward()  # type: ignore[no-untyped-call]
        adamw.step()
        schedule.step()

    return step


def _recorded_steps(net: nn.Module, task: Task, split: Split) -> Callable[[Task, Cell], Step]:
    """Record a step, with batch, learning rate and decay on the device; return `_steps` that replay it."""
    x, y = split.batch(torch.arange(task.batch_size, device=split.device))
    alpha, kept = (torch.zeros((), device=split.device) for _ in range(2))
    parameters: list[Tensor] = list(net.parameters())
    adamw = torch.optim.AdamW(  # a decay would be recorded as a number; `kept` takes its place
        parameters, lr=alpha, weight_decay=0.0, fused=True, capturable=split.device.type == "cuda"
    )

    def recorded_step() -> None:
        adamw.zero_grad()
        _loss(net, task, x, y).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            torch._foreach_mul_(parameters, kept)
        adamw.step()

    replay = workload.recorded(recorded_step, split.device)

    def steps(asked: Task, cell: Cell) -> Step:
        for value in (value for state in adamw.state.values() for value in state.values()):
            value.zero_()
        etas = map(asked.timetable.eta, range(asked.steps))

        def step(batch: Tensor, classes: Tensor) -> None:
            eta = next(etas)
            x.copy_(batch)
            y.copy_(classes)
            alpha.fill_(eta * cell.lr)
            kept.fill_(1 - eta * cell.lr * cell.weight_decay)
            replay()

        return step

    return steps


def _loss(net: nn.Module, task: Task, x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    with workload.computed(task, x.device):
        logits = net(x)
    return cross_entropy(logits.float()[:, : task.data_set.classes], y, reduction=reduction)


@torch.no_grad()
def _evaluate(net: nn.Module, task: Task, split: Split) -> float:
    """Return the mean loss on a split, by running statistics; NaN if the split is empty."""
    net.eval()
    losses = [_loss(net, task, x, y, "sum") for x, y in split.batches(EVAL_BATCH)] if len(split) else []
    net.train()
    return torch.stack(losses).sum().item() / len(split) if losses else math.nan


def _stack(
    net: nn.Module, task: Task, splits: Splits, cells: Sequence[Cell], seed: int
) -> tuple[Step, Callable[[Split], list[float]]]:
    """Stack a network for every cell; return the function that takes a step, and that evaluates."""
    device, lanes, t = splits.train.device, len(cells), 0
    begun = zip(net.named_parameters(), workload.initial(task, seed), strict=True)
    theta = {name: value.to(device).expand(lanes, *value.shape).clone() for (name, _), value in begun}
    buffers = {name: value.expand(lanes, *value.shape).clone() for name, value in net.named_buffers()}
    update, bare = _stacked_adamw(theta, cells), deepcopy(net).to("meta")

    def loss(theta: Stack, buffers: Stack, x: Tensor, y: Tensor) -> Tensor:
        with workload.computed(task, device, stacked=True):
            logits = functional_call(bare, (theta, buffers), (x,))
        return cross_entropy(logits.float()[:, : task.data_set.classes], y)  # without an embedding

    gradient = torch.vmap(grad(loss), in_dims=(0, 0, None, None), randomness="different")
    evaluated = torch.vmap(loss, in_dims=(0, 0, None, None))

    def step(x: Tensor, y: Tensor) -> None:
        nonlocal t
        t += 1
        update(gradient(theta, buffers, x, y), task.timetable.eta(t - 1), t)

    @torch.no_grad()
    def evaluate(split: Split) -> list[float]:
        bare.eval()
        sums = [evaluated(theta, buffers, x, y) * len(y) for x, y in split.batches(EVAL_BATCH)]
        bare.train()
        found: list[float] = (torch.stack(sums).sum(dim=0) / len(split)).tolist()
        return found

    return step, evaluate


def _stacked_adamw(theta: Stack, cells: Sequence[Cell]) -> Callable[[Stack, float, int], None]:
    """Return torch.optim.AdamW's step t = 1, 2, … for stacks, given gradients, the schedule's η and t."""
    device = next(iter(theta.values())).device
    axes = [cell.lr for cell in cells], [cell.weight_decay for cell in cells]
    lr, weight_decay = (torch.tensor(axis, device=device) for axis in axes)
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in theta.items()}

    @torch.no_grad()
    def step(gradients: Stack, eta: float, t: int) -> None:
        alpha = eta * lr
        decay, size = 1 - alpha * weight_decay, -alpha / (1 - BETA1**t)
        for name, value in theta.items():
            g, (m, v) = gradients[name], moments[name]
            shape = (-1, *[1] * (value.dim() - 1))
            m.lerp_(g, 1 - BETA1)
            v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            denominator = v.sqrt().div_((1 - BETA2**t) ** 0.5).add_(EPS)
            value.mul_(decay.view(shape)).addcmul_(m / denominator, size.view(shape))

    return step
