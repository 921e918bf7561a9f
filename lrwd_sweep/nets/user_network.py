"""User networks: made by the user's factory, and refused in one line if they cannot train."""

import io
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import count
from traceback import walk_tb
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lrwd_sweep.errors import LrwdError, UsageError, arg
from lrwd_sweep.nets.dry_run import is_output, wanted
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Loss, Way, call, made_up
from lrwd_sweep.nets.randomness import replace_dropout
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import FLOAT32, REAL, DataSet


def build(name: str, item: DataSet, options: str, way: Way) -> ModuleNetwork:
    """Build the network of the factory `name`. Raises UsageError for any exception of it."""
    code = user_code.find("net", name)
    offered = {"num_classes": item.outputs, "num_outputs": item.outputs, "input_shape": item.shape}
    if tokens := [one.most + 1 for one in item.every_input if one.type not in (REAL, "bool")]:
        offered["num_tokens"] = max(tokens)
    arguments = code.arguments(offered, json.loads(options or "{}"))
    factory = partial(_make, code, arguments, item, way.loss, count())
    try:
        made = ModuleNetwork(factory, item, way)
    except LrwdError as error:
        prefix = "" if error.begins_with_argument else f"{arg('net', name)}: "
        raise UsageError(prefix + error.text) from error
    except Exception as error:
        sizes = " and ".join("×".join(map(str, one.shape)) or "one number" for one in item.every_input)
        raise UsageError(f"{arg('net', name)} does not take inputs of {sizes}: {code.told(error)}") from error
    if way.precision != FLOAT32:
        try:
            made.check_precision()
        except Exception as error:
            told = f"{code.told(error)}; choose {arg('precision', FLOAT32)}"
            raise UsageError(f"{arg('net', name)} cannot compute in {way.precision}: {told}") from error
    return made


def blamed(name: str, error: BaseException) -> UsageError | None:
    """Make the error for an exception in training, if the user's network `name` raised it; else None."""
    if not user_code.is_user_code(name) or not isinstance(error, Exception) or isinstance(error, LrwdError):
        return None
    if not any(frame.f_code.co_name == "_call_impl" for frame, _ in walk_tb(error.__traceback__)):
        return None  # not in torch.nn.Module
    return UsageError(f"{arg('net', name)} raised in training: {user_code.find('net', name).told(error)}")


def _make(
    code: user_code.UserCode, arguments: Mapping[str, Any], item: DataSet, loss: Loss, calls: Iterator[int]
) -> nn.Module:
    """Make the module, prepared for a lane."""
    if isinstance(code.thing, nn.Module):
        raise UsageError("it is a network instance, the same for every seed; name its class or a factory")
    with redirect_stdout(io.StringIO() if next(calls) else sys.stderr):  # print once
        module = code(**arguments)
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise UsageError(f"it returns {type(module).__name__}; return a torch.nn.Module")
    module = module.cpu()
    replace_dropout(module)
    module.register_forward_hook(partial(_output, item, loss), with_kwargs=True)
    if names := tuple(one.name for one in item.inputs if one.name):
        module.register_forward_pre_hook(partial(_by_name, names), with_kwargs=True)
    if any(map(is_lazy, module.parameters())):
        with torch.no_grad():
            call(module.eval(), made_up(item, 2, torch.Generator())[0])
    for parameter, value in module.named_parameters():
        if not value.is_floating_point():
            raise UsageError(f"its parameter {parameter} is {_type(value)}; make it real")
    return module


def _by_name(
    names: tuple[str, ...], module: nn.Module, inputs: tuple[Tensor, ...], _: Any
) -> tuple[Any, dict[str, Tensor]]:
    """Pass inputs by name: a hook before forward."""
    return (), dict(zip(names, inputs, strict=True))


def _output(
    item: DataSet,
    loss: Loss,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    named: dict[str, Tensor],
    output: Any,
) -> Tensor:
    """Pick the output, `logits` of a dict or an object, or the first that fits: a hook after forward."""
    batch = len(next(iter((*inputs, *named.values()))))
    if isinstance(output, Tensor):
        found = [output]
    elif isinstance(output, Mapping):
        found = [output["logits"]] if "logits" in output else list(output.values())
    elif hasattr(output, "logits"):
        found = [output.logits]
    elif is_dataclass(output):
        found = [getattr(output, one.name) for one in fields(output)]
    else:
        found = list(output) if isinstance(output, tuple | list) else [output]
    for value in found:
        if isinstance(value, Tensor) and is_output(value, batch, item, loss):
            return value
    raise UsageError(
        f"{type(module).__name__} gives {', '.join(map(_type, found))} for {batch} inputs; return "
        f"{wanted(batch, item)}, as the only output, the first of their shape, or by the name logits"
    )


def _type(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
