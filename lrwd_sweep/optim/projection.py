"""The projection of SGDP and AdamP: a step without its radial part, where scale makes no difference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.linalg import vector_norm

from lrwd_sweep.optim.layout import Segment

DELTA = 0.1


@dataclass(slots=True)
class Projection:
    """Π of Heo et al. 2021, "AdamP", as in the authors' package.

    A weight counts as scale-invariant where its gradient stands across it: |cos(g, θ)| < δ/√(row length)
    in every row, first of a row per output channel, then of the whole tensor as one row. There every row
    of the step loses its component along θ/(‖θ‖ + ε), and decay has WD_RATIO of its rate. Each lane
    decides for itself.
    """

    tensors: tuple[Segment, ...]  # those of more than one dimension
    found: Tensor  # (L,) how many were projected since `take_rate`
    eps: float
    seen: Tensor = field(init=False)  # () how many were looked at since then; replayed steps count too

    def __post_init__(self) -> None:
        self.seen = self.found.new_zeros(())

    def apply(self, theta: Tensor, g: Tensor, p: Tensor) -> list[Tensor]:
        """Take the radial part from the step p (L, P) in place; whether it was, (L, 1) by tensor."""
        self.seen += len(self.tensors)
        return [
            self._project(*(_rows(x, segment) for x in (theta, g, p)))  # each (L, channels, row length)
            for segment in self.tensors
        ]

    def _project(self, theta: Tensor, g: Tensor, p: Tensor) -> Tensor:
        _, channels, length = theta.shape
        inner, norm, norm_g = (theta * g).sum(2, keepdim=True), _norm(theta, 2), _norm(g, 2)
        by_row = self._across(inner, norm, norm_g, length)
        inner, whole, whole_g = inner.sum(1, keepdim=True), _norm(norm, 1), _norm(norm_g, 1)
        found = by_row | self._across(inner, whole, whole_g, channels * length)
        radial = (theta * p).sum(2, keepdim=True)
        radial = torch.where(by_row, radial, radial.sum(1, keepdim=True))
        norm = torch.where(by_row, norm, whole)
        # Selected, not multiplied by 0: where nothing is projected the quotient may be NaN.
        p.addcmul_(theta, torch.where(found, radial / (norm + self.eps) ** 2, 0), value=-1)
        found = found.flatten(1)
        self.found += found.squeeze(1)
        return found

    def _across(self, inner: Tensor, norm: Tensor, norm_g: Tensor, length: int) -> Tensor:  # (L, 1, 1)
        """Whether every row's |cos| is small enough; each argument (L, rows, 1)."""
        cos = inner / (norm.clamp_min(self.eps) * norm_g.clamp_min(self.eps))
        return cos.abs().amax(1, keepdim=True) < DELTA / math.sqrt(length)

    def take_rate(self) -> Tensor:  # (L,)
        """The share of (tensor, step) pairs that were projected since this was last asked."""
        rate = self.found / self.seen
        self.found.zero_()
        self.seen.zero_()
        return rate


def _rows(x: Tensor, segment: Segment) -> Tensor:
    """One tensor of the arena with a row per output channel, (L, channels, row length)."""
    return x[:, segment.columns].view(len(x), segment.shape[0], -1)


def _norm(x: Tensor, dim: int) -> Tensor:
    """Euclidean, over one dimension that stays with length 1."""
    norm: Tensor = vector_norm(x, dim=dim, keepdim=True)
    return norm
