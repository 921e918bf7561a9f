"""Batches: one input or several per item, targets of every kind, and made-up batches of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrwd_sweep.spec.catalog import CLASS, FLOAT, IGNORED, MULTI_HOT, POSITION, REAL, DataSet, Input

Inputs = Tensor | tuple[Tensor, ...]  # (B, *shape); several reach the network as arguments


def call(module: nn.Module, x: Inputs) -> object:
    """Call a module with one input or several."""
    return module(*x) if isinstance(x, tuple) else module(x)


def parts(x: Inputs) -> tuple[Tensor, ...]:
    """Return the inputs as a tuple."""
    return x if isinstance(x, tuple) else (x,)


def joined(found: tuple[Tensor, ...]) -> Inputs:
    """Return the inputs as a network takes them."""
    return found if len(found) > 1 else found[0]


def copy(x: Inputs, layout: torch.memory_format | None = torch.preserve_format) -> Inputs:
    """Copy a batch into a layout; None is channels last for images."""
    return joined(tuple(_copy(one, layout) for one in parts(x)))


def _copy(x: Tensor, layout: torch.memory_format | None) -> Tensor:
    if layout is None or (layout is torch.channels_last and x.dim() != 4):
        layout = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    return x.clone(memory_format=layout)


def rows(x: Inputs, some: slice) -> Inputs:
    """Return some items of a batch."""
    return joined(tuple(one[some] for one in parts(x)))


def size(x: Inputs) -> int:
    """Return B, the items of a batch."""
    return len(parts(x)[0])


def fits(shape: tuple[int, ...], item: DataSet) -> bool:
    """Test whether one item's output of this shape can be held against its target.

    Of a target of numbers, sizes of 1 may be missing or too many.
    """
    if item.target in (CLASS, POSITION):
        return shape in item.output_shapes
    return _without_ones(shape) == _without_ones(item.target_shape)


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def by_class(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, C) and classes (N,) of outputs (B, C), (B, *positions, C) or (B, C, *positions)."""
    if y.dim() == 1:
        return output, y
    if output.shape[:-1] != y.shape:
        output = output.movedim(1, -1)
    return output.flatten(0, -2), y.flatten()


def counted(y: Tensor) -> Tensor:
    """Count the positions with a class."""
    return (y != IGNORED).sum()


def made_up(item: DataSet, count: int, stream: torch.Generator) -> tuple[Inputs, Tensor]:
    """Draw a batch of inputs and targets.

    Floating-point inputs lie between 0 and 1, the first number of each is 1: as tokens, sentences of a word.
    """
    x = joined(tuple(_drawn(one, count, stream) for one in item.every_input))
    return x, targets(item, count, stream)


def _drawn(one: Input, count: int, stream: torch.Generator) -> Tensor:
    if one.type == REAL:
        x = torch.rand(count, *one.shape, generator=stream)  # 0 as whole numbers: padding
        x.view(count, -1)[:, :1] = 1
        return x
    dtype: torch.dtype = getattr(torch, one.type)
    if dtype is torch.bool:
        return torch.ones(count, *one.shape, dtype=dtype)  # a mask that hides nothing
    return torch.randint(max(0, one.most) + 1, (count, *one.shape), generator=stream).to(dtype)


def targets(item: DataSet, count: int, stream: torch.Generator) -> Tensor:
    """Draw targets."""
    if item.target == FLOAT:
        return torch.randn(count, *item.target_shape, generator=stream)
    if item.target == MULTI_HOT:
        return torch.randint(2, (count, *item.target_shape), generator=stream).float()
    return torch.randint(item.classes, (count, *item.target_shape), generator=stream)


def to(x: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Move a batch to a device, its floating-point numbers as `dtype`."""
    return joined(tuple(moved(one, device, dtype) for one in parts(x)))


def moved(x: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Move a tensor to a device, floating-point numbers as `dtype`; others keep their type."""
    return x.to(device, dtype) if x.is_floating_point() else x.to(device)
