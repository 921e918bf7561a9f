"""Which parameters of a network are biases or belong to normalisation, by type and name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

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
    a matrix in a class of that name begins with constants too, or is a weight. A network is no layer.
    """
    return frozenset(_spared(module))


def _spared(module: nn.Module) -> Iterator[str]:
    for path, layer in module.named_modules():
        for own, value in layer.named_parameters(recurse=False):
            name = path.rpartition(".")[2] if isinstance(layer, _LISTS) else own
            if _BIAS.match(name) or (path and _normalises(layer, name, value)):
                yield f"{path}.{own}" if path else own


def _normalises(layer: nn.Module, name: str, value: Tensor) -> bool:
    """Whether a parameter of a layer is its gain or its shift."""
    if isinstance(layer, _NORMS):
        return True
    kinds = [kind.__name__ for kind in type(layer).__mro__]
    if isinstance(layer, _OF_WEIGHTS) or _WEIGHT.search(name) or _WEIGHT.search(kinds[0]):
        return False
    constant = bool((value == value.flatten()[:1]).all())
    if any("norm" in kind.lower() for kind in kinds):
        return constant or not _is_matrix(value)
    return constant and not any(
        isinstance(part, _OF_WEIGHTS) or any(map(_is_matrix, part.parameters(recurse=False)))
        for part in layer.modules()
    )


def _is_matrix(value: Tensor) -> bool:
    """Whether several of its dimensions are longer than 1."""
    return sum(size > 1 for size in value.shape) > 1
