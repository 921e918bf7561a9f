"""Pasted lines at work: on a small model beside a study's own update, under its schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lrwd_sweep.optim import Segment, make_update
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task

SHAPES = ((4, 3), (4,))  # a weight and a bias
_LAYOUT = [Segment("weight", 0, 12, (4, 3)), Segment("bias", 12, 16, (4,))]
_INPUT = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)


def start() -> list[Tensor]:
    """Weight and bias as the training begins."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def loss(weight: Tensor, bias: Tensor, t: int) -> Tensor:
    """Of every second step scale-invariant in the weight, so that SGDP and AdamP project."""
    w = weight / weight.norm(dim=1, keepdim=True) if t % 2 else weight + weight.sin()
    return ((w @ _INPUT + bias).sin() * torch.arange(1.0, 5.0)).sum()


def by_study(optimizer: Optimizer, task: Task, cell: Cell) -> Tensor:
    """Weight and bias, flat, after a run of the update that studies train with."""
    theta = torch.cat([p.flatten() for p in start()]).unsqueeze(0)
    alpha, lam = (torch.tensor([[x]], dtype=torch.float64) for x in (cell.lr, cell.weight_decay))
    update = make_update(optimizer, task, theta, _LAYOUT, alpha=alpha, lam=lam)
    table = task.timetable
    for t in range(task.steps):
        weight, bias = (theta[0, s.start : s.stop].view(s.shape).clone().requires_grad_() for s in _LAYOUT)
        found = torch.autograd.grad(loss(weight, bias, t), (weight, bias))
        g = torch.cat([part.flatten() for part in found]).unsqueeze(0)
        update.apply(theta, g, table.eta(t), t + 1, table.steps_of_cycle(t))
    return theta[0]


@dataclass
class Pasted:
    """An optimizer made of pasted code, and what the code says to do beside its steps."""

    names: dict[str, Any]
    parameters: list[Tensor]
    before_each_step: Callable[[], None]
    at_each_restart: Callable[[], None]

    @classmethod
    def of(cls, code: str, groups: str, packages: Mapping[str, Any], **names: Any) -> Pasted:
        """What a line makes, after the line that groups the parameters where there is one."""
        parameters = [p.requires_grad_() for p in start()]
        named = [(segment.name, p) for segment, p in zip(_LAYOUT, parameters, strict=True)]
        model = SimpleNamespace(parameters=lambda: parameters, named_parameters=lambda: named)
        found = {"params": parameters, "model": model}
        everything = {**packages, **found, **names}
        exec(groups, everything)
        first, _, beside = code.partition("\n")
        exec(first if first.startswith("optimizer = ") else f"optimizer = {first}", everything)
        todo = {"before": lambda: None, "at": lambda: None}
        if beside:
            when, _, loop = beside.partition("\n")
            todo[when.split()[1]] = lambda: exec(loop, everything)
        return cls(everything, parameters, todo["before"], todo["at"])

    def after(self, task: Task, cell: Cell) -> Tensor:
        """Weight and bias, flat, after a run whose scheduler sets the learning rate at every step."""
        optimizer, table = self.names["optimizer"], task.timetable
        restarts = [epoch * task.steps_per_epoch for epoch in table.snapshots]
        for t in range(task.steps):
            for group in optimizer.param_groups:
                group["lr"] = cell.lr * table.eta(t)
            self.names["N"] = table.steps_of_cycle(t)
            if t in restarts:
                self.at_each_restart()
            optimizer.zero_grad()
            weight, bias = self.parameters
            loss(weight, bias, t).backward()  # type: ignore[no-untyped-call]
            self.before_each_step()
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in self.parameters])
