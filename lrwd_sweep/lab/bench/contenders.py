"""The contenders: each trains the same lanes in its own way and returns their curves with the time taken."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.engine.graph import current
from lrwd_sweep.engine.host import cores
from lrwd_sweep.errors import HostError
from lrwd_sweep.lab.bench import workload
from lrwd_sweep.lab.bench.engine_runs import bookkeeping, engine, scaling
from lrwd_sweep.lab.bench.floor import floor
from lrwd_sweep.lab.bench.measurement import Measurement
from lrwd_sweep.lab.bench.race import ENGINE
from lrwd_sweep.lab.bench.stacked import vmapped
from lrwd_sweep.lab.bench.workload import (
    EVAL_BATCH,
    Curves,
    Lane,
    Step,
    Timed,
    Train,
    fit,
    on_best_threads,
    timed,
)
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.spec.task import Task


def contender(asked: Measurement) -> dict[str, Any]:
    """Measure a contender's lane-steps per second."""
    device, lanes = torch.device(asked.device), workload.choose_lanes(asked.lattice, *asked.lanes)
    with current(device):
        _, seconds = CONTENDERS[asked.name](asked.task, lanes, device)
    return {"rate": len(lanes) * asked.task.steps / seconds}


def plain(task: Task, lanes: Sequence[Lane], device: torch.device) -> Timed:
    """Train lane after lane, each in a new network, with torch.optim.AdamW as it comes."""
    splits = workload.data(task, device)
    return on_best_threads(
        lambda asked, chosen: {lane: _train_lane(asked, splits, lane) for lane in chosen}, task, lanes, device
    )


def compiled(task: Task, lanes: Sequence[Lane], device: torch.device) -> Timed:
    """Train lane after lane in one network, compiled once, with AdamW(fused=True)."""
    if device.type == "cpu" and not shutil.which(compiler := os.environ.get("CXX", "g++")):
        raise HostError(f"no C++ compiler ({compiler}); install one, or set CXX")
    net = workload.module(task).to(device)
    train = _in_one_network(net, partial(_steps, net, fused=True), workload.data(task, device))
    net.compile()
    return on_best_threads(train, task, lanes, device)


def graphs(task: Task, lanes: Sequence[Lane], device: torch.device) -> Timed:
    """Train lane after lane in one network, its step recorded once as a CUDA graph, with fused AdamW."""
    splits, net = workload.data(task, device), workload.module(task).to(device)
    fresh = deepcopy(net)  # recording takes steps
    steps = _recorded_steps(net, task, splits.train)
    net.load_state_dict(fresh.state_dict())
    return on_best_threads(_in_one_network(net, steps, splits), task, lanes, device)


def processes(task: Task, lanes: Sequence[Lane], device: torch.device) -> Timed:
    """Train as plain, in a process of one thread per core."""
    with ProcessPoolExecutor(cores(), get_context("spawn"), _start_worker, (task, device)) as pool:

        def train(asked: Task, chosen: Sequence[Lane]) -> Curves:
            return dict(zip(chosen, pool.map(partial(_work, asked), chosen), strict=True))

        return timed(train, task, lanes)


CONTENDERS: dict[str, Callable[[Task, Sequence[Lane], torch.device], Timed]] = {
    ENGINE: engine,
    "plain": plain,
    "compiled": compiled,
    "graphs": graphs,
    "processes": processes,
    "vmap": vmapped,
}
MEASUREMENTS = dict.fromkeys(CONTENDERS, contender) | {
    "floor": floor,
    "scaling": scaling,
    "bookkeeping": bookkeeping,
}


def _train_lane(task: Task, splits: Splits, lane: Lane) -> list[float]:
    net = workload.module(task).to(splits.train.device)
    return _in_one_network(net, partial(_steps, net), splits)(task, [lane])[lane]


class _Worker:
    """State of a worker process between calls."""

    splits: Splits


def _start_worker(task: Task, device: torch.device) -> None:
    torch.set_num_threads(1)
    _Worker.splits = workload.data(task, device)


def _work(task: Task, lane: Lane) -> list[float]:
    return _train_lane(task, _Worker.splits, lane)


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
    return cross_entropy(logits.float(), y, reduction=reduction)


@torch.no_grad()
def _evaluate(net: nn.Module, task: Task, split: Split) -> float:
    """Return the mean loss on a split, by running statistics; NaN if the split is empty."""
    net.eval()
    losses = [_loss(net, task, x, y, "sum") for x, y in split.batches(EVAL_BATCH)] if len(split) else []
    net.train()
    return torch.stack(losses).sum().item() / len(split) if losses else math.nan
