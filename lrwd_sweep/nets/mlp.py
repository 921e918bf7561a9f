"""Multilayer perceptrons with a lane axis, their gradient written out; one lane is the ordinary network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lrwd_sweep.nets.batch_norm import BatchNorm

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

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> MlpLanes:
        """As many networks as `theta` holds, which train on batches of `batch`."""
        return MlpLanes(self, theta, grad, batch)

    def activations(self, batch: int, eval_batch: int) -> int:
        """Six (width, B) tensors per layer are alive in a training step; an evaluation batch needs two."""
        widths = self.widths[1:]
        return max(6 * sum(widths) * batch, 2 * max(widths) * eval_batch)


class MlpLanes:
    """L networks in training: their parameters and gradients (views of an arena) and their buffers."""

    def __init__(self, net: Mlp, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> None:
        weights = [name for name in net.shapes if name.startswith("weight")]
        self.net = net
        self.weights, self.bias = [theta[name] for name in weights], theta["bias"]
        self.weight_grads, self.bias_grad = [grad[name] for name in weights], grad["bias"]
        like, lanes = self.bias, self.bias.shape[0]
        self.z = [like.new_empty(lanes, width, batch) for width in net.widths[1:]]
        self.h = [torch.empty_like(z) for z in self.z[:-1]]
        normed = net.widths[1:] if net.norm_logits else net.widths[1:-1]
        self.norms = [BatchNorm(lanes, width, batch, like) for width in normed]
        self.one_hot = torch.eye(net.widths[-1], dtype=like.dtype, device=like.device)

    def gradient(
        self,
        x: Tensor,  # (B, *shape), the same batch in every lane
        y: Tensor,  # (B,) int64
        noise: torch.Generator,  # not used
    ) -> tuple[Tensor, Tensor]:  # (L,), (L, C, B)
        """Every lane's mean cross-entropy on the batch, and its logits; the gradients are written."""
        batch, x = x.shape[0], x.flatten(1)
        logits = self._logits(x)
        log_p = torch.log_softmax(logits, dim=1)
        losses = -log_p.gather(1, y.expand(len(log_p), 1, -1)).mean(dim=(1, 2))
        dz = log_p.exp_().sub_(self.one_hot.index_select(1, y)).div_(batch)  # of the logits
        torch.sum(dz, dim=2, out=self.bias_grad)
        if self.net.norm_logits:
            dz = self.norms[-1].backward(self.z[-1], dz.mul_(LOGIT_SCALE))
        for k in range(len(self.h), 0, -1):
            h = self.h[k - 1]
            self.weight_grads[k].copy_(torch.bmm(dz, h.transpose(1, 2)))
            dh = torch.bmm(self.weights[k].transpose(1, 2), dz)
            torch.ops.aten.threshold_backward.grad_input(dh, h, 0, grad_input=dh)
            dz = self.norms[k - 1].backward(self.z[k - 1], dh)
        self.weight_grads[0].copy_(torch.bmm(dz, x.expand(len(dz), -1, -1)))
        return losses, logits

    def _logits(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """By batch statistics; leaves z and h of every layer in their buffers."""
        h = x.t().expand(self.bias.shape[0], -1, -1)
        for k, (weight, z) in enumerate(zip(self.weights, self.z, strict=True)):
            torch.bmm(weight, h, out=z)
            if k < len(self.h):
                h = torch.clamp_min(self.norms[k].forward(z), 0, out=self.h[k])
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
        return Folded.of(layers)


@dataclass(frozen=True, slots=True)
class Folded:
    """Networks for evaluation: h ← max(W h, floor) in every hidden layer, then W h + bias.

    relu(W h + b) = max(W h, −b) + b, and that last b is moved into the next layer: one pass per activation.
    """

    weights: list[Tensor]  # (L, out, in)
    floors: list[Tensor]  # (L, out, 1), one per hidden layer
    bias: Tensor  # (L, classes, 1)

    @classmethod
    def of(cls, layers: list[tuple[Tensor, Tensor]]) -> Folded:
        """From (W, b) of every layer, ReLU between them."""
        biases = [layers[0][1]]
        for weight, bias in layers[1:]:
            biases.append(bias + (weight * biases[-1].transpose(1, 2)).sum(dim=2, keepdim=True))
        return cls([weight for weight, _ in layers], [-bias for bias in biases[:-1]], biases[-1])

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """The logits on x (B, *shape)."""
        h = x.flatten(1).t().expand(self.bias.shape[0], -1, -1)
        for weight, floor in zip(self.weights, self.floors, strict=False):
            h = torch.bmm(weight, h).clamp_min_(floor)
        return torch.bmm(self.weights[-1], h).add_(self.bias)
