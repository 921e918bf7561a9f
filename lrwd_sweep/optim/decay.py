"""The decay rules, written once for every family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lrwd_sweep.optim.now import Now
from lrwd_sweep.science.decay import WD_RATIO, DecayRule


@dataclass(frozen=True, slots=True)
class Decay:
    """A rule, and the columns of the arena that it acts on."""

    rule: DecayRule
    normalized: bool  # λ is given as λ_norm = λ√n
    whole: tuple[slice, ...]  # columns that no projection watches, neighbours merged
    watched: tuple[slice | None, ...] = ()  # tensors that a projection watches; None: it does not decay
    gain: float = 1.0  # of the lr-scaled rate: 1/(1−β₁) in SGDP

    @property
    def parts(self) -> list[slice]:
        """All columns that decay."""
        return [*self.whole, *(columns for columns in self.watched if columns is not None)]

    def rate(self, alpha: Tensor, lam: Tensor, now: Now) -> Tensor:  # each (L, 1)
        """What share of θ one step takes away; of the coupled rule, what share the gradient gets."""
        if self.normalized:
            lam = lam / now.root_n
        match self.rule:
            case DecayRule.INDEPENDENT:
                return now.eta * lam
            case DecayRule.LR_SCALED:
                return now.eta * self.gain * alpha * lam
            case DecayRule.CORRECTED:
                return now.eta**2 * alpha * lam
            case _:  # coupled, fixed
                return lam

    def add_to(self, g: Tensor, theta: Tensor, rate: Tensor) -> None:
        """g ← g + λ′θ: the coupled rule."""
        for columns in self.parts:
            _part(g, columns).addcmul_(_part(theta, columns), rate)

    def shrink(self, theta: Tensor, rate: Tensor, projected: Sequence[Tensor]) -> None:
        """θ ← θ·(1 − rate), with WD_RATIO of it for the watched tensors that were projected, (L, 1) each."""
        for columns in self.whole:
            _part(theta, columns).mul_(1 - rate)
        for tensor, found in zip(self.watched, projected, strict=True):
            if tensor is not None:
                _part(theta, tensor).mul_(1 - torch.where(found, WD_RATIO * rate, rate))


def _part(x: Tensor, columns: slice) -> Tensor:
    """These columns; a slice of everything would cost as much as a small operation."""
    return x if columns.stop - columns.start == x.shape[1] else x[:, columns]
