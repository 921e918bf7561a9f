"""SGDP's and AdamP's update in three of Triton's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrwd_sweep.optim.adamp import Adamp
from lrwd_sweep.optim.decay import Decay
from lrwd_sweep.optim.fused import Launch
from lrwd_sweep.optim.layout import Segment, runs
from lrwd_sweep.optim.projection import DELTA, Projection
from lrwd_sweep.optim.sgdp import Sgdp
from lrwd_sweep.optim.tabled import TabledUpdate
from lrwd_sweep.optim.update import Update
from lrwd_sweep.science.decay import WD_RATIO

BLOCK = 256  # numbers that a program has at a time: 8 for each thread of its one warp; not tuned on a GPU yet


@dataclass(frozen=True, slots=True)
class FusedProjection:
    """What a `TabledUpdate` of a projected family does; of a lane that has died nothing changes.

    For a contiguous arena of float32. Raises ImportError where there is no Triton, and whatever Triton
    raises where it cannot run.
    """

    update: Update
    projection: Projection  # in which it counts
    table: Tensor  # (steps, 4), of `now.table`
    rows: Tensor  # (R, 3) int64: first column, the one behind the last, and whether they decay
    tensors: Tensor  # (T, 3) int64: first row, rows and numbers in a row of those that are watched
    sums: Tensor  # (L, R, 4): θ·g, θ·θ, g·g and θ·p
    verdicts: Tensor  # (L, R, 2): what share of θ is taken from p, and whether any is
    block: int = BLOCK

    @classmethod
    def of(cls, tabled: TabledUpdate, columns: int, block: int = BLOCK) -> FusedProjection:
        """In the place of a `TabledUpdate`, for an arena of so many columns."""
        update, like = tabled.update, tabled.table
        assert update.projection is not None, "the others have a kernel each"
        rows, tensors = _rows(update.projection.tensors, update.decay, columns, block)
        of_a_row = like.new_zeros(len(update.alpha), len(rows))
        return cls(
            update,
            update.projection,
            like,
            torch.tensor(rows, device=like.device),
            torch.tensor(tensors, device=like.device),
            of_a_row.unsqueeze(2).repeat(1, 1, 4),
            of_a_row.unsqueeze(2).repeat(1, 1, 2),
            block,
        )

    def apply(self, theta: Tensor, g: Tensor, t: Tensor, died_at: Tensor) -> None:
        """Update θ (L, P) in place at step t; g is used up."""
        self.projection.seen += len(self.tensors)
        for launch in self.launches(theta, g, t, died_at):
            launch.run()

    def launches(self, theta: Tensor, g: Tensor, t: Tensor, died_at: Tensor) -> list[Launch]:
        """Moments, step and sums; whether tensors are projected; the move."""
        from lrwd_sweep.optim import projected_kernels as kernels  # noqa: PLC0415  # not every machine has Triton

        update, decay, projection = self.update, self.update.decay, self.projection
        (lanes, columns), rows, tensors = theta.shape, len(self.rows), len(self.tensors)
        kernel, arguments, nesterov, p = _family(update.family, g)
        size = {"BLOCK": self.block, "num_warps": 1}
        rule = {"RULE": decay.rule.value, "NORMALIZED": decay.normalized}
        rule |= {"CORRECTED": isinstance(update.family, Adamp), "KEEP": p is not g}
        first = [theta, g, died_at, t, self.table, self.rows, self.sums]
        second = [self.tensors, self.sums, self.verdicts, projection.found]
        third = [theta, p, update.alpha, update.lam, died_at, t, self.table, self.rows, self.verdicts]
        numbers = [columns, rows, decay.gain, WD_RATIO]
        return [
            Launch(kernel, lanes * rows, [*first, columns, rows, *arguments], {**size, "NESTEROV": nesterov}),
            Launch(kernels.judge, lanes * tensors, [*second, rows, tensors, DELTA, projection.eps], size),
            Launch(kernels.move, lanes * rows, [*third, *numbers], {**size, **rule}),
        ]


def _family(family: object, g: Tensor) -> tuple[Any, Sequence[Tensor | float], bool, Tensor]:
    """The family's own kernel, its moments and hyperparameters, whether Nesterov's, and where it leaves p."""
    from lrwd_sweep.optim import projected_kernels as kernels  # noqa: PLC0415

    match family:
        case Sgdp(beta1, nesterov, m):
            return kernels.sgdp, [m, float(beta1)], nesterov, g if nesterov else m
        case Adamp(beta1, beta2, eps, nesterov, m, v):
            numbers = 1.0 - beta1, float(beta2), 1.0 - beta2, float(eps)
            return kernels.adamp, [m, v, *numbers], nesterov, g
        case _:
            raise TypeError(f"{type(family).__name__} has no projection")


def _rows(
    watched: Sequence[Segment], decay: Decay, columns: int, most: int
) -> tuple[list[tuple[int, int, bool]], list[tuple[int, int, int]]]:
    """All columns in rows, of at most so many where nothing watches; the rows that tensors have."""
    by_start = {segment.start: segment for segment in watched}
    ends, decays = runs(decay.parts, columns, [segment.columns for segment in watched])
    rows: list[tuple[int, int, bool]] = []
    tensors = []
    for begin, end, does in zip(ends, ends[1:], decays, strict=False):
        segment = by_start.get(begin)
        length = most if segment is None else (end - begin) // segment.shape[0]
        if segment is not None:
            tensors.append((len(rows), segment.shape[0], length))
        rows += [(first, min(first + length, end), does) for first in range(begin, end, length)]
    return rows, tensors
