"""Products and rectified numbers between tensors that may differ in type: what multiplies may be coarser."""

from __future__ import annotations

import torch
from torch import Tensor


def multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """a b of every lane, into a tensor that may be of a finer type."""
    return torch.bmm(a, b, out=out) if out.dtype is a.dtype else out.copy_(torch.bmm(a, b))


def relu(n: Tensor, out: Tensor) -> Tensor:
    """max(n, 0), into a tensor that may be of a coarser type."""
    return torch.clamp_min(n, 0, out=out) if out.dtype is n.dtype else out.copy_(n).clamp_min_(0)
