"""The arena: all parameters of a pack in one flat tensor, every named parameter a view of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from lrwd_sweep.optim import Segment


@dataclass(frozen=True, slots=True)
class Arena:
    """θ and g of L lanes with P parameters each, contiguous per lane."""

    theta: Tensor  # (L, P)
    grad: Tensor  # (L, P)
    named: dict[str, Tensor]  # (L, *shape), views of theta
    named_grad: dict[str, Tensor]  # views of grad
    layout: tuple[Segment, ...]  # where each parameter lies in a lane's row

    @classmethod
    def stack(
        cls, init: Mapping[str, Tensor], lanes: int, *, device: torch.device, dtype: torch.dtype
    ) -> Arena:
        """Every lane begins with the same parameters: seeds are common random numbers."""
        flat = torch.cat([value.flatten() for value in init.values()]).to(device, dtype)
        theta = flat.repeat(lanes, 1)
        grad = torch.zeros_like(theta)
        shapes = {name: tuple(value.shape) for name, value in init.items()}
        ends = accumulate(math.prod(shape) for shape in shapes.values())
        layout = tuple(
            Segment(name, end - math.prod(shape), end, shape)
            for (name, shape), end in zip(shapes.items(), ends, strict=True)
        )
        return cls(theta, grad, _views(theta, layout), _views(grad, layout), layout)


def _views(flat: Tensor, layout: Sequence[Segment]) -> dict[str, Tensor]:
    return {part.name: flat[:, part.start : part.stop].view(-1, *part.shape) for part in layout}
