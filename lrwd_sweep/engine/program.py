"""The steps of an epoch as a program: the same work on the same memory each time, counted on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

RECORDED = 8  # steps at a time, at most: recording takes long and memory. Not tuned on a GPU yet

Step = Callable[[Tensor, Tensor], Tensor]  # batch (B,), t (1,) → what to sum (MEASURES, L)
Advance = Callable[[int], None]  # takes so many steps


class Program:
    """Nothing of a step is decided on the host, so that whoever has recorded it can replay it.

    Steps are taken as they are written here, or by `replay`, from recordings of `size` steps and of one.
    """

    def __init__(
        self,
        step: Step,
        theta: Tensor,  # (L, P) what the steps change
        total: Tensor,  # what they add to
        streams: Sequence[torch.Generator],  # what they draw from
        *,
        steps: int,  # of an epoch
        batch_size: int,
    ) -> None:
        self.step, self.theta, self.total, self.streams = step, theta, total, tuple(streams)
        self.order = torch.zeros(steps, batch_size, dtype=torch.int64, device=theta.device)
        self.k = torch.zeros(1, dtype=torch.int64, device=theta.device)  # steps of the epoch
        self.t = torch.zeros_like(self.k)  # of the run
        self.size = min(RECORDED, steps - 2)  # one more, and the last of an epoch, are taken alone
        self.done = 0  # k, as the host counts
        self.replay: Advance | None = None

    def begin(self, shuffled: Tensor) -> None:  # (n,)
        """An epoch in this order."""
        self.order.copy_(shuffled[: self.order.numel()].view_as(self.order))
        self.k.zero_()
        self.total.zero_()
        self.done = 0

    def go(self, end: int) -> None:
        """Some steps more of the epoch, not beyond the first `end`."""
        count = self.size if 0 < self.size <= end - self.done else 1
        (self.replay or self.steps)(count)
        self.done += count

    @torch.inference_mode()
    def steps(self, count: int) -> None:
        """So many steps."""
        for _ in range(count):
            batch = self.order.index_select(0, self.k).squeeze(0)
            self.total.add_(self.step(batch, self.t))
            self.k.add_(1)
            self.t.add_(1)
