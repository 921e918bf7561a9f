"""Augmentation of training images on their device: shifts, mirror images, cutout.

Blank is 0 in normalised images, the mean colour: the paper's CIFAR recipe comes from fb.resnet.torch by
way of Shake-Shake, which normalises first and pads then; Cutout (DeVries and Taylor 2017) does the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Augment = Callable[[Tensor], Tensor]  # (B, C, H, W), normalised


def augmentation(name: str, stream: torch.Generator) -> Augment:
    """Return the augmentation of that name in the catalog, drawing only from `stream`."""
    if name == "none":
        return lambda x: x
    if name == "crop-flip":
        return lambda x: crop_flip(x, stream)
    return lambda x: cutout(crop_flip(x, stream), stream)


def crop_flip(x: Tensor, stream: torch.Generator) -> Tensor:  # (B, C, H, W)
    """Shift each image by −p to p pixels along each axis, p an eighth of its side, and mirror half of them.

    For 32×32 this is the paper's: a crop of 32 out of the image padded by 4.
    """
    batch, channels, height, width = x.shape
    pad_y, pad_x = round(height / 8), round(width / 8)
    top = _below(2 * pad_y + 1, batch, x, stream)
    left = _below(2 * pad_x + 1, batch, x, stream)
    mirrored = _below(2, batch, x, stream) == 1
    rows = top + torch.arange(height, device=x.device)  # (B, H)
    columns = left + torch.arange(width, device=x.device)  # (B, W)
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = functional.pad(x, (pad_x, pad_x, pad_y, pad_y)).flatten(2)
    source = rows[:, :, None] * (width + 2 * pad_x) + columns[:, None, :]  # (B, H, W)
    return padded.gather(2, source.reshape(batch, 1, -1).expand(-1, channels, -1)).reshape(x.shape)


def cutout(x: Tensor, stream: torch.Generator) -> Tensor:  # (B, C, H, W)
    """Blank a square of half the side around a random pixel of each image; the border clips it."""
    batch, _, height, width = x.shape
    rows = _near(_below(height, batch, x, stream), height)  # (B, H)
    columns = _near(_below(width, batch, x, stream), width)  # (B, W)
    blank = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(blank, torch.zeros((), dtype=x.dtype, device=x.device), x)


def _below(most: int, batch: int, like: Tensor, stream: torch.Generator) -> Tensor:  # (B, 1)
    """Draw a whole number from 0 to most − 1 for each image."""
    return torch.randint(most, (batch, 1), generator=stream, device=like.device)


def _near(centre: Tensor, size: int) -> Tensor:  # (B, 1) → (B, size)
    """Mark the interval of half the size around each centre."""
    distance = torch.arange(size, device=centre.device) - centre
    half = size // 2 // 2
    return (distance >= -half) & (distance < half)
