"""Families that step by matrix, Muon and ND-Adam; what is no matrix follows Adam with the same α.

Their moments have the shape of the arena, (L, P), and nothing crosses lanes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.linalg import vector_norm

from lrwd_sweep.optim.projection import Segment, columns, rows_of
from lrwd_sweep.optim.update import Now, Step, StepFamily

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton–Schulz polynomial, as in torch.optim.Muon
ITERATIONS = 5
LEAST_NORM = 1e-7  # of a matrix that is divided by its norm
RMS = 0.2  # of a step's entries, like AdamW's: Liu et al. 2025


Restricted = Callable[[slice], StepFamily]  # columns → Adam on them


@dataclass(frozen=True, slots=True)
class Others:
    """Adam on the columns that belong to no matrix."""

    parts: tuple[tuple[slice, StepFamily], ...]

    @classmethod
    def of(cls, adam: Restricted, layout: Sequence[Segment], matrices: Sequence[Segment]) -> Self:
        """Make Adam for the segments that are not among the matrices."""
        found = columns(segment for segment in layout if segment not in matrices)
        return cls(tuple((part, adam(part)) for part in found))

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now, scale: Tensor | float) -> None:
        """Replace their g by `scale` times m̂/(√v̂ + ε)."""
        for part, adam in self.parts:
            step = adam.step(theta[:, part], g[:, part].contiguous(), alpha, now)
            g[:, part] = step.direction * (scale * (now.root2 / now.rest1))


@dataclass(frozen=True, slots=True)
class Muon:
    """m ← β₁m + (1−β₁) g ; the step is η_t α · 0.2 √max(a, b) · NS(β₁m + (1−β₁) g) of an a×b matrix.

    Jordan et al. 2024 with Nesterov's momentum, as torch.optim.Muon(adjust_lr_fn="match_rms_adamw"): the
    factor of Liu et al. 2025, equation 4, lets matrices share α with the parameters that follow Adam. Those
    are, as torch.optim.Muon has it, all that do not have two dimensions, convolutions too. The iterations
    have the type of the parameters; torch's are in bfloat16.
    """

    beta1: float
    m: Tensor
    v: Tensor
    matrices: tuple[Segment, ...]
    others: Others

    @classmethod
    def of(cls, momentum: float, m: Tensor, v: Tensor, layout: Sequence[Segment], adam: Restricted) -> Self:
        """Tell matrices, which use m only, from the others, which follow Adam."""
        matrices = tuple(segment for segment in layout if len(segment.shape) == 2)
        return cls(momentum, m, v, matrices, Others.of(adam, layout, matrices))

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Orthogonalise every matrix's momentum."""
        for segment in self.matrices:
            slope, m = g[:, segment.columns], self.m[:, segment.columns]
            m.lerp_(slope, 1 - self.beta1)
            u = torch.lerp(slope, m, self.beta1).view(-1, *segment.shape)
            slope.copy_(orthogonalised(u).flatten(1).mul_(RMS * math.sqrt(max(segment.shape))))
        self.others.step(theta, g, alpha, now, 1.0)
        return Step(g, now.eta * alpha)

    def moments(self) -> list[Tensor]:
        """Return m and v."""
        return [self.m, self.v]


def orthogonalised(u: Tensor) -> Tensor:  # (L, a, b)
    """Approximate the nearest orthogonal matrix of each: singular values go to about 1, vectors stay.

    x ← ax + (b xxᵀ + c (xxᵀ)²)x five times, from u/‖u‖; with the smaller side first.
    """
    a, b, c = COEFFICIENTS
    tall = u.shape[1] > u.shape[2]
    x = u.mT if tall else u
    x = x / vector_norm(x, dim=(1, 2), keepdim=True).clamp_min(LEAST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: Tensor = x.mT.contiguous() if tall else x
    return found


@dataclass(frozen=True, slots=True)
class NdAdam:
    """g ← g − (g·w)w ; m, v as in Adam with v ← β₂v + (1−β₂)‖g‖² ; w ← w − η_t α m̂/(√v̂ + ε) ; w ← w/‖w‖.

    Zhang et al. 2017, Algorithm 2, for every row w of a weight of several dimensions, that is, for the input
    weights of a unit: its step has a length that is the same for all of its weights, and its norm stays 1.
    """

    beta1: float
    beta2: float
    eps: float
    m: Tensor
    v: Tensor  # of a matrix the first columns, one for each row
    matrices: tuple[Segment, ...]
    others: Others

    @classmethod
    def of(
        cls,
        hyperparameters: tuple[float, float, float],  # β₁, β₂, ε
        m: Tensor,
        v: Tensor,
        theta: Tensor,
        layout: Sequence[Segment],
        adam: Restricted,
    ) -> Self:
        """Set every row of θ (L, P) to the norm 1 in place; what is no matrix follows Adam."""
        matrices = tuple(segment for segment in layout if segment.is_matrix)
        for segment in matrices:
            rows = rows_of(theta, segment)
            rows.div_(vector_norm(rows, dim=2, keepdim=True).clamp_min(LEAST_NORM))
        return cls(*hyperparameters, m, v, matrices, Others.of(adam, layout, matrices))

    def step(self, theta: Tensor, g: Tensor, alpha: Tensor, now: Now) -> Step:
        """Move along the sphere, by the difference of two of its points."""
        scale = alpha * (now.eta * now.root2 / now.rest1)
        for segment in self.matrices:
            w, slope, m = (rows_of(x, segment) for x in (theta, g, self.m))  # (L, rows, n)
            v = self.v[:, segment.start : segment.start + w.shape[1]].unsqueeze(2)
            slope.sub_((slope * w).sum(2, keepdim=True) * w)
            m.lerp_(slope, 1 - self.beta1)
            v.mul_(self.beta2).add_((slope * slope).sum(2, keepdim=True), alpha=1 - self.beta2)
            moved = w - scale.unsqueeze(2) * m / (v.sqrt() + self.eps * now.root2)
            moved = moved / vector_norm(moved, dim=2, keepdim=True).clamp_min(LEAST_NORM)
            stays = (alpha == 0).unsqueeze(2)  # frozen: rounding would move it
            slope.copy_(torch.where(stays, 0, w - moved))
        self.others.step(theta, g, alpha, now, now.eta * alpha)
        return Step(g)

    def moments(self) -> list[Tensor]:
        """Return m and v."""
        return [self.m, self.v]
