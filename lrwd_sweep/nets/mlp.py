"""Multilayer perceptrons with a lane axis, their gradient written out; one lane is the ordinary network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrwd_sweep.nets.batch_norm import BatchNorm
from lrwd_sweep.nets.loss import cross_entropy
from lrwd_sweep.nets.network import Lanes
from lrwd_sweep.nets.precision import compute_type
from lrwd_sweep.nets.products import multiply, relu
from lrwd_sweep.optim import jit
from lrwd_sweep.spec.catalog import FLOAT32

LOGIT_SCALE = 2.0  # normalised logits have unit variance; this lets the softmax become confident


@dataclass(frozen=True, slots=True)
class Mlp:
    """Linear layers with batch normalisation (no affine parameters) and ReLU between them.

    With `norm_logits` the logits are normalised too, times LOGIT_SCALE: every matrix is then
    scale-invariant and its decay acts through the effective learning rate alone.
    """

    stacked: ClassVar[bool] = True

    widths: tuple[int, ...] = (64, 128, 128, 10)
    norm_logits: bool = True
    precision: str = FLOAT32  # of the products; sums, statistics and losses keep the parameters'

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """The matrices with a normalisation behind them."""
        weights = tuple(name for name in self.shapes if name.startswith("weight"))
        return weights if self.norm_logits else weights[:-1]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of one network."""
        pairs = zip(self.widths[1:], self.widths, strict=False)
        return {f"weight{k}": pair for k, pair in enumerate(pairs, 1)} | {"bias": (self.widths[-1],)}

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters of one network in float64: torch.nn.Linear's uniform(±1/√fan-in), bias 0."""
        return {
            name: torch.empty(shape, dtype=torch.float64).uniform_(
                -(shape[1] ** -0.5), shape[1] ** -0.5, generator=generator
            )
            if len(shape) == 2
            else torch.zeros(shape, dtype=torch.float64)
            for name, shape in self.shapes.items()
        }

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> Lanes:
        """As many networks as `theta` holds, which train on batches of `batch`.

        On a CPU in compiled loops, if numba can be used, which some versions of Python have to wait for.
        """
        if theta["bias"].is_cpu and self.precision == FLOAT32 and jit.usable():
            from lrwd_sweep.nets.mlp_compiled import CompiledMlpLanes  # noqa: PLC0415  # slow to load

            layers = len(self.widths) - 1
            normed, scale = (layers, LOGIT_SCALE) if self.norm_logits else (layers - 1, 1.0)
            return CompiledMlpLanes(theta, grad, batch, widths=self.widths, normed=normed, scale=scale)
        return MlpLanes(self, theta, grad, batch)


class MlpLanes:
    """L networks in training: their parameters and gradients (views of an arena) and their buffers."""

    def __init__(self, net: Mlp, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> None:
        weights = [name for name in net.shapes if name.startswith("weight")]
        self.net = net
        self.weights, self.bias = [theta[name] for name in weights], theta["bias"]
        self.weight_grads, self.bias_grad = [grad[name] for name in weights], grad["bias"]
        like, lanes = self.bias, self.bias.shape[0]
        self.dtype = compute_type(net.precision, like)  # of what is multiplied
        self.z = [like.new_empty(lanes, width, batch) for width in net.widths[1:]]
        self.h = [torch.empty_like(z, dtype=self.dtype) for z in self.z[:-1]]
        normed = net.widths[1:] if net.norm_logits else net.widths[1:-1]
        self.norms = [BatchNorm(lanes, width, batch, like) for width in normed]
        self.one_hot = torch.eye(net.widths[-1], dtype=like.dtype, device=like.device)

    def gradient(
        self,
        x: Tensor,  # (B, *shape), the same batch in every lane
        y: Tensor,  # (B,) int64
        noise: Sequence[torch.Generator],  # not used
    ) -> tuple[Tensor, Tensor]:  # (L,), (L, C, B)
        """Every lane's mean cross-entropy on the batch, and its logits; the gradients are written."""
        x = x.flatten(1).to(self.dtype)
        weights = [weight.to(self.dtype) for weight in self.weights]  # once per step, or as they are
        logits = self._logits(weights, x)
        losses, dz = cross_entropy(logits, y, self.one_hot)
        torch.sum(dz, dim=2, out=self.bias_grad)
        if self.net.norm_logits:
            dz = self.norms[-1].backward(self.z[-1], dz.mul_(LOGIT_SCALE))
        for k in range(len(self.h), 0, -1):
            h, dz = self.h[k - 1], dz.to(self.dtype)
            self.weight_grads[k].copy_(torch.bmm(dz, h.transpose(1, 2)))
            dh = torch.bmm(weights[k].transpose(1, 2), dz)
            torch.ops.aten.threshold_backward.grad_input(dh, h, 0, grad_input=dh)
            dz = self.norms[k - 1].backward(self.z[k - 1], dh.to(self.bias.dtype))
        self.weight_grads[0].copy_(torch.bmm(dz.to(self.dtype), x.expand(len(dz), -1, -1)))
        return losses, logits

    def _logits(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:  # (L, classes, B)
        """By batch statistics; leaves z and h of every layer in their buffers."""
        h = x.t().expand(self.bias.shape[0], -1, -1)
        for k, (weight, z) in enumerate(zip(weights, self.z, strict=True)):
            multiply(weight, h, out=z)
            if k < len(self.h):
                h = relu(self.norms[k].forward(z), out=self.h[k])
        bias = self.bias.unsqueeze(2)
        if self.net.norm_logits:
            return torch.add(bias, self.norms[-1].forward(self.z[-1]), alpha=LOGIT_SCALE)
        return self.z[-1] + bias

    def predictor(self) -> Folded:
        """The networks by running statistics, each normalisation part of its layer."""
        *hidden, last = self.weights
        layers = [norm.fold(weight) for weight, norm in zip(hidden, self.norms, strict=False)]
        bias = self.bias.unsqueeze(2)
        if self.net.norm_logits:
            weight, shift = self.norms[-1].fold(last)
            layers.append((weight * LOGIT_SCALE, shift * LOGIT_SCALE + bias))
        else:
            layers.append((last, bias))
        return Folded.of(layers, self.dtype)


@dataclass(frozen=True, slots=True)
class Folded:
    """Networks for evaluation: h ← max(W h, floor) in every hidden layer, then W h + bias.

    relu(W h + b) = max(W h, −b) + b, and that last b is moved into the next layer: one pass per activation.
    """

    weights: list[Tensor]  # (L, out, in), of the type of what is multiplied
    floors: list[Tensor]  # (L, out, 1), one per hidden layer, likewise
    bias: Tensor  # (L, classes, 1)

    @classmethod
    def of(cls, layers: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Folded:
        """From (W, b) of every layer, ReLU between them.

        What is moved on is b as it was rounded, so that a unit that is off adds nothing.
        """
        weights, floors, moved = [layers[0][0].to(dtype)], [], layers[0][1]
        for weight, bias in layers[1:]:
            floors.append((-moved).to(dtype))
            weights.append(weight.to(dtype))
            off = weights[-1].to(bias.dtype) * floors[-1].to(bias.dtype).transpose(1, 2)
            moved = bias - off.sum(dim=2, keepdim=True)
        return cls(weights, floors, moved)

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """The logits on x (B, *shape)."""
        h = x.flatten(1).t().to(self.weights[0].dtype).expand(self.bias.shape[0], -1, -1)
        for weight, floor in zip(self.weights, self.floors, strict=False):
            h = torch.bmm(weight, h).clamp_min_(floor)
        return torch.bmm(self.weights[-1], h).to(self.bias.dtype).add_(self.bias)
