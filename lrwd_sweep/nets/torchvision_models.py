"""Classifiers of torchvision.models, by name."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from lrwd_sweep.errors import UnknownName, UsageError, arg, brief
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Way
from lrwd_sweep.nets.randomness import Dropout, replace_dropout, replace_layers
from lrwd_sweep.spec.catalog import DataSet


def build(name: str, item: DataSet, way: Way) -> ModuleNetwork:
    """Build torchvision.models.`name` for an item's images.

    Raises UnknownName, and UsageError if it does not take such inputs.
    """
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName("classifier of torchvision.models", name, known)
    shape, classes = item.shape, item.outputs
    named, size = arg("net", f"torchvision:{name}"), "×".join(map(str, shape))
    if len(shape) != 3 or shape[0] not in {1, 3}:
        raise UsageError(f"{named} takes images of 1 or 3 channels, not {size}; choose {arg('net', 'mlp')}")
    try:
        return ModuleNetwork(partial(_make, name, shape, classes), shape, classes, way, item)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{named} does not take images of {size} ({brief(error)}); choose larger images or a network for "
            f"small ones, such as {arg('net', 'resnet20')}"
        ) from error


def _make(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    module: nn.Module = models.get_model(name, weights=None, num_classes=classes, **_options(name, shape))
    replace_dropout(module)
    replace_layers(module, StochasticDepth, _depth)
    if shape[0] == 1:
        module.register_forward_pre_hook(_in_colour)
    return module


def _options(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return a constructor's arguments besides the classes."""
    if name in {"googlenet", "inception_v3"}:
        return {"aux_logits": False, "init_weights": True}  # one output; no warning about a new default
    if name.startswith("vit_"):
        return {"image_size": shape[1]}
    if name.startswith("maxvit_"):
        return {"input_size": shape[1:]}
    return {}


def _depth(layer: nn.Module) -> Dropout:
    return Dropout(layer.p, 1 if layer.mode == "row" else 0)  # type: ignore[arg-type]


def _in_colour(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:  # (B, 1, H, W) → (B, 3, H, W)
    return inputs[0].expand(-1, 3, -1, -1)
