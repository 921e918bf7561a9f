"""Somebody's own module, tried out before any training: what trains, and what stands in the way of lanes."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lrwd_sweep.errors import UsageError, brief
from lrwd_sweep.nets.loss import Loss
from lrwd_sweep.nets.noise import Noisy
from lrwd_sweep.nets.precision import computing
from lrwd_sweep.nets.probe import BATCH, Watch, check_logits, check_loss, passed
from lrwd_sweep.nets.seeded import python_state, seeded

ALIKE = 1e-3  # of logits' scale: float32 summed in another order is below
MOST, NUMBERS = 256, 1 << 16  # inputs of the second batch, and numbers in it


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of it."""

    trained: frozenset[str]  # the parameters that had a gradient on one batch or the other
    logits: Tensor  # (BATCH, classes), of the first batch
    by_item: bool  # in evaluation an item's logits do not depend on the others of its batch


def try_out(
    module: nn.Module,
    shape: tuple[int, ...],
    classes: int,
    loss: Loss,
    layout: torch.memory_format = torch.contiguous_format,  # of images, and of the weights of convolutions
    dtype: torch.dtype = torch.float32,  # what products are computed in
) -> Tried:
    """Two training passes over made-up inputs of `shape` and one of evaluation, by a copy on the CPU.

    Raises UsageError, and whatever the module raises on the first batch, with a note of the layer; the second
    has values that it need not know.
    """
    mine = _copy(module)
    for parameter in mine.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    watch = Watch(loss)
    watch.follow(mine)
    for layer in mine.modules():
        if isinstance(layer, Noisy):
            layer.noise = torch.Generator()

    def train(x: Tensor) -> Tensor:
        watch.layers.clear()
        with watch, computing(dtype, x.device):
            logits = check_logits(passed(mine, x.clone(), watch), len(x), classes).to(x.dtype)
        with watch:
            mean = loss(logits.clone(), torch.arange(len(x)) % classes)
        torch.autograd.backward(check_loss(mean, logits, loss))
        return logits.detach()

    with seeded(0):
        before = python_state()
        first, second = (x.to(memory_format=layout) for x in _batches(shape))
        logits = train(first)
        try:
            train(second)
        except UsageError:
            raise
        except Exception:
            pass
        watch.layers.clear()
        with watch, computing(dtype, first.device):
            evaluated = passed(mine.eval(), first, watch)  # which may go another way
            by_item = _is_by_item(mine, first, evaluated)
        if python_state() != before:
            raise UsageError(
                "it draws random numbers from the global generator of numpy or random, which lanes cannot "
                "share; let __init__ make a generator of its own, such as numpy.random.default_rng()"
            )
    _check_closures(module)
    trained = frozenset(name for name, one in mine.named_parameters() if one.grad is not None)
    return Tried(trained, logits, by_item)


def _is_by_item(module: nn.Module, x: Tensor, logits: object) -> bool:
    """Whether parts of a batch have the logits that they have in it; what they do not take is told later."""
    try:
        parts = torch.cat([module(part.clone()) for part in (x[:3], x[3:])]).detach()
        scale = float(parts.nan_to_num(posinf=0, neginf=0).abs().max())
        return torch.allclose(parts, logits, rtol=0, atol=ALIKE * scale, equal_nan=True)  # type: ignore[arg-type]
    except Exception:
        return True


def _batches(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Inputs that are tokens too, rows of 1 filled up with 0; and any numbers, of as many as is quick."""
    size = math.prod(shape)
    tokens = torch.outer(torch.linspace(1, 0.6, BATCH), torch.linspace(1.9, 0, size))
    count = min(max(BATCH, NUMBERS // size), MOST)
    numbers = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
    return tokens.reshape(BATCH, *shape), numbers


def _copy(module: nn.Module) -> nn.Module:
    """The module in training. Raises UsageError where no lane could have one of its own."""
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise UsageError(f"its layer {name} is a ScriptModule, which lanes cannot copy; do not script it")
    for name, parameter in module.named_parameters():
        parameter.grad = None
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise UsageError(
                f"its parameter {name} has a hook, which the lanes' parameters have not; let forward "
                "register it on a tensor made of the parameter, such as 1 * parameter"
            )
    return copied(module, {}).train()


def copied(module: nn.Module, instead: dict[int, object]) -> nn.Module:
    """A copy, with other tensors `instead` of those of these ids. Raises UsageError where it has none."""
    try:
        return deepcopy(module, instead)
    except Exception as error:
        raise UsageError(
            f"it cannot be copied, and every lane needs a copy ({brief(error)}); use "
            "torch.nn.utils.parametrizations in the place of weight_norm and prune, and keep locks, files "
            "and what forward computes out of it"
        ) from error


def _check_closures(module: nn.Module) -> None:
    """Raise UsageError where the passes of a copy had gradients for the module itself."""
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            raise UsageError(
                f"its parameter {name} is used by a lambda or function that __init__ makes, which goes on "
                "using it in every copy of the network; write a method that finds it in self"
            )
