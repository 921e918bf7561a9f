"""Update rules over the arena of a pack: one family per file, the decay rule written once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lrwd_sweep.optim.adam import Adam
from lrwd_sweep.optim.layout import Segment
from lrwd_sweep.optim.sgd import Sgd
from lrwd_sweep.optim.update import StepFamily, Update
from lrwd_sweep.optimizer import Family, Optimizer
from lrwd_sweep.spec import Training

__all__ = ["Adam", "Segment", "Sgd", "StepFamily", "Update", "make_update"]


def make_update(
    optimizer: Optimizer,
    training: Training,
    theta: Tensor,  # (L, P)
    layout: Sequence[Segment],
    *,
    alpha: Tensor,  # (L, 1)
    lam: Tensor,  # (L, 1)
) -> Update:
    """The update of every lane, with fresh moments."""
    t = training.of(optimizer)
    assert t.momentum is not None
    assert t.beta1 is not None
    assert t.beta2 is not None
    assert t.eps is not None
    family: StepFamily
    if optimizer.family is Family.SGD:
        family = Sgd(t.momentum, torch.zeros_like(theta))
    else:
        family = Adam(t.beta1, t.beta2, t.eps, torch.zeros_like(theta), torch.zeros_like(theta))
    return Update(family, optimizer.rule, alpha, lam)
