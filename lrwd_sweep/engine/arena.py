"""The arena: all parameters of a pack in one flat tensor, every named parameter a view of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Arena:
    """θ and g of L lanes with P parameters each, contiguous per lane."""

    theta: Tensor  # (L, P)
    grad: Tensor  # (L, P)
    named: dict[str, Tensor]  # (L, *shape), views of theta
    named_grad: dict[str, Tensor]  # views of grad

    @classmethod
    def stack(
        cls, init: Mapping[str, Tensor], lanes: int, *, device: torch.device, dtype: torch.dtype
    ) -> Arena:
        """Every lane begins with the same parameters: seeds are common random numbers."""
        flat = torch.cat([value.flatten() for value in init.values()]).to(device, dtype)
        theta = flat.repeat(lanes, 1)
        grad = torch.zeros_like(theta)
        shapes = {name: tuple(value.shape) for name, value in init.items()}
        return cls(theta, grad, _views(theta, shapes), _views(grad, shapes))


def _views(flat: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    sizes = [math.prod(shape) for shape in shapes.values()]
    pieces = torch.split(flat, sizes, dim=1)
    return {name: piece.view(-1, *shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
