"""Which parameters of a network are biases or belong to normalisation, by type and name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, *filter(None, [getattr(nn, "RMSNorm", None)]))
_OF_WEIGHTS = (
    *(nn.Linear, nn.Bilinear, _ConvNd, nn.Embedding, nn.EmbeddingBag),
    *(nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention),
)
_LISTS = (nn.ParameterList, nn.ParameterDict)  # whose entries are called as they are
_BIAS = re.compile(r"(.*bias(es)?|bias_.*)\Z", re.IGNORECASE)
_WEIGHT = re.compile(r"token|embed|pos|quer|prompt|linear|conv|dense|proj", re.IGNORECASE)


def norm_and_bias(module: nn.Module) -> frozenset[str]:
    """The names of its biases, and of its gains and shifts of normalisation, whatever their shapes.

    `module` is as it was initialised. A bias is called so. What normalises is a layer of torch's that does,
    one with "norm" in its class's name, or one that holds no matrix and begins with constants, such as GRN;
    a matrix in a class of that name begins with constants too, and beside no weight, or is a weight itself.
    The gains of weight normalisation are spared. A network is no layer.
    """
    return frozenset(_spared(module))


def _spared(module: nn.Module) -> Iterator[str]:
    for path, layer in module.named_modules():
        for own, value in layer.named_parameters(recurse=False):
            name = path.rpartition(".")[2] if isinstance(layer, _LISTS) else own
            biased = _BIAS.match(name) or _BIAS.match(own)
            if biased or _is_gain_of_weights(layer, own) or (path and _normalises(layer, name, value)):
                yield f"{path}.{own}" if path else own


def _is_gain_of_weights(layer: nn.Module, name: str) -> bool:
    """Whether it is g of weight normalisation, W = g·V/‖V‖."""
    return (
        isinstance(layer, ParametrizationList) and name == "original0" and isinstance(layer[0], _WeightNorm)
    )


def _normalises(layer: nn.Module, name: str, value: Tensor) -> bool:
    """Whether a parameter of a layer is its gain or its shift."""
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
    """Whether all its numbers are the same."""
    return bool((value == value.flatten()[:1]).all())


def _is_matrix(value: Tensor) -> bool:
    """Whether several of its dimensions are longer than 1."""
    return sum(size > 1 for size in value.shape) > 1
