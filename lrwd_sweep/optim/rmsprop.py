"""RMSProp (Tieleman & Hinton 2012), with ε beside the root and α outside the buffer as in torch.optim."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.step import Step


@dataclass(frozen=True, slots=True)
class Rmsprop:
    """v ← β₂v + (1−β₂) g² ; the step is η_t α d, d = g/(√v + ε).

    With momentum it is η_t α m, m ← β₁m + d.
    """

    beta1: float
    beta2: float
    eps: float
    v: Tensor  # (L, P)
    m: Tensor | None  # (L, P); None without momentum

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """v starts at 0 and is not corrected for it; θ and t do not matter."""
        self.v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        denominator = torch.sqrt(self.v).add_(self.eps)
        if self.m is None:
            return Step(g.div_(denominator), now.eta * alpha)
        return Step(self.m.mul_(self.beta1).addcdiv_(g, denominator), now.eta * alpha)

    def moments(self) -> list[Tensor]:
        """v, and m with momentum."""
        return [self.v] if self.m is None else [self.v, self.m]
