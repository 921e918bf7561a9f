"""Multilayer perceptrons, written once with a lane axis; one lane is the ordinary network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.nets.layers import RunningNorm, batch_norm, fold, linear

LOGIT_SCALE = 2.0  # normalised logits have unit variance; this lets the softmax become confident


@dataclass(frozen=True, slots=True)
class Folded:
    """A network for evaluation: h ← max(W h, floor) in every hidden layer, then W h + bias.

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
        """The logits on x (B, features)."""
        h = x.t()
        for weight, floor in zip(self.weights, self.floors, strict=False):
            h = linear(weight, h).clamp_min_(floor)
        return linear(self.weights[-1], h).add_(self.bias)


@dataclass(frozen=True, slots=True)
class Mlp:
    """Linear layers with batch normalisation (no affine parameters) and ReLU between them.

    With `norm_logits` the logits are normalised too, times LOGIT_SCALE: every matrix is then
    scale-invariant and its decay acts through the effective learning rate alone.
    """

    widths: tuple[int, ...] = (64, 128, 128, 10)
    norm_logits: bool = True

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

    def norms(self, lanes: int, like: Tensor) -> list[RunningNorm]:
        """Fresh running statistics, one per normalisation."""
        normed = self.widths[1:] if self.norm_logits else self.widths[1:-1]
        return [RunningNorm.fresh(lanes, width, like) for width in normed]

    def forward(
        self,
        theta: Mapping[str, Tensor],  # each (L, *shape)
        x: Tensor,  # (B, features), the same batch in every lane
        norms: list[RunningNorm],
    ) -> Tensor:  # (L, classes, B)
        """The logits of every lane by batch statistics; keeps `norms` up to date. For training."""
        h = x.t()
        for weight, norm in zip(self._weights(theta)[:-1], norms, strict=False):
            h = batch_norm(linear(weight, h), norm).relu_()
        z = linear(self._weights(theta)[-1], h)
        if self.norm_logits:
            z = batch_norm(z, norms[-1]) * LOGIT_SCALE
        return z + theta["bias"].unsqueeze(2)

    def folded(self, theta: Mapping[str, Tensor], norms: list[RunningNorm]) -> Folded:
        """The network by running statistics, each normalisation part of its layer."""
        *hidden, last = self._weights(theta)
        layers = [fold(weight, norm) for weight, norm in zip(hidden, norms, strict=False)]
        bias = theta["bias"].unsqueeze(2)
        if self.norm_logits:
            weight, shift = fold(last, norms[-1])
            layers.append((weight * LOGIT_SCALE, shift * LOGIT_SCALE + bias))
        else:
            layers.append((last, bias))
        return Folded.of(layers)

    def _weights(self, theta: Mapping[str, Tensor]) -> list[Tensor]:
        return [theta[name] for name in self.shapes if name.startswith("weight")]
