"""AdamP (Heo et al. 2021): Adam whose step has its radial part removed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.projection import Projection
from lrwd_sweep.optim.step import Step


@dataclass(frozen=True, slots=True)
class Adamp:
    """m, v as in Adam ; the step is η_t α Π(m̂/(√v̂ + ε)).

    With Nesterov β₁m + (1−β₁) g stands for m in the step.
    """

    beta1: float
    beta2: float
    eps: float
    nesterov: bool
    m: Tensor  # (L, P)
    v: Tensor  # (L, P)
    projection: Projection

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Adam's step, projected; Π is linear, so that the corrections cost no pass here either."""
        self.m.lerp_(g, 1 - self.beta1)
        self.v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        p = torch.sqrt(self.v).add_(self.eps * now.root2)
        torch.div(torch.lerp(self.m, g, 1 - self.beta1) if self.nesterov else self.m, p, out=p)
        projected = self.projection.apply(theta, g, p)
        return Step(p, alpha * (now.eta * now.root2 / now.rest1), projected)

    def moments(self) -> list[Tensor]:
        """m and v."""
        return [self.m, self.v]
