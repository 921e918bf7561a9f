"""SGD with momentum in two forms, which agree while η_t is constant."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.step import Step


@dataclass(frozen=True, slots=True)
class Sgd:
    """m ← β₁m + η_t α g ; the step is m, with Nesterov β₁m + η_t α g.

    Algorithm 1 of Loshchilov & Hutter: α and η_t act inside the buffer.
    """

    beta1: float
    nesterov: bool
    m: Tensor  # (L, P)

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Line 8 of Algorithm 1; θ and t do not matter."""
        if not self.nesterov:
            return Step(self.m.mul_(self.beta1).addcmul_(g, now.eta * alpha))
        g.mul_(now.eta * alpha)
        self.m.mul_(self.beta1).add_(g)
        return Step(g.add_(self.m, alpha=self.beta1))

    def moments(self) -> list[Tensor]:
        """m."""
        return [self.m]


@dataclass(frozen=True, slots=True)
class TorchSgd:
    """m ← β₁m + g ; the step is η_t α m, with Nesterov η_t α (g + β₁m): torch.optim.SGD."""

    beta1: float
    nesterov: bool
    m: Tensor  # (L, P)

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """α and η_t act on the whole buffer; θ and t do not matter."""
        self.m.mul_(self.beta1).add_(g)
        return Step(g.add_(self.m, alpha=self.beta1) if self.nesterov else self.m, now.eta * alpha)

    def moments(self) -> list[Tensor]:
        """m."""
        return [self.m]
