"""What a family hands over: a direction, how far to go, and where a projection acted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lrwd_sweep.optim.now import Now


@dataclass(frozen=True, slots=True)
class Step:
    """θ ← θ − scale · direction, and which tensors of more than one dimension were projected."""

    direction: Tensor  # (L, P)
    scale: Tensor | None = None  # (L, 1); None for 1
    projected: Sequence[Tensor] = ()  # (L, 1) bool by tensor, for a family with a projection


class StepFamily(Protocol):
    """How a gradient becomes a step; moments live inside, shaped like the arena."""

    def step(
        self,
        theta: Tensor,  # (L, P), left as it is
        g: Tensor,  # (L, P), used up
        alpha: Tensor,  # (L, 1)
        now: Now,
    ) -> Step:
        """The step of one update."""
        ...

    def moments(self) -> list[Tensor]:
        """The state, each (L, P)."""
        ...
