"""Batch normalisation of stacked lanes, with its gradient written out and its buffers kept.

Activations are (L, H, B), features by batch as in W h: with the batch last, the statistics are those of
contiguous rows, whatever the number of lanes.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-5  # as torch.nn.BatchNorm1d
MOMENTUM = 0.1


class BatchNorm:
    """n = (z − mean)/√(var + ε) over the batch, without affine parameters; statistics run as torch's do."""

    def __init__(self, lanes: int, width: int, batch: int, like: Tensor) -> None:
        self.n = like.new_empty(lanes, width, batch)
        self.mean = like.new_empty(lanes, width, 1)
        self.rstd = like.new_empty(lanes, width, 1)  # 1/√(var + ε)
        self.running_mean = like.new_zeros(lanes, width, 1)
        self.running_var = like.new_ones(lanes, width, 1)  # of the population: unbiased
        self.eps = like.new_tensor(EPS)

    def forward(self, z: Tensor) -> Tensor:
        """n (L, H, B), in a buffer that the next call overwrites; the running statistics move along."""
        batch = z.shape[2]
        torch.mean(z, dim=2, keepdim=True, out=self.mean)
        torch.sub(z, self.mean, out=self.n)
        norm = torch.linalg.vector_norm(self.n, dim=2, keepdim=True)
        torch.addcmul(self.eps, norm, norm, value=1 / batch, out=self.rstd).rsqrt_()
        self.running_mean.lerp_(self.mean, MOMENTUM)
        self.running_var.lerp_(norm.square_().div_(batch - 1), MOMENTUM)
        return self.n.mul_(self.rstd)

    def backward(self, z: Tensor, dn: Tensor) -> Tensor:
        """dz = (dn − mean(dn) − n mean(dn·n)) rstd, with z as `forward` had it."""
        wanted = [True, False, False]  # dz, and no gradients of affine parameters
        rows = [z.shape[2]]
        dz, _, _ = torch.ops.aten.native_layer_norm_backward(
            dn, z, rows, self.mean, self.rstd, None, None, wanted
        )
        assert isinstance(dz, Tensor)
        return dz

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """W′ (L, H, in) and b′ (L, H, 1) with W′h + b′ = n of z = W h by the running statistics."""
        scale = torch.rsqrt(self.running_var + EPS)
        return weight * scale, -self.running_mean * scale
