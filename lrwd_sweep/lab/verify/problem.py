"""A small problem of several tensors, with gradients that are the same everywhere, and iterates on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.optim import Segment, make_update
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule, Timetable
from lrwd_sweep.spec.task import Task

Gradient = Callable[[Tensor, int], Tensor]  # θ (L, P) and t = 1, 2, … → g (L, P)

EPOCHS, STEPS_PER_EPOCH = 10, 10
STEPS = EPOCHS * STEPS_PER_EPOCH

# Tensors of every kind that an update tells apart. SGDP and AdamP find a scale-invariant tensor by its rows,
# else as a whole; they do not change an ordinary one, and ignore vectors.
SHAPES = {"invariant by row": (4, 6), "invariant": (3, 2, 2), "ordinary": (5, 4), "vector": (5,)}
ROWS = {"invariant by row": 4, "invariant": 1}  # whose scales make no difference


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Lanes that start alike, each with its own learning rate and decay per step."""

    layout: tuple[Segment, ...]
    theta: Tensor  # (L, P) where every run starts
    alpha: Tensor  # (L, 1)
    lam: Tensor  # (L, 1) decay per step, λ of the independent rule
    gradient: Gradient

    @classmethod
    def on(cls, device: torch.device) -> Problem:
        """Make three lanes of the problem in float64 on a device."""
        layout: list[Segment] = []
        for name, shape in SHAPES.items():
            start = layout[-1].stop if layout else 0
            layout.append(Segment(name, start, start + math.prod(shape), shape))

        def column(*values: float) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)[:, None]

        alpha = column(0.03, 0.01, 0.003)
        lam = column(9e-4, 5e-4, 2e-4)  # from 1e-3 on optimi warns that it is much
        theta = _wave(column(0.7), layout[-1].stop).expand(len(alpha), -1).clone()
        return cls(tuple(layout), theta, alpha, lam, _moving_target(layout, theta))

    def of_dimensions(self, count: int) -> Problem:
        """Return the problem of only the tensors with that many dimensions; 0: all of them."""
        if not count:
            return self
        chosen = [segment for segment in self.layout if len(segment.shape) == count]
        places = torch.cat([torch.arange(segment.start, segment.stop) for segment in chosen])
        layout: list[Segment] = []
        for segment in chosen:
            start = layout[-1].stop if layout else 0
            layout.append(Segment(segment.name, start, start + segment.stop - segment.start, segment.shape))

        def gradient(theta: Tensor, t: int) -> Tensor:
            whole = self.theta.clone()
            whole[:, places] = theta
            return self.gradient(whole, t)[:, places]

        return Problem(tuple(layout), self.theta[:, places].clone(), self.alpha, self.lam, gradient)


def _moving_target(layout: list[Segment], like: Tensor) -> Gradient:
    """Return a gradient in proportion to the distance from a target that moves from batch to batch.

    The gradient of a scale-invariant tensor is orthogonal to it and falls with its norm.
    """
    phases = 1.3 + 0.37 * torch.arange(STEPS + 1, dtype=like.dtype, device=like.device)[:, None]
    targets = 0.3 + 0.7 * _wave(phases, like.shape[1])
    curvatures = 1 + 0.9 * _wave(torch.full_like(phases[:1], 2.9), like.shape[1])

    def gradient(theta: Tensor, t: int) -> Tensor:
        g = (theta - targets[t]) * curvatures
        for segment in layout:
            if segment.name in ROWS:
                view = (len(theta), ROWS[segment.name], -1)
                g[:, segment.columns] = _orthogonal(
                    g[:, segment.columns].reshape(view), theta[:, segment.columns].reshape(view)
                ).flatten(1)
        return g

    return gradient


def _wave(phases: Tensor, size: int) -> Tensor:  # (K, 1) → (K, size)
    """Compute numbers between −1 and 1 without a regular pattern."""
    j = torch.arange(size, dtype=phases.dtype, device=phases.device)
    return torch.sin(phases * (j + 1) + j * j)


def _orthogonal(g: Tensor, theta: Tensor) -> Tensor:  # both (L, rows, n)
    """Return the part of g that is orthogonal to θ, divided by ‖θ‖."""
    norm: Tensor = torch.linalg.vector_norm(theta, dim=2, keepdim=True)
    u = theta / norm
    return (g - (g * u).sum(dim=2, keepdim=True) * u) / norm


def timetable(schedule: Schedule) -> Timetable:
    """Return the schedule of the problem's run; restarts have cycles of 3, 6 and 12 epochs."""
    return Timetable(schedule, EPOCHS, STEPS_PER_EPOCH, t_0=3, t_mult=2)


def iterates(
    name: str,
    problem: Problem,
    *,
    lam: Tensor,  # (L, 1) decay, in the optimizer's own convention
    schedule: Schedule = Schedule.FIXED,
    task: Task | None = None,
) -> Tensor:  # (steps, L, P)
    """Return θ after every step of one of our optimizers."""
    theta, times = problem.theta.clone(), timetable(schedule)
    optimizer = Optimizer.parse(name)
    update = make_update(optimizer, task or Task(), theta, problem.layout, alpha=problem.alpha, lam=lam)
    found = []
    for t in range(1, STEPS + 1):
        g = problem.gradient(theta, t)
        update.apply(theta, g, times.eta(t - 1), t, times.steps_of_cycle(t - 1))
        found.append(theta.clone())
    return torch.stack(found)


def error(a: Tensor, b: Tensor) -> float:
    """Compute the largest |a − b| over the largest |b|; NaN if either holds one."""
    return float((a - b).abs().max() / b.abs().max())
