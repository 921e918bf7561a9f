"""A dry run of a module before training: its trained parameters, and uses that lanes do not support."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lrwd_sweep.errors import UsageError, brief
from lrwd_sweep.nets.loss import Loss, label
from lrwd_sweep.nets.network import Way
from lrwd_sweep.nets.precision import computing
from lrwd_sweep.nets.randomness import Noisy, python_state, seeded

BATCH = 8
MOST, NUMBERS = 256, 1 << 16  # inputs of the second batch, and numbers in it
ALIKE = 1e-3  # of logits' scale; above float32 sums in another order
_ATTENTION = "aten::_scaled_dot_product"  # tagged as random, though without dropout they draw nothing


@dataclass(frozen=True, slots=True)
class DryRun:
    """The findings of a dry run."""

    trained: frozenset[str]  # parameters with a gradient on either batch
    logits: Tensor  # (BATCH, classes), of the first batch
    by_item: bool = True  # in evaluation an item's logits do not depend on the others of its batch
    layout: torch.memory_format = torch.contiguous_format  # of images and of convolutions' weights


def examine(module: nn.Module, shape: tuple[int, ...], classes: int, way: Way) -> DryRun:
    """Find the trained parameters, and a layout of images and weights that leaves the results the same.

    Channels last is a fifth faster for narrow convolutions on a CPU. A module that uses `view` fails in it,
    and one that uses `as_strided` computes something else: these get contiguous images and weights.
    """
    images = len(shape) == 3
    if not way.user_code:
        layout = torch.channels_last if images else torch.contiguous_format
        return dry_run(module, shape, classes, way, layout)
    plain = dry_run(module, shape, classes, way)
    if images:
        try:
            last = dry_run(module, shape, classes, way, torch.channels_last)
        except Exception:
            return plain
        tolerance = ALIKE * float(plain.logits.abs().max())
        same = torch.allclose(last.logits, plain.logits, rtol=0, atol=tolerance)
        if same and last.trained == plain.trained:
            return DryRun(plain.trained, plain.logits, plain.by_item, torch.channels_last)
    return plain


def dry_run(
    module: nn.Module,
    shape: tuple[int, ...],
    classes: int,
    way: Way,
    layout: torch.memory_format = torch.contiguous_format,
    dtype: torch.dtype = torch.float32,  # of products
) -> DryRun:
    """Train a copy of the module on a batch of made-up inputs of `shape`.

    A known module runs on the meta device, where tensors have no values. User code runs on the CPU, with a
    second training batch and an evaluation. Raises UsageError, and any exception of the module on the first
    batch, with a note of the layer; the second batch may hold values that the module rejects.
    """
    copy = _copy(module, meta=not way.user_code)
    watch = _Watch(copy, way.loss)

    def train(x: Tensor) -> Tensor:
        with watch, computing(dtype, x.device):
            logits = _check_logits(watch.run(x.clone()), len(x), classes).to(x.dtype)
        with watch:
            mean = way.loss(logits.clone(), torch.arange(len(x), device=x.device) % classes)
        torch.autograd.backward(_check_loss(mean, logits, way.loss))
        return logits.detach()

    by_item = True
    with seeded(0):
        if not way.user_code:
            logits = train(torch.zeros(BATCH, *shape, device="meta"))
        else:
            before = python_state()
            for parameter in copy.parameters():
                if parameter.dim() == 4:
                    parameter.data = parameter.data.contiguous(memory_format=layout)
            first, second = (x.to(memory_format=layout) for x in _batches(shape))
            logits = train(first)
            try:
                train(second)
            except UsageError:
                raise
            except Exception:
                pass
            copy.eval()
            with watch, computing(dtype, first.device):  # evaluation may take another path
                by_item = _is_by_item(copy, first, watch.run(first))
            if python_state() != before:
                raise UsageError(
                    "it draws random numbers from the global generator of numpy or random, which lanes "
                    "cannot share; create a generator in __init__, such as numpy.random.default_rng()"
                )
            _check_closures(module)
    trained = frozenset(name for name, one in copy.named_parameters() if one.grad is not None)
    return DryRun(trained, logits, by_item, layout)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A watch on operators that refuses draws from the global generator and names the layer."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.module, self.loss = module, loss
        self.layers: list[str] = []  # whose forward passes are running
        for name, layer in module.named_modules():
            kind = type(layer).__name__
            where = f"the layer {name} ({kind})" if name else f"{kind} itself"
            layer.register_forward_pre_hook(partial(self._enter, where))
            layer.register_forward_hook(self._leave)
            if isinstance(layer, Noisy):
                layer.noise = torch.Generator()

    def run(self, x: Tensor) -> object:
        """Call the module; add a note of the layer to its exceptions."""
        self.layers.clear()
        try:
            return self.module(x)
        except Exception as error:
            if self.layers and not isinstance(error, UsageError):
                error.add_note(f"in {self.layers[-1]}")
            raise

    def _enter(self, where: str, layer: nn.Module, _: object) -> None:
        again = torch._C._current_graph_task_id() != -1
        if again and isinstance(layer, Noisy) and layer.training and getattr(layer, "p", True):
            raise UsageError(
                f"{where} runs again in the backward pass, by torch.utils.checkpoint, and would draw other "
                "numbers there; leave it out of the checkpointed part"
            )
        self.layers.append(where)

    def _leave(self, *_: object) -> None:
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
    """Test whether a call of a random operator draws from the global generator."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    idle = func._schema.name.startswith(_ATTENTION) and not given.get("dropout_p")
    return not idle and given.get("generator") is None


def _check_logits(logits: object, batch: int, classes: int) -> Tensor:
    """Return the logits (batch, classes). Raises UsageError for anything else."""
    if not isinstance(logits, Tensor) or logits.shape != (batch, classes):
        raise UsageError(
            f"the network gives {getattr(logits, 'shape', type(logits).__name__)}, not one number "
            f"for each of {batch} inputs and {classes} classes; choose a classifier"
        )
    return logits


def _check_loss(mean: object, logits: Tensor, loss: Loss) -> Tensor:
    """Return the mean loss. Raises UsageError if it cannot be minimised."""
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


def _is_by_item(module: nn.Module, x: Tensor, logits: object) -> bool:
    """Test whether parts of a batch have the same logits as in it; exceptions are left to training."""
    try:
        parts = torch.cat([module(part.clone()) for part in (x[:3], x[3:])]).detach()
        scale = float(parts.nan_to_num(posinf=0, neginf=0).abs().max())
        return torch.allclose(parts, logits, rtol=0, atol=ALIKE * scale, equal_nan=True)  # type: ignore[arg-type]
    except Exception:
        return True


def _batches(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Make inputs that are valid tokens, rows from 1 down to 0, and a batch of any numbers."""
    size = math.prod(shape)
    tokens = torch.outer(torch.linspace(1, 0.6, BATCH), torch.linspace(1.9, 0, size))
    count = min(max(BATCH, NUMBERS // size), MOST)
    numbers = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
    return tokens.reshape(BATCH, *shape), numbers


def _copy(module: nn.Module, *, meta: bool) -> nn.Module:
    """Copy the module for training, or without values to the meta device.

    Raises UsageError if lanes could not have copies.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise UsageError(f"its layer {name} is a ScriptModule, which lanes cannot copy; do not script it")
    instead: dict[int, object] = {}
    for name, parameter in module.named_parameters():
        parameter.grad = None
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise UsageError(
                f"its parameter {name} has a hook, which the lanes' parameters do not have; register it in "
                "forward on a tensor made of the parameter, such as 1 * parameter"
            )
        if meta:
            instead[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    if meta:
        instead |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copied(module, instead).train()


def copied(module: nn.Module, instead: dict[int, object]) -> nn.Module:
    """Copy a module, with tensors replaced by id as in `instead`. Raises UsageError if that fails."""
    try:
        return deepcopy(module, instead)
    except Exception as error:
        raise UsageError(
            f"it cannot be copied, and every lane needs a copy ({brief(error)}); use "
            "torch.nn.utils.parametrizations instead of weight_norm and prune, and keep locks, files "
            "and results of forward out of it"
        ) from error


def _check_closures(module: nn.Module) -> None:
    """Raise UsageError if training the copy gave the module itself gradients."""
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            raise UsageError(
                f"its parameter {name} is used by a lambda or function that __init__ makes, and which every "
                "copy of the network would share; write a method that finds it in self"
            )
