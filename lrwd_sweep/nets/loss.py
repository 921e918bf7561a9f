"""The loss by name, and the cross-entropy with its gradient, for networks that write out their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep import own_code
from lrwd_sweep.catalog import CROSS_ENTROPY

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, C) and classes (B,) → their mean loss, one number


def find_loss(name: str) -> Loss:
    """The loss of that name in the catalog, or somebody's own. Raises UsageError or UnknownName."""
    return functional.cross_entropy if name == CROSS_ENTROPY else own_code.find("--loss", name)


def cross_entropy(logits: Tensor, y: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """Every lane's mean over the batch, (L,), and its gradient by the logits: (softmax − one-hot)/B.

    Of logits (L, C, B) and classes y (B,); `one_hot` is the identity (C, C) in their type.
    """
    log_p = torch.log_softmax(logits, dim=1)
    losses = -log_p.gather(1, y.expand(len(log_p), 1, -1)).mean(dim=(1, 2))
    return losses, log_p.exp_().sub_(one_hot.index_select(1, y)).div_(len(y))
