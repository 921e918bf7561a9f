"""The loss by name, and the cross-entropy with its gradient, for networks that write out their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep import own_code
from lrwd_sweep.catalog import CROSS_ENTROPY
from lrwd_sweep.errors import UsageError

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (B, C) and classes (B,) → their mean loss, one number


def find_loss(name: str) -> Loss:
    """The loss of that name in the catalog, or somebody's own. Raises UsageError or UnknownName."""
    if name == CROSS_ENTROPY:
        return functional.cross_entropy
    code = own_code.find("--loss", name)
    if isinstance(code.thing, type):
        raise UsageError(f"--loss {name} is a class; name an instance, or a function of logits and labels")
    if isinstance(code.thing, nn.Module) and any(one.requires_grad for one in code.thing.parameters()):
        raise UsageError(f"--loss {name} has parameters, which would not train; let the network have them")
    return code


def label(loss: Loss) -> str:
    """What a complaint about it begins with; nothing where it is nobody's own."""
    return f"{loss.option} {loss.name}: " if isinstance(loss, own_code.OwnCode) else ""


def cross_entropy(logits: Tensor, y: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """Every lane's mean over the batch, (L,), and its gradient by the logits: (softmax − one-hot)/B.

    Of logits (L, C, B) and classes y (B,); `one_hot` is the identity (C, C) in their type.
    """
    log_p = torch.log_softmax(logits, dim=1)
    losses = -log_p.gather(1, y.expand(len(log_p), 1, -1)).mean(dim=(1, 2))
    return losses, log_p.exp_().sub_(one_hot.index_select(1, y)).div_(len(y))
