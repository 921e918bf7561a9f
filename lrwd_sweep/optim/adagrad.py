"""AdaGrad (Duchi et al. 2011), with ε beside the root as in torch.optim."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.step import Step


@dataclass(frozen=True, slots=True)
class Adagrad:
    """v ← v + g² ; the step is η_t α g/(√v + ε)."""

    eps: float
    v: Tensor  # (L, P)

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """θ and t do not matter."""
        self.v.addcmul_(g, g)
        return Step(g.div_(torch.sqrt(self.v).add_(self.eps)), now.eta * alpha)

    def moments(self) -> list[Tensor]:
        """v."""
        return [self.v]
