"""Update rules over the arena of a pack: one family per file, decay rule and projection written once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from lrwd_sweep.optim.adagrad import Adagrad
from lrwd_sweep.optim.adam import Adam
from lrwd_sweep.optim.adamp import Adamp
from lrwd_sweep.optim.amsgrad import Amsgrad
from lrwd_sweep.optim.decay import Decay
from lrwd_sweep.optim.fastest import fastest
from lrwd_sweep.optim.layout import Segment, columns
from lrwd_sweep.optim.now import table
from lrwd_sweep.optim.one_pass import compiled_on, one_pass
from lrwd_sweep.optim.projection import Projection
from lrwd_sweep.optim.rmsprop import Rmsprop
from lrwd_sweep.optim.sgd import Sgd, TorchSgd
from lrwd_sweep.optim.sgdp import Sgdp
from lrwd_sweep.optim.step import StepFamily
from lrwd_sweep.optim.tabled import DeviceUpdate, TabledUpdate
from lrwd_sweep.optim.update import Update
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.task import MomentumForm, Task

__all__ = [
    "DeviceUpdate",
    "Segment",
    "TabledUpdate",
    "Update",
    "compiled_on",
    "fastest",
    "make_update",
    "table",
]


def make_update(
    optimizer: Optimizer,
    task: Task,
    theta: Tensor,  # (L, P)
    layout: Sequence[Segment],
    *,
    alpha: Tensor,  # (L, 1)
    lam: Tensor,  # (L, 1)
) -> Update:
    """The update of every lane, with fresh moments."""
    family, task = optimizer.family, task.of(optimizer)
    assert family is not None, "an imported study is never trained"
    momentum, eps = _known(task.momentum), _known(task.eps)
    matrices = tuple(segment for segment in layout if segment.is_matrix)
    watched = matrices if family.projected else ()
    decaying = [s for s in (layout if task.decay_all else matrices) if s.name not in task.undecayed]
    projection = Projection(watched, theta.new_zeros(len(theta), dtype=torch.float64), eps)
    decay = Decay(
        optimizer.rule,
        optimizer.normalized,
        columns(s for s in decaying if s not in watched),
        tuple(segment.columns if segment in decaying else None for segment in watched),
        gain=1 / (1 - momentum) if family is Family.SGDP else 1.0,
    )
    steps = _family(family, task, theta, projection)
    return Update(
        steps,
        decay,
        alpha,
        lam,
        (_known(task.beta1), _known(task.beta2)),
        projection if family.projected else None,
        one_pass(steps, decay, theta),
    )


def _family(family: Family, task: Task, theta: Tensor, projection: Projection) -> StepFamily:
    """The family with its hyperparameters and fresh moments."""
    momentum, eps = _known(task.momentum), _known(task.eps)
    beta1, beta2 = _known(task.beta1), _known(task.beta2)
    zeros = partial(torch.zeros_like, theta)
    made: StepFamily
    match family:
        case Family.SGD:
            sgd = Sgd if task.momentum_form is MomentumForm.PAPER else TorchSgd
            made = sgd(momentum, task.nesterov, zeros())
        case Family.ADAM:
            made = Adam(beta1, beta2, eps, zeros(), zeros())
        case Family.AMSGRAD:
            made = Amsgrad(beta1, beta2, eps, zeros(), zeros(), zeros())
        case Family.ADAGRAD:
            made = Adagrad(eps, zeros())
        case Family.RMSPROP:
            made = Rmsprop(momentum, beta2, eps, zeros(), zeros() if momentum else None)
        case Family.SGDP:
            made = Sgdp(momentum, task.nesterov, zeros(), projection)
        case Family.ADAMP:
            made = Adamp(beta1, beta2, eps, task.nesterov, zeros(), zeros(), projection)
    return made


def _known(hyperparameter: float | None) -> float:
    """One of those that `Training.of` sets."""
    assert hyperparameter is not None
    return hyperparameter
