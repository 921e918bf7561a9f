"""One update of every lane: coupled decay, the family's step, decoupled decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lrwd_sweep.decay import DecayRule


class StepFamily(Protocol):
    """How a gradient becomes a step; moments live inside, shaped like the arena."""

    def step(self, g: Tensor, alpha: Tensor, eta: float, t: int) -> tuple[Tensor, Tensor | None]:
        """Direction d (L, P) and scale c (L, 1; None for 1) of update t = 1, 2, …: θ ← θ − c d. Uses up g."""
        ...

    def moments(self) -> list[Tensor]:
        """The state, each (L, P)."""
        ...


@dataclass(frozen=True, slots=True)
class Update:
    """θ ← θ·(decoupled factor) − step(g + [λ′θ]); one α and one λ per lane."""

    family: StepFamily
    rule: DecayRule
    alpha: Tensor  # (L, 1) base learning rate
    lam: Tensor  # (L, 1) decay: λ′, λ or w by the rule

    def apply(self, theta: Tensor, g: Tensor, eta: float, t: int, n: int) -> None:
        """Update θ (L, P) in place at step t = 1, 2, …; g (L, P) is used up."""
        if self.rule is DecayRule.COUPLED:
            g.addcmul_(theta, self.lam)
        direction, scale = self.family.step(g, self.alpha, eta, t)
        match self.rule:
            case DecayRule.INDEPENDENT:
                theta.mul_(1 - eta * self.lam)
            case DecayRule.LR_SCALED:
                theta.mul_(1 - eta * self.alpha * self.lam)
        if scale is None:
            theta.sub_(direction)
        else:
            theta.addcmul_(direction, scale, value=-1)
