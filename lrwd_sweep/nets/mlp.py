"""Multilayer perceptrons: with a lane axis and the gradient written out, and as an ordinary module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lrwd_sweep.nets.lane_layers import BatchNorm, Normalised, cross_entropy, multiply, relu
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import DEFAULT_WAY, Lanes, Noise, Way
from lrwd_sweep.nets.precision import compute_type
from lrwd_sweep.optim import jit
from lrwd_sweep.spec.catalog import FLOAT32, DataSet

LOGIT_SCALE = 2.0  # normalised logits have unit variance; this lets the softmax become confident


@dataclass(frozen=True, slots=True)
class Mlp:
    """Linear layers with batch normalisation (no affine parameters) and ReLU between them.

    With `norm_logits` the logits are normalised too, times LOGIT_SCALE: every matrix is then scale-invariant,
    and decay acts only through the effective learning rate.
    """

    stacked: ClassVar[bool] = True

    widths: tuple[int, ...] = (64, 128, 128, 10)
    norm_logits: bool = True
    way: Way = DEFAULT_WAY

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """The matrices followed by a normalisation."""
        weights = tuple(name for name in self.shapes if name.startswith("weight"))
        return weights if self.norm_logits else weights[:-1]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of one network."""
        pairs = zip(self.widths[1:], self.widths, strict=False)
        return {f"weight{k}": pair for k, pair in enumerate(pairs, 1)} | {"bias": (self.widths[-1],)}

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw parameters of one network in float64: torch.nn.Linear's uniform(±1/√fan-in), bias 0."""
        return {
            name: torch.empty(shape, dtype=torch.float64).uniform_(
                -(shape[1] ** -0.5), shape[1] ** -0.5, generator=generator
            )
            if len(shape) == 2
            else torch.zeros(shape, dtype=torch.float64)
            for name, shape in self.shapes.items()
        }

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> Lanes:
        """Return as many networks as `theta` holds; on a CPU they train in numba's loops if numba works."""
        if theta["bias"].is_cpu and self.way.precision == FLOAT32 and jit.usable():
            from lrwd_sweep.nets.mlp_numba import NumbaMlpLanes  # noqa: PLC0415  # slow to load

            layers = len(self.widths) - 1
            normed, scale = (layers, LOGIT_SCALE) if self.norm_logits else (layers - 1, 1.0)
            return NumbaMlpLanes(theta, grad, batch, widths=self.widths, normed=normed, scale=scale)
        return MlpLanes(self, theta, grad, batch)


class MlpLanes(Normalised):
    """L perceptrons in training: parameters and gradients (views of an arena) and buffers."""

    def __init__(self, net: Mlp, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> None:
        weights = [name for name in net.shapes if name.startswith("weight")]
        self.net = net
        self.weights, self.bias = [theta[name] for name in weights], theta["bias"]
        self.weight_grads, self.bias_grad = [grad[name] for name in weights], grad["bias"]
        like, lanes = self.bias, self.bias.shape[0]
        self.dtype = compute_type(net.way.precision, like)
        self.z = [like.new_empty(lanes, width, batch) for width in net.widths[1:]]
        self.h = [torch.empty_like(z, dtype=self.dtype) for z in self.z[:-1]]
        normed = net.widths[1:] if net.norm_logits else net.widths[1:-1]
        self.norms = [BatchNorm(lanes, width, batch, like) for width in normed]
        super().__init__(self.norms)
        self.one_hot = torch.eye(net.widths[-1], dtype=like.dtype, device=like.device)

    def gradient(self, x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return every lane's mean cross-entropy on the batch and its logits; write the gradients."""
        x = x.flatten(1).to(self.dtype)
        weights = [weight.to(self.dtype) for weight in self.weights]  # rounded once per step, if at all
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
        """Compute logits by batch statistics; leave z and h of every layer in their buffers."""
        h = x.t().expand(self.bias.shape[0], -1, -1)
        for k, (weight, z) in enumerate(zip(weights, self.z, strict=True)):
            multiply(weight, h, out=z)
            if k < len(self.h):
                h = relu(self.norms[k].forward(z), out=self.h[k])
        bias = self.bias.unsqueeze(2)
        if self.net.norm_logits:
            return torch.add(bias, self.norms[-1].forward(self.z[-1]), alpha=LOGIT_SCALE)
        return self.z[-1] + bias

    def predictor(self) -> FoldedMlp:
        """Return the networks by running statistics, each normalisation folded into its layer."""
        *hidden, last = self.weights
        layers = [norm.fold(weight) for weight, norm in zip(hidden, self.norms, strict=False)]
        bias = self.bias.unsqueeze(2)
        if self.net.norm_logits:
            weight, shift = self.norms[-1].fold(last)
            layers.append((weight * LOGIT_SCALE, shift * LOGIT_SCALE + bias))
        else:
            layers.append((last, bias))
        return FoldedMlp.of(layers, self.dtype)


@dataclass(frozen=True, slots=True)
class FoldedMlp:
    """Perceptrons for evaluation: h ← max(W h, floor) in every hidden layer, then W h + bias.

    relu(W h + b) = max(W h, −b) + b, and that last b is moved into the next layer: one pass per activation.
    """

    weights: list[Tensor]  # (L, out, in), in the dtype of products
    floors: list[Tensor]  # (L, out, 1), one per hidden layer, likewise
    bias: Tensor  # (L, classes, 1)

    @classmethod
    def of(cls, layers: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> FoldedMlp:
        """Fold layers (W, b) with ReLU between them.

        The moved b is the rounded one, so that a unit that is off adds nothing.
        """
        weights, floors, moved = [layers[0][0].to(dtype)], [], layers[0][1]
        for weight, bias in layers[1:]:
            floors.append((-moved).to(dtype))
            weights.append(weight.to(dtype))
            off = weights[-1].to(bias.dtype) * floors[-1].to(bias.dtype).transpose(1, 2)
            moved = bias - off.sum(dim=2, keepdim=True)
        return cls(weights, floors, moved)

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """Return the logits on x (B, *shape)."""
        h = x.flatten(1).t().to(self.weights[0].dtype).expand(self.bias.shape[0], -1, -1)
        for weight, floor in zip(self.weights, self.floors, strict=False):
            h = torch.bmm(weight, h).clamp_min_(floor)
        return torch.bmm(self.weights[-1], h).to(self.bias.dtype).add_(self.bias)


class MlpModule(nn.Module):
    """`Mlp` as a module of one network, with the same parameter names, shapes and order, all zero."""

    bias: nn.Parameter

    def __init__(self, net: Mlp) -> None:
        super().__init__()
        for name, shape in net.shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.weights = [name for name in net.shapes if name.startswith("weight")]
        normed = net.widths[1:] if net.norm_logits else net.widths[1:-1]
        self.norms = nn.ModuleList(nn.BatchNorm1d(width, affine=False) for width in normed)
        self.scale = LOGIT_SCALE if net.norm_logits else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of x (B, *shape)."""
        *hidden, last = [getattr(self, name) for name in self.weights]
        h = x.flatten(1)
        for weight, norm in zip(hidden, self.norms, strict=False):
            h = torch.relu(norm(linear(h, weight)))
        z = linear(h, last)
        if len(self.norms) > len(hidden):
            z = self.norms[-1](z) * self.scale
        logits: Tensor = z + self.bias
        return logits


class MlpNetwork(ModuleNetwork):
    """`Mlp` by its module, for vmap, loop and any loss; initialised as the native one."""

    def __init__(self, net: Mlp, item: DataSet) -> None:
        super().__init__(partial(MlpModule, net), item.shape, item.classes, net.way, item)
        self.net = net

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the native network's initial parameters, float64."""
        return {name: value for name, value in self.net.init(generator).items() if name in self.trained}

    def _seeded(self, generator: torch.Generator) -> nn.Module:
        module = self.make()
        for name, value in self.net.init(generator).items():
            module.get_parameter(name).data = value
        return module
