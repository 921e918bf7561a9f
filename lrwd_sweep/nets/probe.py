"""One pass before any training: what a module draws, and what it trains.

It runs on torch's meta device, where tensors have shapes and no values, or on the CPU for a module that may
look at values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.loss import Loss
from lrwd_sweep.nets.noise import Noisy
from lrwd_sweep.nets.precision import computing

BATCH = 8

_ATTENTION = "aten::_scaled_dot_product"  # operators that say that they draw, though most drop nothing


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator: whether random numbers come from a given generator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[str] = []  # whose forward passes are under way

    def follow(self, module: nn.Module) -> None:
        """Learn where in the module an operator stands."""
        for name, layer in module.named_modules():
            label = f"the layer {name} ({type(layer).__name__})" if name else f"{type(layer).__name__} itself"
            layer.register_forward_pre_hook(lambda *_, label=label: self.layers.append(label))
            layer.register_forward_hook(self._left)

    def _left(self, *_: object) -> None:
        self.layers.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs):
            where = self.layers[-1] if self.layers else "the loss"
            raise UsageError(
                f"{where} draws random numbers from torch's global generator, which lanes cannot share; use "
                "torch.nn.Dropout as a layer for it, or set its randomness to 0 (dropout=0 for attention and "
                "recurrent layers)"
            )
        return func(*args, **kwargs)


def _draws(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of an operator that may draw does so, and from the global generator."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    idle = func._schema.name.startswith(_ATTENTION) and not given.get("dropout_p")
    return not idle and given.get("generator") is None


def examine(
    module: nn.Module,
    shape: tuple[int, ...],
    classes: int,
    loss: Loss = functional.cross_entropy,
    *,
    device: str = "meta",
    layout: torch.memory_format = torch.contiguous_format,  # of images, and of the weights of convolutions
    dtype: torch.dtype = torch.float32,  # what products are computed in
) -> frozenset[str]:
    """The parameters that the loss depends on, by a training pass over BATCH inputs of `shape`, of a copy.

    Raises UsageError, and whatever the module raises, with a note of the layer.
    """
    module = _copy(module, device)
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    watch = _Watch()
    watch.follow(module)
    for layer in module.modules():
        if isinstance(layer, Noisy):
            layer.noise = torch.Generator()
    with torch.inference_mode(mode=False), torch.enable_grad():
        x = torch.linspace(0, 0.9, BATCH * math.prod(shape), device=device).reshape(BATCH, *shape)
        x, y = x.to(memory_format=layout), torch.arange(BATCH, device=device) % classes
        with watch:
            with computing(dtype, x.device):
                logits = _passed(module, x, watch)
            if not isinstance(logits, Tensor) or logits.shape != (BATCH, classes):
                raise UsageError(
                    f"the network gives {getattr(logits, 'shape', type(logits).__name__)}, not one number "
                    f"for each of {BATCH} inputs and {classes} classes; choose a classifier"
                )
        with watch:
            mean = loss(logits.to(x.dtype), y)
        _check(mean)
        leaves = {id(leaf) for leaf in _leaves(mean.grad_fn)}
        if device != "meta":
            with computing(dtype, x.device):
                _passed(module.eval(), x, watch)  # which may go another way
    return frozenset(name for name, value in module.named_parameters() if id(value) in leaves)


def _passed(module: nn.Module, x: Tensor, watch: _Watch) -> object:
    try:
        return module(x)
    except Exception as error:
        if watch.layers and not isinstance(error, UsageError):
            error.add_note(f"in {watch.layers[-1]}")
        raise


def _check(mean: object) -> None:
    if not isinstance(mean, Tensor) or mean.shape != ():
        found = f"a tensor of shape {tuple(mean.shape)}" if isinstance(mean, Tensor) else type(mean).__name__
        raise UsageError(f"the loss is {found}, not one number for a batch; return its mean")
    if not mean.requires_grad:
        raise UsageError("the loss does not depend on any parameter that trains; there is nothing to sweep")


def _leaves(end: Node | None) -> Iterator[Tensor]:
    """What a graph begins with and gradients are for."""
    seen: set[Node] = set()
    left = [end]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            yield leaf
        left += [before for before, _ in node.next_functions]


def _copy(module: nn.Module, device: str) -> nn.Module:
    """The module in training; on the meta device without values."""
    if device != "meta":
        return deepcopy(module).train()
    copies: dict[int, Any] = {id(buffer): buffer.to(device) for buffer in module.buffers()}
    for value in module.parameters():
        copies[id(value)] = nn.Parameter(value.detach().to(device), value.requires_grad)
    return deepcopy(module, copies).train()
