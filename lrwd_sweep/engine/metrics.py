"""Metrics of a pack: loss and errors on every split, and diagnostics of the last update of every epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.device import is_out_of_memory
from lrwd_sweep.nets import Loss
from lrwd_sweep.optim import Update
from lrwd_sweep.science.optimizer import Family

MEASURES = ("loss", "error", "top5_error")


def summed(losses: Tensor, logits: Tensor, y: Tensor) -> Tensor:  # (L,), (L, C, B), (B,) → (MEASURES, L)
    """Sum the measures over a batch; `losses` are sums already."""
    chosen = logits.gather(1, y.expand(logits.shape[0], 1, -1))
    rank = (logits > chosen).sum(dim=1, dtype=torch.int32)
    errors = torch.stack([rank >= 1, rank >= 5]).sum(dim=2, dtype=logits.dtype)
    return torch.cat([losses.unsqueeze(0), errors])


def means(total: Tensor, size: int) -> Tensor:  # (MEASURES, L)
    """Turn sums into means; all NaN if the loss is not finite, since then no prediction is right either."""
    found = total / size
    return torch.where(found[0].isfinite(), found, math.nan)


def named(split: str, values: Tensor) -> dict[str, list[float]]:  # (MEASURES, L)
    """Return every lane's value by metric name; wait for the device."""
    return {f"{split}_{name}": row for name, row in zip(MEASURES, values.tolist(), strict=True)}


def losses_of(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:  # (L, C, B), (B,) → (L,)
    """Compute every lane's loss, summed over the batch."""
    if loss is functional.cross_entropy:
        return functional.cross_entropy(logits, y.expand(len(logits), -1), reduction="none").sum(dim=1)
    with torch.inference_mode(mode=False), torch.no_grad():  # it may keep a tensor for training
        return torch.stack([_loss_of(loss, lane.t(), y) for lane in logits]) * len(y)


def _loss_of(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:  # (B, C), (B,) → ()
    """Compute the mean loss of copies, which it may change; NaN if it raises on non-finite logits."""
    try:
        return loss(logits.clone(memory_format=torch.contiguous_format), y.clone())
    except Exception as error:
        if error.__cause__ is not None and is_out_of_memory(error.__cause__):
            raise error.__cause__ from None  # the caller makes smaller packs then
        if logits.isfinite().all():
            raise
        return logits.new_tensor(math.nan)


class JoinedLogits:
    """The logits of a split, joined batch by batch; memory is allocated once, with the first batch."""

    def __init__(self, count: int) -> None:
        self.count, self.filled = count, 0
        self._logits: Tensor | None = None

    def add(self, logits: Tensor) -> None:  # (L, C, B)
        """Append the next batch."""
        if self._logits is None:
            self._logits = logits.new_empty(*logits.shape[:2], self.count)
        end = self.filled + logits.shape[2]
        self._logits[:, :, self.filled : end] = logits
        self.filled = end

    @property
    def logits(self) -> Tensor:  # (L, C, count)
        """The logits of every item, in the split's order."""
        assert self._logits is not None
        assert self.filled == self.count
        return self._logits


class Diagnostics:
    """One pack's `norm`, `rotation` and `effective_lr`, and `projection` if the update projects.

    They describe what one update per epoch did to the scale-invariant tensors, f(cθ) = f(θ): a step turns
    such a tensor w on its sphere, by η α/‖w‖² times a gradient of unit length for SGD, by about η α/‖w‖ for
    the adaptive families (Heo et al. 2021, section 2). The first three are missing for a network without
    such tensors. NaN for a lane that has diverged, and for values that are not finite.
    """

    def __init__(
        self, arena: Arena, scale_invariant: Sequence[str], update: Update, family: Family | None
    ) -> None:
        self.arena, self.update = arena, update
        self.parts = [part.columns for part in arena.layout if part.name in scale_invariant]
        self.power = 2 if family in (Family.SGD, Family.SGDP) else 1  # of ‖w‖ in the effective learning rate
        self.curves: dict[str, list[list[float]]] = {}  # name → epoch → lane

    def before(self) -> Tensor | None:
        """Copy θ (L, P) before the measured update; None if no tensor is scale-invariant."""
        return self.arena.theta.clone() if self.parts else None

    def after(
        self,
        theta: Tensor | None,  # (L, P) from `before`; overwritten
        eta: float,
        alive: Tensor,  # (L,) lanes that have not diverged
    ) -> None:
        """Record the effect of the update."""
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
    """Compute the angle in radians opposite side c of triangles with sides a, b, c ≥ 0; NaN if a or b is 0.

    Kahan's formula uses the lengths only: an arc cosine would lose every angle below √ε.
    """
    a, b = torch.maximum(a, b), torch.minimum(a, b)
    c = c.clamp(a - b, a + b)  # rounding may leave the triangle open
    mu = torch.where(b >= c, c - (a - b), b - (a - c)).clamp_min(0)
    return 2 * torch.atan(torch.sqrt(((a - b) + c) * mu / ((a + (b + c)) * ((a - c) + b))))
