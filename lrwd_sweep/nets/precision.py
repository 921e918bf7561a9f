"""What matrix products and convolutions are computed in; whatever lasts stays as exact as the arena."""

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
    """What products are computed in where parameters are as `like`.

    bfloat16 takes the place of float32 alone: in float64 networks are held to one another, to the last digit.
    """
    return torch.bfloat16 if precision == BFLOAT16 and like.dtype is torch.float32 else like.dtype


@contextmanager
def computing(dtype: torch.dtype, device: torch.device, *, stacked: bool = False) -> Iterator[None]:
    """Let a module's products be computed in `dtype`; all but bfloat16 is what they are in anyway.

    Without autocast's cache of rounded weights, which the packs of all threads would share and clear: whether
    the gradients of a weight that is used twice are added in bfloat16 or float32 would be a matter of time.
    """
    if dtype is not torch.bfloat16:
        yield
        return
    rounded = torch.autocast(device.type, dtype=dtype, cache_enabled=False)
    with rounded, _UnderVmap() if stacked else nullcontext():
        yield


class _UnderVmap(TorchFunctionMode):
    """Autocast where vmap stands in its way.

    vmap hides convolutions from it on a CPU, and has no rule there for the normalisation of bfloat16 by
    statistics and parameters of float32: that is computed in float32.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _CONVOLUTIONS:
            args, kwargs = _cast(args, kwargs, torch.bfloat16)
        elif func in _NORMALISATIONS:
            args, kwargs = _cast(args, kwargs, torch.float32)
        return func(*args, **kwargs or {})


def _cast(
    args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Every tensor in `dtype`."""

    def one(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) else value

    return tuple(map(one, args)), {name: one(value) for name, value in (kwargs or {}).items()}
