"""A dry run of a module before training: its trained parameters, and uses that lanes do not support."""

import math
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lrwd_sweep.errors import UsageError, brief
from lrwd_sweep.nets.loss import UserLoss, label
from lrwd_sweep.nets.network import (
    Inputs,
    Loss,
    Way,
    call,
    computing,
    copy_of,
    each,
    fits,
    joined,
    made_up,
    parts,
    rows,
    targets,
)
from lrwd_sweep.nets.randomness import Noisy, python_state, seeded
from lrwd_sweep.spec.catalog import REAL, DataSet

BATCH = 8
MOST, NUMBERS = 256, 1 << 16  # inputs of the second batch, and numbers in it
ALIKE = 1e-3  # of outputs' scale; above float32 sums in another order
_ATTENTION = "aten::_scaled_dot_product"  # tagged as random, though without dropout they draw nothing


@dataclass(frozen=True, slots=True)
class DryRun:
    """The findings of a dry run."""

    trained: frozenset[str]  # parameters with a gradient on either batch
    output: Tensor  # (BATCH, …), of the first batch
    by_item: bool = True  # in evaluation an item's output does not depend on the others of its batch
    layout: torch.memory_format = torch.contiguous_format  # of images and of convolutions' weights


def examine(module: nn.Module, item: DataSet, way: Way) -> DryRun:
    """Find the trained parameters, and a layout of images and weights that leaves the results the same.

    Channels last is a fifth faster for narrow convolutions on a CPU. A module that uses `view` fails in it,
    and one that uses `as_strided` computes something else: these get contiguous images and weights.
    """
    images = any(len(one.shape) == 3 for one in item.every_input)
    if not way.user_code:
        layout = torch.channels_last if images else torch.contiguous_format
        return dry_run(module, item, way, layout)
    plain = dry_run(module, item, way)
    if images:
        try:
            last = dry_run(module, item, way, torch.channels_last)
        except Exception:
            return plain
        tolerance = ALIKE * float(plain.output.abs().max())
        same = torch.allclose(last.output, plain.output, rtol=0, atol=tolerance)
        if same and last.trained == plain.trained:
            return DryRun(plain.trained, plain.output, plain.by_item, torch.channels_last)
    return plain


def dry_run(
    module: nn.Module,
    item: DataSet,
    way: Way,
    layout: torch.memory_format = torch.contiguous_format,
    dtype: torch.dtype = torch.float32,  # of products
) -> DryRun:
    """Train a copy of the module on a batch of made-up items.

    A known module runs on the meta device, where tensors have no values. User code runs on the CPU, with a
    second training batch and an evaluation. Raises UsageError, and any exception of the module on the first
    batch, with a note of the layer; the second batch may hold values that the module rejects.
    """
    copy = _copy(module, meta=not way.user_code)
    watch = _Watch(copy, way.loss)

    def train(x: Inputs) -> Tensor:
        place, real = parts(x)[0].device, torch.get_default_dtype()
        with watch, computing(dtype, place):
            logits = _check_output(watch.run(copy_of(x)), len(parts(x)[0]), item, way).to(real)
        with watch:
            mean = way.loss(logits.clone(), _targets(item, len(parts(x)[0])).to(place))
        torch.autograd.backward(_check_loss(mean, logits, way.loss))
        return logits.detach()

    by_item = True
    with seeded(0):
        if not way.user_code:
            logits = train(each(lambda one: one.to("meta"), made_up(item, BATCH, torch.Generator())[0]))
        else:
            before = python_state()
            for parameter in copy.parameters():
                if parameter.dim() == 4:
                    parameter.data = parameter.data.contiguous(memory_format=layout)
            first, second = (copy_of(x, layout) for x in _batches(item))
            logits = train(first)
            try:
                train(second)
            except UsageError:
                raise
            except Exception:
                pass
            copy.eval()
            with watch, computing(dtype, parts(first)[0].device):  # evaluation may take another path
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

    def run(self, x: Inputs) -> object:
        """Call the module; add a note of the layer to its exceptions."""
        self.layers.clear()
        try:
            return call(self.module, x)
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


def _check_output(output: object, batch: int, item: DataSet, way: Way) -> Tensor:
    """Return the outputs (batch, …). Raises UsageError if they cannot be held against the targets."""
    if isinstance(output, Tensor) and is_output(output, batch, item, way.loss):
        return output
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise UsageError(f"the network gives {found} for {batch} inputs; make it {wanted(batch, item)}")


def is_output(output: Tensor, batch: int, item: DataSet, loss: Loss) -> bool:
    """Test whether outputs have the shape that the targets ask for; a user's loss of numbers takes any."""
    if tuple(output.shape[:1]) != (batch,):
        return False
    free = item.classes == 0 and isinstance(loss, UserLoss)
    return free or fits(tuple(output.shape[1:]), item)


def wanted(batch: int, item: DataSet) -> str:
    """Describe the shapes that an output may have.

    >>> wanted(8, DataSet(9, 9, 0, 3, (4,)))
    'logits (8, 3)'
    """
    shapes = " or ".join(str((batch, *shape)) for shape in item.output_shapes)
    return f"{'logits' if item.classes else 'predictions'} {shapes}"


def _targets(item: DataSet, count: int) -> Tensor:
    if item.classes == 0:
        return targets(item, count, torch.Generator())
    numbers = torch.arange(count * math.prod(item.target_shape)) % item.classes
    return numbers.view(count, *item.target_shape)


def _check_loss(mean: object, logits: Tensor, loss: Loss) -> Tensor:
    """Return the mean loss. Raises UsageError if it cannot be minimised."""
    if not isinstance(mean, Tensor) or mean.shape != ():
        found = f"a tensor of shape {tuple(mean.shape)}" if isinstance(mean, Tensor) else type(mean).__name__
        raise UsageError(
            f"{label(loss)}the loss is {found}, not one number for a batch or for every item; return a mean"
        )
    if not logits.requires_grad:
        raise UsageError("it does not depend on any parameter that trains; there is nothing to sweep")
    if not mean.requires_grad:
        raise UsageError(
            f"{label(loss)}the loss does not depend on any parameter, as it does not on the logits; "
            "compute it without detach, item, numpy or no_grad"
        )
    return mean


def _is_by_item(module: nn.Module, x: Inputs, output: object) -> bool:
    """Test whether parts of a batch have the same outputs as in it; exceptions are left to training."""
    try:
        found = [call(module, copy_of(rows(x, part))) for part in (slice(3), slice(3, None))]
        both = torch.cat(found).detach()  # type: ignore[arg-type]
        scale = float(both.nan_to_num(posinf=0, neginf=0).abs().max())
        return torch.allclose(both, output, rtol=0, atol=ALIKE * scale, equal_nan=True)  # type: ignore[arg-type]
    except Exception:
        return True


def _batches(item: DataSet) -> tuple[Inputs, Inputs]:
    """Make inputs that are valid tokens, rows from 1 down to 0, and a batch of any numbers."""
    stream, numbers = torch.Generator().manual_seed(0), max(math.prod(one.shape) for one in item.every_input)
    count = min(max(BATCH, NUMBERS // max(1, numbers)), MOST)
    first, second = (parts(made_up(item, n, stream)[0]) for n in (BATCH, count))
    both = [
        (_tokens(one.shape), torch.randn(count, *one.shape, generator=torch.Generator().manual_seed(k)))
        if one.type == REAL
        else (a, b)
        for k, (one, a, b) in enumerate(zip(item.every_input, first, second, strict=True))
    ]
    return joined(tuple(a for a, _ in both)), joined(tuple(b for _, b in both))


def _tokens(shape: tuple[int, ...]) -> Tensor:
    rows = torch.outer(torch.linspace(1, 0.6, BATCH), torch.linspace(1.9, 0, math.prod(shape)))
    return rows.reshape(BATCH, *shape)


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
