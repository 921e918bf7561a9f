"""Layers of stacked lanes with their gradients written out, and buffers that are kept from step to step.

Activations are (L, H, B), features by batch as in W h: with the batch last, statistics are over contiguous
rows, whatever the number of lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

EPS = 1e-5  # as torch.nn.BatchNorm1d
MOMENTUM = 0.1  # of running statistics


def weight_of(batch: int | None) -> float:
    """Return the weight of a batch in running statistics: 1/(k + 1) for batch k of a mean, else MOMENTUM."""
    return MOMENTUM if batch is None else 1 / (batch + 1)


_SIDE = 3  # of a convolution's window


def multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Write a b of every lane into `out`, whose dtype may be finer."""
    return torch.bmm(a, b, out=out) if out.dtype is a.dtype else out.copy_(torch.bmm(a, b))


def relu(n: Tensor, out: Tensor) -> Tensor:
    """Write max(n, 0) into `out`, whose dtype may be coarser."""
    return torch.clamp_min(n, 0, out=out) if out.dtype is n.dtype else out.copy_(n).clamp_min_(0)


def cross_entropy(logits: Tensor, y: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """Return every lane's mean over the batch, (L,), and its gradient by the logits: (softmax − one-hot)/B.

    Logits are (L, C, B), classes y (B,); `one_hot` is the identity (C, C) in the logits' dtype.
    """
    log_p = torch.log_softmax(logits, dim=1)
    losses = -log_p.gather(1, y.expand(len(log_p), 1, -1)).mean(dim=(1, 2))
    return losses, log_p.exp_().sub_(one_hot.index_select(1, y)).div_(len(y))


class BatchNorm:
    """n = (z − mean)/√(var + ε) over the batch, without affine parameters; running statistics as torch's."""

    def __init__(self, lanes: int, width: int, batch: int, like: Tensor) -> None:
        self.n = like.new_empty(lanes, width, batch)
        self.mean = like.new_empty(lanes, width, 1)
        self.rstd = like.new_empty(lanes, width, 1)  # 1/√(var + ε)
        self.running_mean = like.new_zeros(lanes, width, 1)
        self.running_var = like.new_ones(lanes, width, 1)  # unbiased
        self.eps = like.new_tensor(EPS)
        self.momentum = MOMENTUM

    def forward(self, z: Tensor) -> Tensor:
        """Return n (L, H, B), in a buffer that the next call overwrites; update the running statistics."""
        batch = z.shape[2]
        torch.mean(z, dim=2, keepdim=True, out=self.mean)
        torch.sub(z, self.mean, out=self.n)
        norm = torch.linalg.vector_norm(self.n, dim=2, keepdim=True)
        torch.addcmul(self.eps, norm, norm, value=1 / batch, out=self.rstd).rsqrt_()
        self.running_mean.lerp_(self.mean, self.momentum)
        self.running_var.lerp_(norm.square_().div_(batch - 1), self.momentum)
        return self.n.mul_(self.rstd)

    def backward(self, z: Tensor, dn: Tensor) -> Tensor:
        """Return dz = (dn − mean(dn) − n mean(dn·n)) rstd for the last z given to `forward`."""
        wanted = [True, False, False]  # dz, and no gradients of affine parameters
        rows = [z.shape[2]]
        dz, _, _ = torch.ops.aten.native_layer_norm_backward(
            dn, z, rows, self.mean, self.rstd, None, None, wanted
        )
        assert isinstance(dz, Tensor)
        return dz

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return W′ (L, H, in) and b′ (L, H, 1) with W′h + b′ = n of z = W h by the running statistics."""
        scale = torch.rsqrt(self.running_var + EPS)
        return weight * scale, -self.running_mean * scale


class Normalised:
    """Lanes whose state besides parameters is the running statistics of normalisation layers."""

    def __init__(self, norms: Sequence[BatchNorm]) -> None:
        self._norms = norms

    def average_statistics(self, batch: int | None) -> bool:
        """Make running statistics a mean over batches, as `Lanes` has it."""
        for norm in self._norms:
            norm.momentum = weight_of(batch)
        return bool(self._norms)

    def state(self) -> dict[str, Tensor]:
        """Return the running statistics of every layer, (L, H, 1) each; not copies."""
        means = {f"mean{k}": norm.running_mean for k, norm in enumerate(self._norms)}
        return means | {f"var{k}": norm.running_var for k, norm in enumerate(self._norms)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned."""
        for name, value in self.state().items():
            value.copy_(state[name])


class Windows:
    """The windows of 3×3 convolutions as columns: a convolution becomes a matrix product per lane (im2col;
    Chellapilla et al. 2006).

    Images are (L, C, H, W, B) with a border of zeros, a window every `stride` pixels; L may be 1 for all
    lanes. A pixel is a contiguous row of B numbers, cheap to copy. Results lie in buffers that the next call
    of the same method overwrites, so that they stay in the cache.
    """

    def __init__(self, images: tuple[int, ...], stride: int, like: Tensor) -> None:
        lanes, channels, height, width, batch = images
        self.images, self.stride = images, stride
        self.size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
        self.padded = like.new_zeros(lanes, channels, height + 2, width + 2, batch)
        self.columns = like.new_empty(lanes, channels, _SIDE, _SIDE, *self.size, batch)

    def of(self, x: Tensor) -> Tensor:  # (L, C·9, H′·W′·B)
        """Return the windows of images x."""
        self.padded[:, :, 1:-1, 1:-1].copy_(x.view(self.images))
        for (i, j), window in self._shifts(self.padded):
            self.columns[:, :, i, j].copy_(window)
        return self._as_matrices(self.columns)

    @cached_property
    def gradient(self) -> Tensor:  # (L, C·9, H′·W′·B)
        """Buffer for the windows' gradient, which `sum` reads."""
        return self._as_matrices(torch.empty_like(self.columns))

    def sum(self) -> Tensor:  # (L, C, H·W·B)
        """Return each pixel's sum of `gradient` over all windows, in float32 or finer."""
        columns = self.gradient.view(self.columns.shape)
        self._summed.zero_()
        for (i, j), window in self._shifts(self._summed):
            window.add_(columns[:, :, i, j])
        return self._summed[:, :, 1:-1, 1:-1].flatten(2)

    @cached_property
    def _summed(self) -> Tensor:
        exact = torch.promote_types(self.padded.dtype, torch.float32)
        return torch.empty_like(self.padded, dtype=exact)

    def _as_matrices(self, columns: Tensor) -> Tensor:
        lanes, channels = self.images[:2]
        return columns.view(lanes, channels * _SIDE**2, -1)

    def _shifts(self, padded: Tensor) -> list[tuple[tuple[int, int], Tensor]]:
        """Return pixel (i, j) of every window as views (L, C, H′, W′, B) of padded images."""
        height, width = (self.stride * size for size in self.size)
        return [
            ((i, j), padded[:, :, i : i + height : self.stride, j : j + width : self.stride])
            for i in range(_SIDE)
            for j in range(_SIDE)
        ]
