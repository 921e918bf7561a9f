"""Splits in a file, for the other processes of this machine: mapped, so that all of them share one copy."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lrwd_sweep.data.splits import Pixels, Split, Splits

_SPLITS = ("train", "validation", "test")


def put(splits: Splits, file: Path) -> None:
    """Write the splits; `file` is for `take` on the same machine, not to be kept."""
    found: dict[str, Tensor] = {}
    for name in _SPLITS:
        split: Split = getattr(splits, name)
        found |= {f"{name} x": split.x, f"{name} y": split.y}
        if split.pixels is not None:
            found |= {f"{name} mean": split.pixels.mean, f"{name} deviation": split.pixels.deviation}
    torch.save({key: value.cpu() for key, value in found.items()}, file)


def take(file: Path) -> Splits:
    """The splits on the CPU, as they were put there."""
    found: dict[str, Tensor] = torch.load(file, mmap=True, weights_only=True)

    def split(name: str) -> Split:
        mean, deviation = found.get(f"{name} mean"), found.get(f"{name} deviation")
        pixels = None if mean is None or deviation is None else Pixels(mean, deviation)
        return Split(found[f"{name} x"], found[f"{name} y"], pixels)

    return Splits(*map(split, _SPLITS))
