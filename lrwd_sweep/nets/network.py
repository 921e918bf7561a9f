"""What the engine asks of a network: its parameters, and many of it in training side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Predictor(Protocol):
    """L networks by their running statistics."""

    def predict(self, x: Tensor) -> Tensor:
        """Logits (L, C, B) on the inputs x (B, *shape)."""
        ...


class Lanes(Protocol):
    """L networks in training, on parameters and gradients that are views (L, *shape) of an arena."""

    def gradient(
        self,
        x: Tensor,  # (B, *shape), the same batch in every lane
        y: Tensor,  # (B,) int64
        noise: Sequence[torch.Generator],  # alike: each for one of the lanes, or one for all
    ) -> tuple[Tensor, Tensor]:  # (L,), (L, C, B)
        """Every lane's mean cross-entropy on the batch, and its logits; the gradients are written.

        Called without autograd recording, in inference mode.
        """
        ...

    def predictor(self) -> Predictor:
        """The networks as they are now, for evaluation."""
        ...


class Network(Protocol):
    """One architecture, for inputs of one shape and a number of classes."""

    @property
    def stacked(self) -> bool:
        """Whether lanes train in one program; else one after another, with one's activations at a time."""
        ...

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of one network, in the arena's order."""
        ...

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """The parameters whose scale makes no difference to the output: f(cθ) = f(θ)."""
        ...

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters of one network, float64."""
        ...

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> Lanes:
        """As many networks as `theta` holds, which train on batches of `batch`."""
        ...
