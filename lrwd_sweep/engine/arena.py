"""The arena: all parameters of a pack in one flat tensor, every named parameter a view of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.optim import Segment


@dataclass(frozen=True, slots=True)
class Arena:
    """θ and g of L lanes with P parameters each, contiguous per lane."""

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
    ) -> Arena:
        """Give every lane the same parameters: seeds are common random numbers.

        Rows are padded with zeros to a multiple of `align` columns. Weights that are channels last in `init`
        stay so in the arena, with a row per output channel either way.
        """
        flat = torch.cat([_as_it_lies(value).flatten() for value in init.values()]).to(device, dtype)
        last = {name for name, value in init.items() if _is_channels_last(value)}
        theta = functional.pad(flat, (0, -len(flat) % align)).repeat(lanes, 1)
        grad = torch.zeros_like(theta)
        shapes = {name: tuple(value.shape) for name, value in init.items()}
        ends = accumulate(math.prod(shape) for shape in shapes.values())
        layout = tuple(
            Segment(name, end - math.prod(shape), end, shape)
            for (name, shape), end in zip(shapes.items(), ends, strict=True)
        )
        return cls(theta, grad, _views(theta, layout, last), _views(grad, layout, last), layout)


def _is_channels_last(value: Tensor) -> bool:
    """Return True for channels last that is not plain order too, as with one input channel."""
    if value.dim() != 4 or value.is_contiguous():
        return False
    return value.is_contiguous(memory_format=torch.channels_last)


def _as_it_lies(value: Tensor) -> Tensor:  # (O, I, H, W) → (O, H, W, I) if that is its order in memory
    return value.permute(0, 2, 3, 1) if _is_channels_last(value) else value


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
