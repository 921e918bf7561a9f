"""Training, validation and test splits, held on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Split:
    """Inputs and labels of one split."""

    x: Tensor  # (n, *shape) float
    y: Tensor  # (n,) int64

    def __len__(self) -> int:
        return self.x.shape[0]

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The split on a device, its inputs as `dtype`."""
        return type(self)(self.x.to(device, dtype), self.y.to(device))


@dataclass(frozen=True, slots=True)
class Splits:
    """The training split teaches, the validation split chooses, the test split does neither."""

    train: Split
    validation: Split
    test: Split

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Every split on a device."""
        return type(self)(*(s.to(device, dtype) for s in (self.train, self.validation, self.test)))
