"""Precision of matrix products and convolutions; parameters, gradients and statistics keep the arena's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lrwd_sweep.spec.catalog import BFLOAT16

_NORMALISATIONS = (
    functional.batch_norm,
    functional.group_norm,
    functional.instance_norm,
    functional.layer_norm,
    torch.batch_norm,
    torch.group_norm,
    torch.instance_norm,
    torch.layer_norm,
)
_CONVOLUTIONS = (
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
)


def compute_type(precision: str, like: Tensor) -> torch.dtype:
    """Return the dtype of products for parameters like `like`.

    bfloat16 replaces only float32: float64 serves comparisons to the last digit.
    """
    return torch.bfloat16 if precision == BFLOAT16 and like.dtype is torch.float32 else like.dtype


@contextmanager
def computing(dtype: torch.dtype, device: torch.device, *, stacked: bool = False) -> Iterator[None]:
    """Compute a module's products in bfloat16 if `dtype` is bfloat16; else change nothing.

    Autocast's weight cache is off: packs in several threads would share and clear it, so that timing would
    decide whether the gradients of a weight used twice are added in bfloat16 or float32.
    """
    if dtype is not torch.bfloat16:
        yield
        return
    autocast = torch.autocast(device.type, dtype=dtype, cache_enabled=False)
    with autocast, _UnderVmap() if stacked else nullcontext():
        yield


class _UnderVmap(TorchFunctionMode):
    """The part of autocast that does not work under vmap.

    On a CPU vmap hides convolutions from autocast, and it has no rule to normalise bfloat16 by float32
    statistics and parameters: normalisations are computed in float32.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            args, kwargs = _cast(args, kwargs, torch.bfloat16)
        elif func in _NORMALISATIONS:
            args, kwargs = _cast(args, kwargs, torch.float32)
        return func(*args, **kwargs)


def _cast(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Convert all tensors to `dtype`."""

    def one(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) else value

    return tuple(map(one, args)), {name: one(value) for name, value in kwargs.items()}
