"""Parameters as segments of a lane's flat row; the projection of SGDP and AdamP on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.linalg import vector_norm

DELTA = 0.1  # δ


@dataclass(frozen=True, slots=True)
class Segment:
    """One parameter tensor of a lane: columns `start` to `stop` of the arena."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]  # of one lane

    @property
    def columns(self) -> slice:
        """Return the segment's columns, an index of the arena."""
        return slice(self.start, self.stop)

    @property
    def is_matrix(self) -> bool:
        """True for more than one dimension, which excludes biases and parameters of normalisation."""
        return len(self.shape) > 1


def runs(parts: Sequence[slice], count: int, alone: Sequence[slice] = ()) -> tuple[list[int], list[bool]]:
    """Split `count` columns into runs inside and outside the parts; return their ends and which are inside.

    Each slice of `alone` becomes a run of its own.
    """
    ends = sorted({0, count, *(end for part in (*parts, *alone) for end in (part.start, part.stop))})
    return ends, [any(part.start <= start < part.stop for part in parts) for start in ends[:-1]]


def columns(segments: Iterable[Segment]) -> tuple[slice, ...]:
    """Return the columns of segments in the arena's order, neighbours merged into one slice."""
    found: list[slice] = []
    for segment in segments:
        if found and found[-1].stop == segment.start:
            found[-1] = slice(found[-1].start, segment.stop)
        else:
            found.append(segment.columns)
    return tuple(found)


@dataclass(slots=True)
class Projection:
    """Π of Heo et al. 2021, "AdamP", as in the authors' package.

    A weight counts as scale-invariant if its gradient is orthogonal to it: |cos(g, θ)| < δ/√(row length) in
    every row, first with a row per output channel, then with the whole tensor as one row. Then every row of
    the step loses its component along θ/(‖θ‖ + ε), and decay has WD_RATIO of its rate. Each lane decides for
    itself.
    """

    tensors: tuple[Segment, ...]  # the matrices
    found: Tensor  # (L,) projections since the last `take_rate`
    eps: float
    seen: Tensor = field(init=False)  # () checks since then; on the device, so that replayed steps count

    def __post_init__(self) -> None:
        self.seen = self.found.new_zeros(())

    def apply(self, theta: Tensor, g: Tensor, p: Tensor) -> list[Tensor]:
        """Remove the radial part from the step p (L, P) in place; return (L, 1) bool per tensor."""
        self.seen += len(self.tensors)
        return [
            self._project(*(rows_of(x, segment) for x in (theta, g, p)))  # each (L, channels, row length)
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
        # Select, never multiply by 0: the quotient may be NaN if nothing is projected.
        p.addcmul_(theta, torch.where(found, radial / (norm + self.eps) ** 2, 0), value=-1)
        found = found.flatten(1)
        self.found += found.squeeze(1)
        return found

    def _across(self, inner: Tensor, norm: Tensor, norm_g: Tensor, length: int) -> Tensor:  # (L, 1, 1)
        """Compare every row's |cos| with the limit; each argument is (L, rows, 1)."""
        cos = inner / (norm.clamp_min(self.eps) * norm_g.clamp_min(self.eps))
        return cos.abs().amax(1, keepdim=True) < DELTA / math.sqrt(length)

    def take_rate(self) -> Tensor:  # (L,)
        """Return the share of (tensor, step) pairs that were projected since the last call."""
        rate = self.found / self.seen
        self.found.zero_()
        self.seen.zero_()
        return rate


def rows_of(x: Tensor, segment: Segment) -> Tensor:
    """View one tensor of the arena with a row per output channel, (L, channels, row length)."""
    return x[:, segment.columns].view(len(x), segment.shape[0], -1)


def _norm(x: Tensor, dim: int) -> Tensor:
    """Compute the Euclidean norm over one dimension and keep it with length 1."""
    norm: Tensor = vector_norm(x, dim=dim, keepdim=True)
    return norm
