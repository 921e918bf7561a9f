"""SGD with momentum, as in Algorithm 1 of Loshchilov & Hutter: α and η_t act inside the buffer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sgd:
    """m ← β₁ m + η_t α g ; the step is m."""

    beta1: float
    m: Tensor  # (L, P)

    def step(self, g: Tensor, alpha: Tensor, eta: float, t: int) -> tuple[Tensor, None]:
        """Line 8 of Algorithm 1; t does not matter."""
        return self.m.mul_(self.beta1).addcmul_(g, eta * alpha), None

    def moments(self) -> list[Tensor]:
        """m."""
        return [self.m]
