"""A pass without arithmetic: what a module keeps for its backward pass, and what it draws.

It runs on torch's meta device, where tensors have shapes and no values.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.noise import Noisy

BATCH = 8


@dataclass(frozen=True, slots=True)
class Footprint:
    """Floats that a pass holds per image."""

    kept: float  # for the backward pass
    largest: float  # the largest single tensor


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator: the largest result, and whether random numbers come from a given generator."""

    def __init__(self, weights: Collection[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights = weights  # by address; what only looks at them grows with no batch
        self.layer = ""
        self.largest = 0

    def entered(self, name: str, layer: nn.Module) -> None:
        """A layer's forward pass begins."""
        self.layer = f"{name} ({type(layer).__name__})"

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is None:
            raise UsageError(
                f"the layer {self.layer} draws random numbers from torch's global generator, which lanes "
                "cannot share; build the network with that layer's randomness set to 0"
            )
        out = func(*args, **kwargs)
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and _address(tensor) not in self.weights:
                self.largest = max(self.largest, tensor.numel())
        return out


def examine(module: nn.Module, shape: tuple[int, ...], classes: int) -> Footprint:
    """One training pass over BATCH inputs of `shape`. Raises UsageError, and whatever the module raises."""
    module = _without_values(module)
    weights = {_address(parameter) for parameter in module.parameters()}
    watch = _Watch(weights)
    for name, layer in module.named_modules():
        layer.register_forward_pre_hook(lambda layer, _, name=name: watch.entered(name, layer))
        if isinstance(layer, Noisy):
            layer.noise = torch.Generator()
    kept: dict[int, torch.UntypedStorage] = {}  # by address; held, so that no address comes twice

    def keep(tensor: Tensor) -> Tensor:
        if _address(tensor) not in weights:
            kept[_address(tensor)] = tensor.untyped_storage()
        return tensor

    x = torch.empty(BATCH, *shape, device="meta")
    with torch.inference_mode(mode=False), saved_tensors_hooks(keep, lambda tensor: tensor), watch:
        logits = module(x)
    if not isinstance(logits, Tensor) or logits.shape != (BATCH, classes):
        raise UsageError(
            f"the network gives {getattr(logits, 'shape', type(logits).__name__)}, not one number for each "
            f"of {BATCH} inputs and {classes} classes; choose a classifier"
        )
    size = sum(storage.nbytes() for storage in kept.values()) / 4
    return Footprint(size / BATCH, watch.largest / BATCH)


def _address(tensor: Tensor) -> int:
    """Of the memory that it would have; the same for a tensor and its views."""
    return int(tensor.untyped_storage()._cdata)


def _without_values(module: nn.Module) -> nn.Module:
    tensors = [*module.parameters(), *module.buffers()]
    return deepcopy(module, {id(tensor): tensor.to("meta") for tensor in tensors}).train()
