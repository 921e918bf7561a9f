"""Random numbers of a pack: a stream for every seed and purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch

from lrwd_sweep.data import augmentation
from lrwd_sweep.spec.task import Task

PURPOSES = ("parameters", "data order", "noise", "augmentation", "averages")


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a separate stream for every seed and purpose; CPU streams are the same for every device."""
    return torch.Generator(device).manual_seed((seed << 8) + PURPOSES.index(purpose))


@dataclass(slots=True)
class Draws:
    """The random numbers of passes in training mode: of the network's layers, and of the augmentation."""

    noise: list[torch.Generator]  # one, or one per lane
    shakes: torch.Generator
    augment: Callable[[Any], Any]

    @classmethod
    def begun(cls, task: Task, seed: int, streams: int, device: torch.device, purpose: str = "") -> Self:
        """Begin the streams of a seed; others that are begun alike draw the same numbers."""
        begin = partial(generator, seed, device=device)
        shakes = begin(purpose or "augmentation")
        noise = [begin(purpose or "noise") for _ in range(streams)]
        return cls(noise, shakes, augmentation(task.augment, shakes))
