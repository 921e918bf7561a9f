"""Stacks of networks trained by hand with torch.func."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.lab.bench import workload
from lrwd_sweep.lab.bench.workload import EVAL_BATCH, Curves, Lane, Step, Timed, fit, on_best_threads
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.spec.task import Task

MOST_STACKED = {"cpu": 64, "cuda": 1024}  # networks in one stack
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # of torch.optim.AdamW

Stack = dict[str, Tensor]  # name → (L, *shape)


def vmapped(task: Task, lanes: Sequence[Lane], device: torch.device) -> Timed:
    """Train stacks of a seed's networks with torch.func, and AdamW written for stacks."""
    splits, net = workload.data(task, device), workload.module(task).to(device)
    most = MOST_STACKED[device.type]

    def train(asked: Task, chosen: Sequence[Lane]) -> Curves:
        curves = Curves()
        for seed, lanes_of_seed in groupby(chosen, itemgetter(1)):
            cells = [cell for cell, _ in lanes_of_seed]
            for some in (cells[k : k + most] for k in range(0, len(cells), most)):
                rows = fit(*_stack(net, asked, splits, some, seed), asked, splits, seed)
                curves |= {
                    (cell, seed): list(curve)
                    for cell, curve in zip(some, zip(*rows, strict=True), strict=True)
                }
        return curves

    return on_best_threads(train, task, lanes, device)


def _stack(
    net: nn.Module, task: Task, splits: Splits, cells: Sequence[Cell], seed: int
) -> tuple[Step, Callable[[Split], list[float]]]:
    """Stack a network for every cell; return the function that takes a step, and that evaluates."""
    device, lanes, t = splits.train.device, len(cells), 0
    begun = zip(net.named_parameters(), workload.initial(task, seed), strict=True)
    theta = {name: _stacked(value.to(device), lanes) for (name, _), value in begun}
    buffers = {name: _stacked(value, lanes) for name, value in net.named_buffers()}
    update, bare = _stacked_adamw(theta, cells), deepcopy(net).to("meta")

    def loss(theta: Stack, buffers: Stack, x: Tensor, y: Tensor) -> Tensor:
        with workload.computed(task, device, stacked=True):
            logits = functional_call(bare, (theta, buffers), (x,))
        return cross_entropy(logits.float(), y)

    gradient = vmap(grad(loss), in_dims=(0, 0, None, None), randomness="different")
    evaluated = vmap(loss, in_dims=(0, 0, None, None))

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


def _stacked(value: Tensor, lanes: int) -> Tensor:
    return value.repeat(lanes, *[1] * value.dim())


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
