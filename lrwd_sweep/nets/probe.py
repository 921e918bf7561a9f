"""One pass before any training, where tensors have shapes and no values: what a module draws and trains."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.loss import Loss, label
from lrwd_sweep.nets.noise import Noisy

BATCH = 8

_ATTENTION = "aten::_scaled_dot_product"  # operators that say that they draw, though most drop nothing


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator: whether random numbers come from a given generator."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.loss = loss
        self.layers: list[str] = []  # whose forward passes are under way

    def follow(self, module: nn.Module) -> None:
        """Learn where in the module an operator stands."""
        for name, layer in module.named_modules():
            kind = type(layer).__name__
            where = f"the layer {name} ({kind})" if name else f"{kind} itself"
            layer.register_forward_pre_hook(partial(self._entered, where))
            layer.register_forward_hook(self._left)

    def _entered(self, where: str, layer: nn.Module, _: object) -> None:
        again = torch._C._current_graph_task_id() != -1
        if again and isinstance(layer, Noisy) and layer.training and getattr(layer, "p", True):
            raise UsageError(
                f"{where} runs again in the backward pass, by torch.utils.checkpoint, and would draw other "
                "numbers there; leave it out of what is computed again"
            )
        self.layers.append(where)

    def _left(self, *_: object) -> None:
        self.layers.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs):
            where = self.layers[-1] if self.layers else f"{label(self.loss)}the loss"
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
    module: nn.Module, shape: tuple[int, ...], classes: int, loss: Loss = functional.cross_entropy
) -> frozenset[str]:
    """The parameters that the loss depends on, by a training pass over BATCH inputs of `shape`, of a copy.

    Raises UsageError, and whatever the module raises, with a note of the layer.
    """
    module = _copy(module)
    watch = Watch(loss)
    watch.follow(module)
    for layer in module.modules():
        if isinstance(layer, Noisy):
            layer.noise = torch.Generator()
    with torch.inference_mode(mode=False), torch.enable_grad(), watch:
        x = torch.zeros(BATCH, *shape, device="meta")
        logits = check_logits(passed(module, x, watch), BATCH, classes)
        mean = check_loss(loss(logits, torch.arange(BATCH, device="meta") % classes), logits, loss)
        leaves = {id(leaf) for leaf in _leaves(mean.grad_fn)}
    return frozenset(name for name, value in module.named_parameters() if id(value) in leaves)


def passed(module: nn.Module, x: Tensor, watch: Watch) -> object:
    """What the module makes of x; what it raises has a note of the layer."""
    try:
        return module(x)
    except Exception as error:
        if watch.layers and not isinstance(error, UsageError):
            error.add_note(f"in {watch.layers[-1]}")
        raise


def check_logits(logits: object, batch: int, classes: int) -> Tensor:
    """The logits (batch, classes). Raises UsageError where they are none."""
    if not isinstance(logits, Tensor) or logits.shape != (batch, classes):
        raise UsageError(
            f"the network gives {getattr(logits, 'shape', type(logits).__name__)}, not one number "
            f"for each of {batch} inputs and {classes} classes; choose a classifier"
        )
    return logits


def check_loss(mean: object, logits: Tensor, loss: Loss) -> Tensor:
    """The mean loss. Raises UsageError where it is none that could be lowered."""
    if not isinstance(mean, Tensor) or mean.shape != ():
        found = f"a tensor of shape {tuple(mean.shape)}" if isinstance(mean, Tensor) else type(mean).__name__
        raise UsageError(f"{label(loss)}the loss is {found}, not one number for a batch; return its mean")
    if not logits.requires_grad:
        raise UsageError("it does not depend on any parameter that trains; there is nothing to sweep")
    if not mean.requires_grad:
        raise UsageError(
            f"{label(loss)}the loss does not depend on any parameter, as it does not on the logits; "
            "compute it without detach, item, numpy or no_grad"
        )
    return mean


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


def _copy(module: nn.Module) -> nn.Module:
    """The module in training, without values."""
    copies: dict[int, Any] = {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    for value in module.parameters():
        copies[id(value)] = nn.Parameter(value.detach().to("meta"), value.requires_grad)
    return deepcopy(module, copies).train()
