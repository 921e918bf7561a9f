"""Which of the two AMSGrads this is."""

from __future__ import annotations

import torch
from torch import Tensor

from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task
from tests.optim import reference
from tests.optim.problem import smooth, start, train

SMOOTH = smooth(60)


def _fading(k: int, t: int, theta: Tensor) -> Tensor:
    """Large at first, so that the maximum is kept for long."""
    return SMOOTH(k, t, theta) / (1 + t) ** 2


def test_amsgrad_is_torchs_and_not_that_of_the_paper() -> None:
    optimizer, task = Optimizer.parse("amsgrad"), Task(epochs=10, beta2=0.9)
    theta, _ = train(optimizer, task, start(), _fading, [(0.01, 0.0)])
    distance = {}
    for step in (reference.amsgrad_of_torch, reference.amsgrad_of_reddi, reference.adam):
        alone = reference.follow(step, optimizer, task, start(), _fading, 0.01, 0.0)
        distance[step] = (theta[0] - torch.cat([x.flatten() for x in alone])).abs().max().item()
    assert distance[reference.amsgrad_of_torch] < 1e-12
    assert distance[reference.amsgrad_of_reddi] > 1e-2
    assert distance[reference.adam] > 1e-2  # which forgets the large gradients


def test_preconditioner_never_falls() -> None:
    optimizer, task = Optimizer.parse("amsgrad"), Task(epochs=1, beta2=0.5)
    _, update = train(optimizer, task, start(), _fading, [(0.01, 0.0)])
    _, v, largest = update.family.moments()
    assert (largest > v).all()
