"""Layers with a lane axis. Activations are (L, features, B): features by batch, as in W h.

With the batch last, batch normalisation works on contiguous rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

EPS = 1e-5  # as torch.nn.BatchNorm1d
MOMENTUM = 0.1


@dataclass(frozen=True, slots=True)
class RunningNorm:
    """Running statistics of one batch normalisation, as torch.nn.BatchNorm1d keeps them."""

    mean: Tensor  # (L, H)
    var: Tensor  # (L, H), unbiased

    @classmethod
    def fresh(cls, lanes: int, width: int, like: Tensor) -> RunningNorm:
        """Mean 0 and variance 1, on the device and in the type of `like`."""
        return cls(like.new_zeros(lanes, width), like.new_ones(lanes, width))


def linear(
    weight: Tensor,  # (L, out, in)
    h: Tensor,  # (L, in, B), or (in, B) when every lane sees the same batch
) -> Tensor:  # (L, out, B)
    """W h in every lane; no bias. A product per lane: no lane's rounding depends on the size of its pack."""
    return torch.bmm(weight, h.expand(weight.shape[0], -1, -1))


class _Standardise(torch.autograd.Function):
    """n = (z − mean)/√(var + ε) over the last axis; also the mean and 1/√(var + ε), both (L, H, 1)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Four plain passes: on rows of one batch they take half the time of native_layer_norm."""
        mean = z.mean(dim=2, keepdim=True)
        n = z - mean
        var = torch.linalg.vector_norm(n, dim=2, keepdim=True).square_().div_(z.shape[2])
        rstd = torch.rsqrt(var.add_(EPS))
        ctx.save_for_backward(z, mean, rstd)
        ctx.mark_non_differentiable(mean, rstd)
        return n.mul_(rstd), mean, rstd

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """dz = (dn − mean(dn) − n mean(dn·n)) rstd."""
        z, mean, rstd = ctx.saved_tensors
        wanted = [True, False, False]  # dz, and no gradients of affine parameters
        batch = [z.shape[2]]
        dn = grads[0].contiguous()
        dz, _, _ = torch.ops.aten.native_layer_norm_backward(dn, z, batch, mean, rstd, None, None, wanted)
        return cast(Tensor, dz)


def batch_norm(
    z: Tensor,  # (L, H, B)
    running: RunningNorm,
) -> Tensor:  # (L, H, B)
    """(z − mean)/√(var + ε) over the batch, no affine parameters; keeps `running` up to date."""
    n, mean, rstd = cast(tuple[Tensor, Tensor, Tensor], _Standardise.apply(z))
    batch = z.shape[2]
    with torch.no_grad():
        unbiased = rstd.squeeze(2).pow(-2).sub_(EPS).mul_(batch / (batch - 1))
        running.mean.lerp_(mean.squeeze(2), MOMENTUM)
        running.var.lerp_(unbiased, MOMENTUM)
    return n


def fold(
    weight: Tensor,  # (L, out, in)
    running: RunningNorm,
) -> tuple[Tensor, Tensor]:  # (L, out, in), (L, out, 1)
    """W′, b′ with W′h + b′ = (W h − mean)/√(var + ε) by the running statistics. For evaluation."""
    scale = torch.rsqrt(running.var + EPS).unsqueeze(2)
    return weight * scale, -running.mean.unsqueeze(2) * scale
