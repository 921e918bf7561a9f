"""Splits in a temporary file, for other processes of this machine: mapped, so that all share one copy."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from lrwd_sweep.data.splits import Pixels, Split, Splits

_PREFIX = "lrwd-sweep-"
_NAMES = ("train", "validation", "test")


def make_folder() -> Path:
    """Create a temporary folder; remove those that killed programs left. Raises OSError."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not _is_alive(left.name.removeprefix(_PREFIX).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))


def _is_alive(pid: str) -> bool:
    """Check whether a process of any user has this number; if that is unknown, assume so."""
    if os.name != "posix":
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        return True
    return True


def save_splits(splits: Splits, file: Path) -> None:
    """Write the splits for `load_splits` on the same machine. Raises OSError."""
    found: dict[str, Tensor] = {}
    for name in _NAMES:
        split: Split = getattr(splits, name)
        found |= {f"{name} x": split.x, f"{name} y": split.y}
        if split.pixels is not None:
            found |= {f"{name} mean": split.pixels.mean, f"{name} deviation": split.pixels.deviation}
    try:
        torch.save({key: value.cpu() for key, value in found.items()}, file)
    except RuntimeError as error:  # torch's zip writer, on a full disk
        raise OSError(f"{file} cannot be written ({error})") from error


def load_splits(file: Path) -> Splits:
    """Map the splits of a file into memory, on the CPU."""
    found: dict[str, Tensor] = torch.load(file, mmap=True, weights_only=True)

    def split(name: str) -> Split:
        mean, deviation = found.get(f"{name} mean"), found.get(f"{name} deviation")
        pixels = None if mean is None or deviation is None else Pixels(mean, deviation)
        return Split(found[f"{name} x"], found[f"{name} y"], pixels)

    return Splits(*map(split, _NAMES))
