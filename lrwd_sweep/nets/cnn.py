"""A small convolutional network: as an ordinary module, and with a lane axis and the gradient written out.

With lanes every convolution is a matrix product per lane. Activations are (L, C, H·W·B), the batch last, so
that normalisation is over contiguous rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.nets.mlp import LOGIT_SCALE, BatchNorm, Normalised, cross_entropy, multiply, relu
from lrwd_sweep.nets.modules import Make, ModuleNetwork
from lrwd_sweep.nets.network import Noise, Way, compute_type
from lrwd_sweep.spec.catalog import DataSet

LAYERS = ((16, 1), (32, 2), (32, 2))  # channels and stride of every 3×3 convolution
_SIDE = 3  # of a convolution's window


class Cnn(nn.Module):
    """Convolutions with batch normalisation (no affine parameters) and ReLU, mean over the image, a matrix.

    With `norm_logits` the logits are normalised too, as in Mlp: every weight is then scale-invariant.
    """

    def __init__(self, channels: int, classes: int, norm_logits: bool) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for width, stride in LAYERS:
            body += [
                nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width, affine=False),
                nn.ReLU(),
            ]
            channels = width
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(channels, classes, bias=False)
        self.norm = nn.BatchNorm1d(classes, affine=False) if norm_logits else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(classes))
        self.scale = LOGIT_SCALE if norm_logits else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of x (B, channels, height, width)."""
        h = self.body(x).mean(dim=(2, 3))
        logits: Tensor = self.norm(self.head(h)) * self.scale + self.bias
        return logits


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {  # by image channels and classes
    "cnn-norm": partial(Cnn, norm_logits=True),
    "cnn": partial(Cnn, norm_logits=False),
}


class CnnNetwork(ModuleNetwork):
    """`Cnn` whose lanes train in one program."""

    def __init__(self, make: Make, item: DataSet, way: Way) -> None:
        super().__init__(make, item, way)
        self.layout = torch.contiguous_format  # a filter is a row of a matrix
        self.stacked = True

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> CnnLanes:
        """Return as many networks as `theta` holds, for training on batches of `batch` items."""
        assert isinstance(self.module, Cnn)
        norm_logits = isinstance(self.module.norm, nn.BatchNorm1d)
        return CnnLanes(theta, grad, (*self.item.shape, batch), norm_logits, self.way)


class CnnLanes(Normalised):
    """L networks in training: parameters and gradients (views of an arena) and buffers."""

    def __init__(
        self,
        theta: Mapping[str, Tensor],
        grad: Mapping[str, Tensor],
        images: tuple[int, ...],  # C, H, W, B
        norm_logits: bool,
        way: Way,
    ) -> None:
        self.bias, self.bias_grad = theta["bias"], grad["bias"]
        self.head, self.head_grad = theta["head.weight"], grad["head.weight"]
        lanes, classes = self.bias.shape
        self.dtype = compute_type(way.precision, self.bias)
        self.layers: list[_Convolution] = []
        sizes = images
        for name, (width, stride) in zip((name for name in theta if "body" in name), LAYERS, strict=True):
            shape = (lanes if self.layers else 1, *sizes)  # the batch is the same for all
            windows = Windows(shape, stride, self.bias.new_empty(0, dtype=self.dtype))
            self.layers.append(_Convolution(theta[name], grad[name], windows))
            sizes = (width, *windows.size, sizes[-1])
        self.z = self.bias.new_empty(lanes, classes, images[-1])
        self.norm = BatchNorm(lanes, classes, images[-1], self.bias) if norm_logits else None
        norms = [layer.norm for layer in self.layers]
        super().__init__(norms if self.norm is None else [*norms, self.norm])
        self.one_hot = torch.eye(classes, dtype=self.bias.dtype, device=self.bias.device)

    def gradient(self, x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return every lane's mean cross-entropy on the batch and its logits; write the gradients."""
        h = _batch_last(x).to(self.dtype)
        for layer in self.layers:
            h = layer.forward(h)
        pixels = h.view(*h.shape[:2], -1, len(x))  # (L, C, H·W, B)
        h = pixels.mean(dim=2)
        head = self.head.to(self.dtype)
        multiply(head, h, out=self.z)
        bias = self.bias.unsqueeze(2)
        logits = (
            self.z + bias
            if self.norm is None
            else torch.add(bias, self.norm.forward(self.z), alpha=LOGIT_SCALE)
        )
        losses, dz = cross_entropy(logits, y, self.one_hot)
        torch.sum(dz, dim=2, out=self.bias_grad)
        if self.norm is not None:
            dz = self.norm.backward(self.z, dz.mul_(LOGIT_SCALE))
        dz = dz.to(self.dtype)
        self.head_grad.copy_(torch.bmm(dz, h.transpose(1, 2)))
        dh = torch.bmm(head.transpose(1, 2), dz).div_(pixels.shape[2])
        dh = dh.unsqueeze(2).expand_as(pixels).flatten(2)
        for layer in reversed(self.layers[1:]):
            dh = layer.backward(dh)
        self.layers[0].backward_last(dh)
        return losses, logits

    def predictor(self) -> CnnPredictor:
        """Return the networks by running statistics, each normalisation folded into its layer."""
        layers = [(layer, *layer.folded()) for layer in self.layers]
        bias = self.bias.unsqueeze(2)
        if self.norm is None:
            return CnnPredictor(layers, self.head.to(self.dtype), bias)
        weight, shift = self.norm.fold(self.head)
        return CnnPredictor(layers, (weight * LOGIT_SCALE).to(self.dtype), shift * LOGIT_SCALE + bias)


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


class _Convolution:
    """One layer of all lanes: convolution, normalisation, ReLU. Results lie in its buffers."""

    def __init__(self, weight: Tensor, grad: Tensor, windows: Windows) -> None:
        rows = (*weight.shape[:2], -1)
        self.weight, self.grad = weight.view(rows), grad.view(rows)  # (L, out, in·9)
        self.windows = windows
        lanes, width, _ = self.weight.shape
        pixels = windows.columns.shape[4:].numel()  # H′·W′·B
        self.z = weight.new_empty(lanes, width, pixels)
        self.h = torch.empty_like(self.z, dtype=windows.columns.dtype)
        self.norm = BatchNorm(lanes, width, pixels, weight)

    def forward(self, x: Tensor) -> Tensor:  # (L, out, H′·W′·B)
        self.columns = self.windows.of(x).expand(len(self.weight), -1, -1)
        multiply(self.weight.to(x.dtype), self.columns, out=self.z)
        return relu(self.norm.forward(self.z), out=self.h)

    def backward(self, dh: Tensor) -> Tensor:
        """Write the gradient of the weights and return that of the input. `dh` is overwritten."""
        dz = self.backward_last(dh)
        torch.bmm(self.weight.to(dz.dtype).transpose(1, 2), dz, out=self.windows.gradient)
        return self.windows.sum()

    def backward_last(self, dh: Tensor) -> Tensor:
        """Write the gradient of the weights and return that of the matrix product."""
        torch.ops.aten.threshold_backward.grad_input(dh, self.h, 0, grad_input=dh)
        dz = self.norm.backward(self.z, dh.to(self.z.dtype)).to(self.h.dtype)
        self.grad.copy_(torch.bmm(dz, self.columns.transpose(1, 2)))
        return dz

    def folded(self) -> tuple[Tensor, Tensor]:
        weight, shift = self.norm.fold(self.weight)
        return weight.to(self.h.dtype), shift.to(self.h.dtype)

    def predict(self, x: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
        """Return relu(W ∗ x + b) as (L, out, H′·W′·B)."""
        columns = self.windows.of(x).expand(len(weight), -1, -1)
        return torch.bmm(weight, columns, out=self.h).add_(shift).clamp_min_(0)


@dataclass(frozen=True, slots=True)
class CnnPredictor:
    """Networks for evaluation: h ← relu(W ∗ h + b) in every layer, then W mean(h) + b.

    Images are taken in training batches, in the buffers of training: larger ones would leave the cache.
    """

    layers: list[tuple[_Convolution, Tensor, Tensor]]  # with W (L, out, in·9), b (L, out, 1)
    head: Tensor  # (L, classes, in)
    bias: Tensor  # (L, classes, 1)

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """Return the logits on x (B, C, H, W)."""
        batch = self.layers[0][0].windows.images[-1]
        filled = functional.pad(x, (0, 0, 0, 0, 0, 0, 0, -len(x) % batch))
        logits = torch.cat([self._logits(part) for part in torch.split(filled, batch)], dim=2)
        return logits[:, :, : len(x)]

    def _logits(self, x: Tensor) -> Tensor:
        h = _batch_last(x).to(self.head.dtype)
        for layer, weight, shift in self.layers:
            h = layer.predict(h, weight, shift)
        pixels = h.view(*h.shape[:2], -1, len(x))
        return torch.bmm(self.head, pixels.mean(dim=2)).to(self.bias.dtype).add_(self.bias)


def _batch_last(x: Tensor) -> Tensor:  # (B, C, H, W) → (1, C, H, W, B)
    return x.permute(1, 2, 3, 0).unsqueeze(0)
