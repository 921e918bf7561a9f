"""Update rules over the arena of a pack: `families` in torch, `numba_loops` for a CPU."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lrwd_sweep.optim import jit
from lrwd_sweep.optim.families import new_family
from lrwd_sweep.optim.matrices import FactoredLayer, Factors, Kfac, known
from lrwd_sweep.optim.update import Decay, DeviceUpdate, Projection, Segment, Update, clip, columns
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.spec.task import Task

__all__ = [
    "DeviceUpdate",
    "FactoredLayer",
    "Factors",
    "Segment",
    "Update",
    "clip",
    "compiled_on",
    "make_update",
]


def make_update(
    optimizer: Optimizer,
    task: Task,
    theta: Tensor,  # (L, P)
    layout: Sequence[Segment],
    *,
    alpha: Tensor,  # (L, 1)
    lam: Tensor,  # (L, 1)
    factors: Factors | None = None,  # of the batch, for K-FAC
) -> Update:
    """Make the update of every lane, with fresh moments."""
    family, task = optimizer.family, task.of(optimizer)
    assert family is not None, "an imported study is never trained"
    momentum, eps = known(task.momentum), known(task.eps)
    matrices = tuple(segment for segment in layout if segment.is_matrix)
    watched = matrices if family.projected else ()
    decaying = [s for s in (layout if task.decay_all else matrices) if s.name not in task.undecayed]
    if family is Family.NDADAM:  # L2 along a weight of a fixed norm, which the projection removes
        decaying = [segment for segment in decaying if not segment.is_matrix]
    projection = Projection(watched, theta.new_zeros(len(theta), dtype=torch.float64), eps)
    decay = Decay(
        optimizer.rule,
        optimizer.normalized,
        columns(s for s in decaying if s not in watched),
        tuple(segment.columns if segment in decaying else None for segment in watched),
        gain=1 / (1 - momentum) if family is Family.SGDP else 1.0,
        cautious=optimizer.cautious,
    )
    steps = (
        Kfac.of(task, torch.zeros_like(theta), layout, factors or Factors.of((), theta))
        if family is Family.KFAC
        else new_family(family, task, theta, layout, projection)
    )
    betas, acting = (known(task.beta1), known(task.beta2)), projection if family.projected else None
    loop = None
    if compiled_on(theta.device):
        from lrwd_sweep.optim.numba_loops import numba_loop  # noqa: PLC0415  # slow to load

        loop = numba_loop(steps, decay, acting, theta)
    return Update(steps, decay, alpha, lam, betas, acting, loop)


def compiled_on(device: torch.device) -> bool:
    """Return True if numba runs updates on this device; they need only θ, g and the moments."""
    return device.type == "cpu" and jit.usable()
