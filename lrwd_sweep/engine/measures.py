"""What is measured on every split: the loss, the error and the top-5 error of every lane."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.engine.device import is_out_of_memory
from lrwd_sweep.nets import Loss

MEASURES = ("loss", "error", "top5_error")


def summed(losses: Tensor, logits: Tensor, y: Tensor) -> Tensor:  # (L,), (L, C, B), (B,) → (MEASURES, L)
    """The measures of a batch, summed over it; `losses` are sums already."""
    return torch.cat([losses.unsqueeze(0), _errors(logits, y)])


def means(total: Tensor, size: int) -> Tensor:  # (MEASURES, L)
    """Sums as means; all NaN where the loss is not finite, which makes no prediction right either."""
    found = total / size
    return torch.where(found[0].isfinite(), found, math.nan)


def losses_of(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:  # (L, C, B), (B,) → (L,)
    """Every lane's loss, summed over the batch."""
    if loss is functional.cross_entropy:
        return functional.cross_entropy(logits, y.expand(len(logits), -1), reduction="none").sum(dim=1)
    with torch.inference_mode(mode=False), torch.no_grad():  # it may keep a tensor for training
        return torch.stack([_loss_of(loss, lane.t(), y) for lane in logits]) * len(y)


def _loss_of(loss: Loss, logits: Tensor, y: Tensor) -> Tensor:  # (B, C), (B,) → ()
    """The mean loss of copies, which it may change; NaN if it raises over what is not finite."""
    try:
        return loss(logits.clone(memory_format=torch.contiguous_format), y.clone())
    except Exception as error:
        if error.__cause__ is not None and is_out_of_memory(error.__cause__):
            raise error.__cause__ from None  # for those who make smaller packs then
        if logits.isfinite().all():
            raise
        return logits.new_tensor(math.nan)


class Joined:
    """The logits of a split, joined batch by batch; memory is taken once, with the first batch."""

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


def named(split: str, values: Tensor) -> dict[str, list[float]]:  # (MEASURES, L)
    """By metric name, every lane's value; waits for the device."""
    return {f"{split}_{name}": row for name, row in zip(MEASURES, values.tolist(), strict=True)}


def _errors(logits: Tensor, y: Tensor) -> Tensor:  # (L, C, B), (B,) → (2, L)
    """How many have a class that is not the likeliest, and not among the five likeliest."""
    chosen = logits.gather(1, y.expand(logits.shape[0], 1, -1))
    rank = (logits > chosen).sum(dim=1, dtype=torch.int32)
    return torch.stack([rank >= 1, rank >= 5]).sum(dim=2, dtype=logits.dtype)
