"""Splits in a file, for the other processes of this machine: mapped, so that all of them share one copy."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from lrwd_sweep.data.splits import Pixels, Split, Splits

_PREFIX = "lrwd-sweep-"
_SPLITS = ("train", "validation", "test")


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder; those of programs that were killed are cleared away first. Raises OSError."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not _is_alive(left.name.removeprefix(_PREFIX).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as name:
        yield Path(name)


def _is_alive(pid: str) -> bool:
    """Whether there is such a process, be it another person's."""
    if os.name != "posix":
        return True  # there a signal of 0 is not a question
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        return True
    return True


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
