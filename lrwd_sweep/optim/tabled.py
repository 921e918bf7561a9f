"""Updates that ask the host nothing: step, table and lanes' states all lie on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lrwd_sweep.optim.now import Now
from lrwd_sweep.optim.update import Update


class DeviceUpdate(Protocol):
    """An update that can be recorded once and replayed at every step."""

    def apply(
        self,
        theta: Tensor,  # (L, P)
        g: Tensor,  # (L, P), used up
        t: Tensor,  # (1,) int64: 0, 1, …
        died_at: Tensor,  # (L,) int64: −1 while a lane is alive; others stay where they are
    ) -> None:
        """Update θ in place at step t."""
        ...


@dataclass(frozen=True, slots=True)
class TabledUpdate:
    """An update by torch's operators, which reads its row of a table."""

    update: Update
    table: Tensor  # (steps, 4), of `now.table`

    def apply(self, theta: Tensor, g: Tensor, t: Tensor, died_at: Tensor) -> None:
        """Update θ in place at step t."""
        self.update.freeze(g, died_at < 0)
        self.update.move(theta, g, Now.of_row(self.table, t))
