"""The loss by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from lrwd_sweep import own_code
from lrwd_sweep.catalog import CROSS_ENTROPY

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, C) and classes (B,) → their mean loss, one number


def find_loss(name: str) -> Loss:
    """The loss of that name in the catalog, or somebody's own. Raises UsageError or UnknownName."""
    return functional.cross_entropy if name == CROSS_ENTROPY else own_code.find("--loss", name)
