"""The state of a pack's lanes: parameters and gradients in one tensor each, and random numbers."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.data import augmentation
from lrwd_sweep.optim import Segment
from lrwd_sweep.spec.task import Task

PURPOSES = ("parameters", "data order", "noise", "augmentation", "averages")


@dataclass(frozen=True, slots=True)
class Arena:
    """θ and g of L lanes with P parameters each, contiguous per lane; every named parameter is a view."""

    theta: Tensor  # (L, P)
    grad: Tensor  # (L, P)
    named: dict[str, Tensor]  # (L, *shape), views of theta
    named_grad: dict[str, Tensor]  # views of grad
    layout: tuple[Segment, ...]  # position of each parameter in a lane's row

    @classmethod
    def stack(
        cls,
        init: Mapping[str, Tensor],
        lanes: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        align: int = 1,
    ) -> Self:
        """Give every lane the same parameters: seeds are common random numbers.

        Rows are padded with zeros to a multiple of `align` columns. Weights that are channels last in `init`
        stay so in the arena, with a row per output channel either way.
        """
        last = {name for name, value in init.items() if _is_channels_last(value)}
        as_they_lie = [v.permute(0, 2, 3, 1) if name in last else v for name, v in init.items()]
        flat = torch.cat([value.flatten() for value in as_they_lie]).to(device, dtype)
        theta = functional.pad(flat, (0, -len(flat) % align)).repeat(lanes, 1)
        grad = torch.zeros_like(theta)
        ends = accumulate(value.numel() for value in init.values())
        layout = tuple(
            Segment(name, end - value.numel(), end, tuple(value.shape))
            for (name, value), end in zip(init.items(), ends, strict=True)
        )
        return cls(theta, grad, _views(theta, layout, last), _views(grad, layout, last), layout)


def _is_channels_last(value: Tensor) -> bool:
    """Return True for channels last that is not plain order too, as with one input channel."""
    if value.dim() != 4 or value.is_contiguous():
        return False
    return value.is_contiguous(memory_format=torch.channels_last)


def _views(flat: Tensor, layout: Sequence[Segment], last: Collection[str]) -> dict[str, Tensor]:
    """Make the views by name; those in `last` have their channels last in memory."""
    found = {}
    for part in layout:
        row, shape = flat[:, part.columns], part.shape
        if part.name in last:
            outputs, inputs, height, width = shape
            found[part.name] = row.view(-1, outputs, height, width, inputs).permute(0, 1, 4, 2, 3)
        else:
            found[part.name] = row.view(-1, *shape)
    return found


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
        shakes = generator(seed, purpose or "augmentation", device)
        noise = [generator(seed, purpose or "noise", device) for _ in range(streams)]
        return cls(noise, shakes, augmentation(task.augment, shakes))
