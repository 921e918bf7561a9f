"""Diagnostics: what the last update of every epoch did to the tensors whose scale makes no difference.

Where f(cθ) = f(θ), a step turns a tensor w on its sphere: by η α/‖w‖² times a gradient of unit length for
SGD, by about η α/‖w‖ for the adaptive families. Heo et al. 2021, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.optim import Update
from lrwd_sweep.science.optimizer import Family


class Diagnostics:
    """One pack's `norm`, `rotation` and `effective_lr`, and `projection` where the update projects.

    Measured at one update per epoch, so that a run costs little more than without. The first three are
    missing for a network without scale-invariant tensors. NaN where a lane has diverged, and where nothing
    finite is left.
    """

    def __init__(
        self, arena: Arena, scale_invariant: Sequence[str], update: Update, family: Family | None
    ) -> None:
        self.arena, self.update = arena, update
        self.parts = [slice(part.start, part.stop) for part in arena.layout if part.name in scale_invariant]
        self.power = 2 if family in (Family.SGD, Family.SGDP) else 1  # of ‖w‖ in the effective learning rate
        self.curves: dict[str, list[list[float]]] = {}  # name → epoch → lane

    def before(self) -> Tensor | None:
        """θ (L, P) ahead of the update that is measured; None where no tensor is scale-invariant."""
        return self.arena.theta.clone() if self.parts else None

    def after(
        self,
        theta: Tensor | None,  # (L, P) what `before` gave; used up
        eta: float,
        alive: Tensor,  # (L,) lanes that have not diverged
    ) -> None:
        """Note what the update did."""
        found = {} if theta is None else self._turned(theta, eta)
        if (rate := self.update.projection_rate()) is not None:
            found["projection"] = rate
        for name, values in found.items():
            kept = torch.where(alive & torch.isfinite(values), values, torch.nan)
            self.curves.setdefault(name, []).append(kept.tolist())

    def _turned(self, theta: Tensor, eta: float) -> dict[str, Tensor]:  # (L,) each, float64
        start = self._norms(theta)
        moved = self._norms(theta.sub_(self.arena.theta))
        end = self._norms(self.arena.theta)
        alpha = self.update.alpha[:, 0].to(torch.float64)
        return {
            "norm": end.square().sum(dim=1).sqrt(),
            "rotation": angle(start, end, moved).mean(dim=1),
            "effective_lr": (eta * alpha.unsqueeze(1) / start**self.power).mean(dim=1),
        }

    def _norms(self, theta: Tensor) -> Tensor:  # (L, P) → (L, tensors) float64; a lane sums along its row
        norms = [torch.linalg.vector_norm(theta[:, part], dim=1) for part in self.parts]
        return torch.stack(norms, dim=1).to(torch.float64)


def angle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The angle, in radians, opposite the side c of triangles with sides a, b, c ≥ 0; NaN without a or b.

    From the lengths alone, by Kahan's formula: an arc cosine would lose every angle below √ε.
    """
    a, b = torch.maximum(a, b), torch.minimum(a, b)
    c = c.clamp(a - b, a + b)  # rounding may leave the triangle open
    mu = torch.where(b >= c, c - (a - b), b - (a - c)).clamp_min(0)
    return 2 * torch.atan(torch.sqrt(((a - b) + c) * mu / ((a + (b + c)) * ((a - c) + b))))
