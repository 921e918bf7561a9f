"""One update of every lane: coupled decay, the family's step, decoupled decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lrwd_sweep.optim.decay import Decay
from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.one_pass import OnePass
from lrwd_sweep.optim.projection import Projection
from lrwd_sweep.optim.step import StepFamily
from lrwd_sweep.science.decay import DecayRule

if TYPE_CHECKING:
    from lrwd_sweep.optim.projected_pass import ProjectedPass


@dataclass(frozen=True, slots=True)
class Update:
    """θ ← θ·(decoupled factor) − step(g + [λ′θ]); one α and one λ per lane."""

    family: StepFamily
    decay: Decay
    alpha: Tensor  # (L, 1) base learning rate
    lam: Tensor  # (L, 1) decay: λ′, λ, w, d or c by the rule; λ_norm where it is normalised
    betas: tuple[float, float]  # β₁ and β₂ of the bias corrections, for families that have them
    projection: Projection | None = None  # that of the family, if it has one
    one_pass: OnePass | ProjectedPass | None = None  # by which the host moves faster

    def apply(self, theta: Tensor, g: Tensor, eta: float, t: int, n: int) -> None:
        """Update θ (L, P) in place at step t = 1, 2, …; g (L, P) is used up.

        n is the N of normalised decay: the steps of the run, or of the current cycle under restarts.
        """
        now = Now.at(eta, t, n, self.betas)
        if self.one_pass is None:
            self.move(theta, g, now)
        else:
            self.one_pass.move(theta, g, self.alpha, self.decay.rate(self.alpha, self.lam, now), now)

    def move(self, theta: Tensor, g: Tensor, now: Now) -> None:
        """The same, with the numbers of the step worked out."""
        rate = self.decay.rate(self.alpha, self.lam, now)
        coupled = self.decay.rule is DecayRule.COUPLED
        if coupled:
            self.decay.add_to(g, theta, rate)
        step = self.family.step(theta, g, self.alpha, now)
        if not coupled:
            self.decay.shrink(theta, rate, step.projected)
        if step.scale is None:
            theta.sub_(step.direction)
        else:
            theta.addcmul_(step.direction, step.scale, value=-1)

    def freeze(self, g: Tensor, alive: Tensor) -> None:  # (L, P), (L,)
        """Make the next update leave all but these lanes where they are, and the later ones too.

        Selected, never multiplied: 0·NaN is NaN.
        """
        row = alive.unsqueeze(1)
        for state in (g, self.alpha, self.lam, *self.family.moments()):
            torch.where(row, state, torch.zeros_like(row, dtype=state.dtype), out=state)

    def projection_rate(self) -> Tensor | None:  # (L,)
        """How often the projection acted since this was last asked; None for a family without one.

        The share of (tensor, step) pairs, over the tensors of more than one dimension.
        """
        return None if self.projection is None else self.projection.take_rate()
