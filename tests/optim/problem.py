"""Small problems of several tensors, for lanes in an arena and for lone lanes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from lrwd_sweep.lab.references import Gradient
from lrwd_sweep.optim import Segment, Update, make_update
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task

SHAPES = ((4, 3), (4,), (2, 3, 2, 2), (3, 2))  # a vector between matrices, and matrices side by side

# Every family with the options that change its step.
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "sgd": ("sgd", {}),
    "sgd nesterov": ("sgd", {"nesterov": True}),
    "sgd torch": ("sgd", {"momentum_form": "torch"}),
    "sgd torch nesterov": ("sgd", {"momentum_form": "torch", "nesterov": True}),
    "adam": ("adam", {}),
    "amsgrad": ("amsgrad", {"beta2": 0.9}),  # forgets soon, so that the maximum matters
    "adagrad": ("adagrad", {}),
    "rmsprop": ("rmsprop", {}),
    "rmsprop momentum": ("rmsprop", {"momentum": 0.8}),
    "sgdp": ("sgdp", {}),
    "sgdp nesterov": ("sgdp", {"nesterov": True}),
    "adamp": ("adamp", {}),
    "adamp nesterov": ("adamp", {"nesterov": True}),
}


def layout(shapes: Sequence[tuple[int, ...]] = SHAPES) -> tuple[Segment, ...]:
    """Place the tensors one after another."""
    ends = accumulate(math.prod(shape) for shape in shapes)
    return tuple(
        Segment(f"tensor{k}", end - math.prod(shape), end, shape)
        for k, (end, shape) in enumerate(zip(ends, shapes, strict=True))
    )


def start(shapes: Sequence[tuple[int, ...]] = SHAPES, seed: int = 0) -> list[Tensor]:
    """Draw one lane's tensors, standard normal, float64."""
    stream = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=stream, dtype=torch.float64) for shape in shapes]


def smooth(steps: int, shapes: Sequence[tuple[int, ...]] = SHAPES) -> Gradient:
    """Return the gradient cos(θ + random phases), for one lane or several.

    Of every three steps one is without what lies along each row of θ, and one without what lies along θ as
    a whole, so that a projection acts by rows, by the tensor, and not at all.
    """
    stream = torch.Generator().manual_seed(1)
    phases = [torch.randn((steps, *shape), generator=stream, dtype=torch.float64) for shape in shapes]

    def gradient(k: int, t: int, theta: Tensor) -> Tensor:
        g = torch.cos(theta + 3 * phases[k][t])
        rows = {1: shapes[k][0], 2: 1}.get((t + k) % 3)
        if rows is None or len(shapes[k]) == 1:
            return g
        by_row = (*theta.shape[: theta.dim() - len(shapes[k])], rows, -1)
        return across(theta.reshape(by_row), g.reshape(by_row)).reshape(theta.shape)

    return gradient


def across(theta: Tensor, x: Tensor) -> Tensor:
    """Remove from each row of x its component along the row of θ."""
    return x - theta * (theta * x).sum(-1, keepdim=True) / (theta * theta).sum(-1, keepdim=True)


def update_of(
    optimizer: Optimizer,
    task: Task,
    theta: Tensor,
    lanes: Sequence[tuple[float, float]],
    shapes: Sequence[tuple[int, ...]] = SHAPES,
) -> Update:
    """Make the update of lanes (α, λ)."""
    alpha, lam = (theta.new_tensor(column)[:, None] for column in zip(*lanes, strict=True))
    return make_update(optimizer, task, theta, layout(shapes), alpha=alpha, lam=lam)


def train(
    optimizer: Optimizer,
    task: Task,
    tensors: Sequence[Tensor],
    gradient: Gradient,
    lanes: Sequence[tuple[float, float]],
) -> tuple[Tensor, Update]:
    """Take all steps, every lane from `tensors`; return θ (L, P) at the end, and the update."""
    shapes = [tuple(x.shape) for x in tensors]
    theta = torch.cat([x.flatten() for x in tensors]).repeat(len(lanes), 1)
    update = update_of(optimizer, task, theta, lanes, shapes)
    parts = layout(shapes)
    for t in range(task.steps):
        pieces = [gradient(k, t, theta[:, s.columns].view(-1, *s.shape)) for k, s in enumerate(parts)]
        g = torch.cat([piece.flatten(1) for piece in pieces], dim=1)
        update.apply(theta, g, task.timetable.eta(t), t + 1, task.timetable.steps_of_cycle(t))
    return theta, update
