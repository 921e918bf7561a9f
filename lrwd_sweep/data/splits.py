"""Training, validation and test splits, held on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

EVAL_BATCH = 256  # items evaluated at a time: for every pack alike, so that no rounding depends on it
_CHUNK = 10_000  # images counted at a time


@dataclass(frozen=True, slots=True)
class Pixels:
    """How bytes become numbers: (byte − mean)/deviation, channel by channel."""

    mean: Tensor  # (C, 1, 1)
    deviation: Tensor  # (C, 1, 1)

    @classmethod
    def of(cls, x: Tensor) -> Self:  # (n, C, H, W) uint8
        """The statistics of images, exact: the bytes of every channel are counted first."""
        counts = torch.zeros(x.shape[1], 256, dtype=torch.int64)
        for chunk in torch.split(x, _CHUNK):
            for channel in range(len(counts)):
                counts[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
        share = counts.double() / counts[0].sum()
        values = torch.arange(256, dtype=torch.float64)
        mean = share @ values
        deviation = (share @ values.square() - mean.square()).clamp_min(0).sqrt()
        deviation = torch.where(deviation > 0, deviation, 1.0)  # a channel that never changes stays 0
        return cls(mean.reshape(-1, 1, 1), deviation.reshape(-1, 1, 1))

    @classmethod
    def as_given(cls, channels: int) -> Self:
        """For images that stay the numbers that they are, 0 to 255."""
        return cls(torch.zeros(channels, 1, 1), torch.ones(channels, 1, 1))

    def numbers(self, x: Tensor) -> Tensor:
        """Bytes (B, C, H, W), normalised, in the statistics' type."""
        return x.to(self.mean.dtype).sub_(self.mean).div_(self.deviation)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same on a device; `dtype` is what it makes of bytes."""
        return type(self)(self.mean.to(device, dtype), self.deviation.to(device, dtype))


@dataclass(frozen=True, slots=True)
class Split:
    """Inputs and labels of one split.

    Images stay bytes, a quarter of their size as float32, and become numbers a batch at a time.
    """

    x: Tensor  # (n, *shape), numbers as they are, or uint8 where there are `pixels`
    y: Tensor  # (n,) int64
    pixels: Pixels | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self.x.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of a batch's inputs."""
        return self.x.dtype if self.pixels is None else self.pixels.mean.dtype

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:  # (B,) → (B, *shape), (B,)
        """The inputs and labels at `index`."""
        return self._numbers(self.x.index_select(0, index)), self.y.index_select(0, index)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All of it in order, at most `size` at a time."""
        for x, y in zip(torch.split(self.x, size), torch.split(self.y, size), strict=True):
            yield self._numbers(x), y

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The split on a device, the inputs of its batches as `dtype`."""
        if self.pixels is None:
            return type(self)(self.x.to(device, dtype), self.y.to(device))
        return type(self)(self.x.to(device), self.y.to(device), self.pixels.to(device, dtype))

    def _numbers(self, x: Tensor) -> Tensor:
        return x if self.pixels is None else self.pixels.numbers(x)


@dataclass(frozen=True, slots=True)
class Splits:
    """The training split teaches, the validation split chooses, the test split does neither."""

    train: Split
    validation: Split
    test: Split  # empty where there is none

    @property
    def of_bytes(self) -> bool:
        """Whether their inputs are images of bytes."""
        return self.train.pixels is not None

    def standardized(self) -> Self:
        """The same images of bytes, by the training split's mean and deviation of every channel."""
        pixels = Pixels.of(self.train.x)
        every = (self.train, self.validation, self.test)
        return type(self)(*(Split(split.x, split.y, pixels) for split in every))

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Every split on a device."""
        return type(self)(*(s.to(device, dtype) for s in (self.train, self.validation, self.test)))
