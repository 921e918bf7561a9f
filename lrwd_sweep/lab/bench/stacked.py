"""`vmap` written by hand: a seed's networks stacked, `torch.func` for the gradient, AdamW on the stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.lab.bench.task import (
    EVAL_BATCH,
    Curves,
    Lane,
    Outcome,
    computed,
    data,
    epochs,
    initial,
    module,
    raced,
)
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.spec.task import Task

MOST = {"cpu": 64, "cuda": 1024}  # networks in one stack
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # of torch.optim.AdamW

Stack = dict[str, Tensor]  # name → (L, *shape)


def run(task: Task, lanes: Sequence[Lane], device: torch.device) -> Outcome:
    """Train stack after stack."""
    splits, net, most = data(task, device), module(task).to(device), MOST[device.type]

    def train(asked: Task, chosen: Sequence[Lane]) -> Curves:
        curves = Curves()
        for seed in dict.fromkeys(seed for _, seed in chosen):
            cells = [cell for cell, own in chosen if own == seed]
            for first in range(0, len(cells), most):
                some = cells[first : first + most]
                found = _fit(net, asked, splits, some, seed)
                curves |= {(cell, seed): curve for cell, curve in zip(some, found, strict=True)}
        return curves

    return raced(train, task, lanes, device)


def _fit(net: nn.Module, task: Task, splits: Splits, cells: Sequence[Cell], seed: int) -> list[list[float]]:
    """Train a stack; every lane's validation loss after every epoch, and its test loss at the end."""
    device = splits.train.device
    begun = zip(net.named_parameters(), initial(task, seed), strict=True)
    theta = {name: _stacked(value.to(device), len(cells)) for (name, _), value in begun}
    buffers = {name: _stacked(value, len(cells)) for name, value in net.named_buffers()}
    update = AdamW(theta, cells)
    bare = deepcopy(net).to("meta")

    def loss(theta: Stack, buffers: Stack, x: Tensor, y: Tensor) -> Tensor:
        with computed(task, device, stacked=True):
            logits = functional_call(bare, (theta, buffers), (x,))
        return functional.cross_entropy(logits.float(), y)

    gradient = vmap(grad(loss), in_dims=(0, 0, None, None), randomness="different")
    evaluated = vmap(loss, in_dims=(0, 0, None, None))

    @torch.no_grad()
    def evaluate(split: Split) -> list[float]:
        bare.eval()
        sums = [evaluated(theta, buffers, x, y) * len(y) for x, y in split.batches(EVAL_BATCH)]
        found: list[float] = (torch.stack(sums).sum(dim=0) / len(split)).tolist()
        return found

    curves, t = [], 0
    for batches in epochs(task, splits.train, seed):
        bare.train()
        for x, y in batches:
            update.step(gradient(theta, buffers, x, y), task.timetable.eta(t), t + 1)
            t += 1
        curves.append(evaluate(splits.validation))
    curves.append(evaluate(splits.test))
    return [list(curve) for curve in zip(*curves, strict=True)]


def _stacked(value: Tensor, count: int) -> Tensor:
    return value.repeat(count, *[1] * value.dim())


class AdamW:
    """torch.optim.AdamW on stacks, with a learning rate and a decay for every lane."""

    def __init__(self, theta: Stack, cells: Sequence[Cell]) -> None:
        self.theta = theta
        self.m = {name: torch.zeros_like(value) for name, value in theta.items()}
        self.v = {name: torch.zeros_like(value) for name, value in theta.items()}
        device = next(iter(theta.values())).device
        self.lr = torch.tensor([cell.lr for cell in cells], device=device)
        self.weight_decay = torch.tensor([cell.weight_decay for cell in cells], device=device)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], eta: float, t: int) -> None:
        """Update number t = 1, 2, …, at the schedule's η."""
        alpha = eta * self.lr
        decay, size = 1 - alpha * self.weight_decay, -alpha / (1 - BETA1**t)
        for name, theta in self.theta.items():
            g, m, v = gradients[name], self.m[name], self.v[name]
            shape = (-1, *[1] * (theta.dim() - 1))
            m.lerp_(g, 1 - BETA1)
            v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            denominator = v.sqrt().div_((1 - BETA2**t) ** 0.5).add_(EPS)
            theta.mul_(decay.view(shape)).addcmul_(m / denominator, size.view(shape))
