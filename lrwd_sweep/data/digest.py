"""A digest of splits: the same wherever the same numbers are read."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lrwd_sweep.data.splits import Splits

_CHUNK = 2**25  # bytes hashed at a time, every core at some of them
_DIGITS = 12  # one in 10¹⁴ is the same by chance


def digest(splits: Splits) -> str:
    """Of the inputs and labels, their shapes and types."""
    whole = hashlib.sha256()
    with ThreadPoolExecutor() as threads:
        for split in (splits.train, splits.validation, splits.test):
            for values in (split.x, split.y):
                whole.update(f"{values.dtype} {tuple(values.shape)};".encode())
                row = max(1, values[:1].numel() * values.element_size())
                for part in threads.map(_hashed, torch.split(values, max(1, _CHUNK // row))):
                    whole.update(part)
    return whole.hexdigest()[:_DIGITS]


def _hashed(values: Tensor) -> bytes:
    # A clone, as `contiguous` leaves the strides of empty tensors and of single rows as they are.
    flat = values.clone(memory_format=torch.contiguous_format).view(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).digest()
