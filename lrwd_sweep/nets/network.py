"""The interface between a network and the engine: parameters, and many lanes that train side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lrwd_sweep.nets.loss import DEFAULT_LOSS, Loss
from lrwd_sweep.spec.catalog import FLOAT32


@dataclass(frozen=True, slots=True)
class Way:
    """The way in which the lanes of a network train."""

    loss: Loss = DEFAULT_LOSS
    precision: str = FLOAT32  # of matrix products and convolutions
    vmap: bool = False  # one program for all lanes of a module; else a loop over lanes
    train: str = ""  # pattern of the parameters that train; "": all
    classifies: bool = True  # one class per item; else outputs have the batch first
    user_code: bool = False  # an unknown module or loss: it may branch on values or have random buffers


DEFAULT_WAY = Way()


Noise = Sequence[torch.Generator]  # with equal states: one per lane, or one for all


class Predictor(Protocol):
    """L networks in evaluation mode: running statistics, no random layers."""

    def predict(self, x: Any) -> Tensor:
        """Return logits (L, C, B) of the inputs x (B, *shape); of targets other than classes (L, B, …).

        Those of a network in EMBEDDINGS are (L, C + D, B): the embedding stands behind the logits.
        """


class Lanes(Protocol):
    """L networks in training; parameters and gradients are views (L, *shape) of an arena."""

    def gradient(self, x: Any, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return every lane's mean loss (L,) and outputs as `predict` does, and write the gradients.

        The batch x (B, *shape), or a tuple of inputs, and y (B, …) are the same in every lane. Runs in
        inference mode, without autograd recording.
        """

    def predictor(self) -> Predictor:
        """Return the networks as they are now, for evaluation."""

    def average_statistics(self, batch: int | None) -> bool:
        """Make running statistics of batch norm the mean over batches 0, 1, …, of which `batch` comes next.

        None makes them follow training again. Returns False if there are none.
        """

    def state(self) -> dict[str, Tensor]:
        """Return what training changes besides parameters, by name, each (L, …)."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned."""


class Network(Protocol):
    """One architecture for one kind of item: inputs and target."""

    @property
    def way(self) -> Way:
        """The way in which its lanes train."""

    @property
    def stacked(self) -> bool:
        """True if all lanes train in one program; else one after another, with one lane's activations."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trained parameter of one network, in the arena's order."""

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """The parameters whose scale does not change the output: f(cθ) = f(θ)."""

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return initial parameters of one network, float64."""

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> Lanes:
        """Return as many networks as `theta` holds, for training on batches of `batch` items."""
