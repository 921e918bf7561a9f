"""Roles of a module's parameters: biases, normalisation's gains and shifts, scale-invariant weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList

from lrwd_sweep.nets.batch import Inputs, call, joined, made_up, parts
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.nets.randomness import Noisy
from lrwd_sweep.spec.catalog import REAL, DataSet

BATCH = 8  # of two items, batch normalisation makes ±1: all layers before it would seem invariant
TOLERANCE = 1e-9  # of the cosine; rounding leaves 1e-13, an ordinary layer of 10⁸ weights more than 1e-6

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, *filter(None, [getattr(nn, "RMSNorm", None)]))
_OF_WEIGHTS = (
    *(nn.Linear, nn.Bilinear, _ConvNd, nn.Embedding, nn.EmbeddingBag),
    *(nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention),
)
_LISTS = (nn.ParameterList, nn.ParameterDict)  # entries take the list's name
_BIAS = re.compile(r"(.*bias(es)?|bias_.*)\Z", re.IGNORECASE)
_WEIGHT = re.compile(r"token|embed|pos|quer|prompt|linear|conv|dense|proj", re.IGNORECASE)


def norm_and_bias(module: nn.Module) -> frozenset[str]:
    """Return the names of biases and of normalisation's gains and shifts, whatever their shapes.

    `module` is freshly initialised. A bias has a name like one. A normalisation is one of torch's layers, a
    layer with "norm" in its class's name, or a layer without a matrix whose parameters begin constant, as
    GRN; in a class named so, a matrix counts only if it begins constant and no other matrix does not. The
    gains of weight normalisation count too. The whole network is never taken for a layer.
    """
    return frozenset(_exempt(module))


def _exempt(module: nn.Module) -> Iterator[str]:
    for path, layer in module.named_modules():
        for own, value in layer.named_parameters(recurse=False):
            name = path.rpartition(".")[2] if isinstance(layer, _LISTS) else own
            biased = _BIAS.match(name) or _BIAS.match(own)
            if biased or _is_gain_of_weights(layer, own) or (path and _normalises(layer, name, value)):
                yield f"{path}.{own}" if path else own


def _is_gain_of_weights(layer: nn.Module, name: str) -> bool:
    """Test for g of weight normalisation, W = g·V/‖V‖."""
    return (
        isinstance(layer, ParametrizationList) and name == "original0" and isinstance(layer[0], _WeightNorm)
    )


def _normalises(layer: nn.Module, name: str, value: Tensor) -> bool:
    """Test whether a layer's parameter is the gain or the shift of a normalisation."""
    if isinstance(layer, _NORMS):
        return True
    kinds = [kind.__name__ for kind in type(layer).__mro__]
    if isinstance(layer, _OF_WEIGHTS) or _WEIGHT.search(name) or _WEIGHT.search(kinds[0]):
        return False
    constant = _is_constant(value)
    if any("norm" in kind.lower() for kind in kinds):
        others = (one for one in layer.parameters(recurse=False) if _is_matrix(one) and not _is_constant(one))
        return not _is_matrix(value) or (constant and next(others, None) is None)
    return constant and not any(
        isinstance(part, _OF_WEIGHTS) or any(map(_is_matrix, part.parameters(recurse=False)))
        for part in layer.modules()
    )


def _is_constant(value: Tensor) -> bool:
    return bool((value == value.flatten()[:1]).all())


def _is_matrix(value: Tensor) -> bool:
    return sum(size > 1 for size in value.shape) > 1


def scale_invariant(module: nn.Module, init: Mapping[str, Tensor], item: DataSet) -> tuple[str, ...]:
    """Return the parameters of more than one dimension with f(cθ) = f(θ) in training.

    By Euler's theorem those are the ones with ∇f·θ = 0, where f is a random combination of the logits: one
    backward pass finds all. It runs in float64, at a generic point, with every normalisation's ε almost 0.
    """
    stream = torch.Generator().manual_seed(0)
    with torch.inference_mode(mode=False):
        theta = {name: _nearby(value, stream).unsqueeze(0) for name, value in init.items()}
        grad = {name: torch.zeros_like(value) for name, value in theta.items()}
        (net,) = LoopLanes(module, theta, grad).modules
        for layer in net.modules():
            if hasattr(layer, "eps"):
                layer.eps = 1e-20  # type: ignore[assignment]
            if isinstance(layer, Noisy):
                layer.noise = stream
        logits = call(net, _generic(item, stream))
        assert isinstance(logits, Tensor)
        f = (logits * torch.randn(logits.shape, generator=stream, dtype=torch.float64)).sum()
        torch.autograd.backward(f)
    return tuple(name for name, value in theta.items() if value.dim() > 2 and _orthogonal(grad[name], value))


def _generic(item: DataSet, stream: torch.Generator) -> Inputs:
    """Make a batch of any numbers, and of whole numbers that an item may hold."""
    found = made_up(item, BATCH, torch.Generator().manual_seed(0))[0]
    return joined(
        tuple(
            torch.randn(x.shape, generator=stream, dtype=torch.float64) if one.type == REAL else x
            for one, x in zip(item.every_input, parts(found), strict=True)
        )
    )


def _nearby(value: Tensor, stream: torch.Generator) -> Tensor:
    """Move a value by a tenth, so that layers that begin at zero take part."""
    spread = value.square().mean().sqrt().item() or 1.0
    return value + 0.1 * spread * torch.randn(value.shape, generator=stream, dtype=value.dtype)


def _orthogonal(g: Tensor, theta: Tensor) -> bool:
    size = g.norm() * theta.norm()
    return bool(size > 0 and (g * theta).sum().abs() < TOLERANCE * size)
