"""Adam, as in Algorithm 2 of Loshchilov & Hutter, with ε outside the bias correction as in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.step import Step


@dataclass(frozen=True, slots=True)
class Adam:
    """m ← β₁ m + (1−β₁) g ; v ← β₂ v + (1−β₂) g² ; the step is η_t α m̂/(√v̂ + ε)."""

    beta1: float
    beta2: float
    eps: float
    m: Tensor  # (L, P)
    v: Tensor  # (L, P)

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Lines 7 to 12 of Algorithm 2, with m̂ = m/(1−β₁ᵗ) and v̂ = v/(1−β₂ᵗ).

        m̂/(√v̂ + ε) = m/(√v + ε√(1−β₂ᵗ)) · √(1−β₂ᵗ)/(1−β₁ᵗ): the corrections cost no pass over the arena.
        """
        self.m.lerp_(g, 1 - self.beta1)
        self.v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        denominator = torch.sqrt(self.v, out=g).add_(self.eps * now.root2)
        scale = alpha * (now.eta * now.root2 / now.rest1)
        return Step(torch.div(self.m, denominator, out=g), scale)

    def moments(self) -> list[Tensor]:
        """m and v."""
        return [self.m, self.v]
