"""AMSGrad (Reddi et al. 2018) in the form of torch.optim: Adam whose second moment never falls."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.step import Step


@dataclass(frozen=True, slots=True)
class Amsgrad:
    """m, v as in Adam ; u ← max(u, v) ; the step is η_t α m̂/(√û + ε), û = u/(1−β₂ᵗ).

    The maximum is taken of v as it is and corrected afterwards, as torch.optim.Adam(amsgrad=True) does.
    Algorithm 2 of the paper has no corrections: its step is η_t α m/√u.
    """

    beta1: float
    beta2: float
    eps: float
    m: Tensor  # (L, P)
    v: Tensor  # (L, P)
    u: Tensor  # (L, P) the largest v so far

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Adam's step with u for v; as there the corrections cost no pass over the arena."""
        self.m.lerp_(g, 1 - self.beta1)
        self.v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        torch.maximum(self.u, self.v, out=self.u)
        denominator = torch.sqrt(self.u, out=g).add_(self.eps * now.root2)
        scale = alpha * (now.eta * now.root2 / now.rest1)
        return Step(torch.div(self.m, denominator, out=g), scale)

    def moments(self) -> list[Tensor]:
        """m, v and u."""
        return [self.m, self.v, self.u]
