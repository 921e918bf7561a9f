"""Sharpness-aware minimisation: the ascent of every lane before the gradient that trains it.

SAM (Foret et al. 2021, arXiv 2010.01412), equation 2 with p = 2 and Algorithm 1:

    ε̂ = ρ ∇L(w)/‖∇L(w)‖ ;  g = ∇L(w + ε̂)

ASAM (Kwon et al. 2021, arXiv 2102.11600), with T_w = |w| + η element by element, of every parameter:

    ε̂ = ρ T_w² ∇L(w)/‖T_w ∇L(w)‖

Both gradients are of the same batch, augmented alike, with the same draws of dropout. g is then clipped and
enters any update; decay acts on w. ‖·‖ is over one lane's parameters. In the second pass running statistics
do not move. ASAM's authors leave T = 1 for biases in their code; here all parameters are scaled, as written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.nets.network import Lanes
from lrwd_sweep.spec.catalog import ETA
from lrwd_sweep.spec.task_fields import TaskFields


class Sam:
    """The ascent of every lane of a pack, with room for θ meanwhile."""

    def __init__(self, task: TaskFields, arena: Arena, lanes: Lanes) -> None:
        self.rho, self.adaptive = task.sam, task.sam_adaptive
        self.arena, self.lanes = arena, lanes
        self.theta = torch.empty_like(arena.theta)

    @contextmanager
    def ascended(self) -> Iterator[None]:
        """Move θ by ε̂, from the gradient in the arena; afterwards θ and running statistics are as before."""
        state = {name: value.clone() for name, value in self.lanes.state().items()}
        self.theta.copy_(self.arena.theta)
        ascend(self.arena.theta, self.arena.grad, self.rho, adaptive=self.adaptive)
        try:
            yield
        finally:
            self.arena.theta.copy_(self.theta)
            self.lanes.restore(state)


def ascend(theta: Tensor, g: Tensor, rho: float, *, adaptive: bool) -> None:  # (L, P) each
    """Compute w ← w + ε̂ lane by lane; a lane without a finite gradient stays, and diverges as it would.

    Lane by lane, so that the order of a sum does not depend on the pack.
    """
    for w, slope in zip(theta, g, strict=True):
        direction, scale = slope, torch.linalg.vector_norm(slope)
        if adaptive:
            t = w.abs().add_(ETA)
            scaled = t * slope
            direction, scale = t.mul_(scaled), torch.linalg.vector_norm(scaled)
        # divided first: ρ/‖g‖ may overflow
        w.add_(torch.where(scale > 0, direction / scale, 0.0), alpha=rho)
