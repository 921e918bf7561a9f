"""Lanes of somebody's own network or loss, which may do to its tensors what it likes."""

from __future__ import annotations

from torch import Tensor

from lrwd_sweep.nets.module_lanes import ModuleLanes


class OwnLanes(ModuleLanes):
    """Lanes that see nothing of one another, whatever they change in place."""

    def trained(self, k: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # (), (B, C)
        """As any lane's, on a batch of its own."""
        return super().trained(k, x.clone(), y)

    def lowered(self, logits: Tensor, y: Tensor) -> Tensor:  # (B, C), (B,) → ()
        """As any lane's, of copies: the logits are measured too."""
        return super().lowered(logits.clone(), y.clone())
