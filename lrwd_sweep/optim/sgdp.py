"""SGDP (Heo et al. 2021): SGD whose step has its radial part removed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.projection import Projection
from lrwd_sweep.optim.step import Step


@dataclass(frozen=True, slots=True)
class Sgdp:
    """m ← Π(β₁m + g) ; the step is η_t α m. With Nesterov m ← β₁m + g ; the step is η_t α Π(g + β₁m).

    Without Nesterov the buffer itself is projected and carries that on, as in the authors' package; their
    Algorithm 1 projects a copy.
    """

    beta1: float
    nesterov: bool
    m: Tensor  # (L, P)
    projection: Projection

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """α and η_t act on the whole buffer; t does not matter."""
        self.m.mul_(self.beta1).add_(g)
        p = torch.add(g, self.m, alpha=self.beta1) if self.nesterov else self.m
        projected = self.projection.apply(theta, g, p)
        return Step(p, now.eta * alpha, projected)

    def moments(self) -> list[Tensor]:
        """m."""
        return [self.m]
