"""A network for retrieval: ℓ2-normalised embeddings, and a learned proxy for each class."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Way
from lrwd_sweep.spec.catalog import CLASS, DataSet
from lrwd_sweep.spec.net_options import complete_options

linear = partial(nn.Linear, bias=False)  # a bias would not be scale-invariant


def build(item: DataSet, options: str, way: Way) -> ModuleNetwork:
    """Build the network for items with one class. Raises UsageError for others."""
    if item.target != CLASS:
        raise UsageError(
            f"{arg('net', 'embed-norm')} takes one class per item, not {item.target} targets; choose "
            f"{arg('net', 'mlp-norm')}"
        )
    found = complete_options("embed-norm", options)
    make = partial(EmbedNorm, math.prod(item.shape), item.classes, **found)
    return ModuleNetwork(make, item.shape, item.classes, way, item)


class EmbedNorm(nn.Module):
    """A perceptron with the embedding e = Wh/‖Wh‖ and the logits s·cos(e, pₖ), a proxy pₖ for each class.

    Its hidden layers are those of `Mlp`: batch normalisation without affine parameters, then ReLU. So every
    matrix is scale-invariant, the last two by their ℓ2 normalisation, as in the retrieval of Heo et al. 2021.
    Cross-entropy of such logits is the normalised softmax (Zhai and Wu 2019). In evaluation the embedding
    stands behind the logits.
    """

    def __init__(self, inputs: int, classes: int, *, width: int, embedding: int, scale: int) -> None:
        super().__init__()
        self.hidden1, self.hidden2 = linear(inputs, width), linear(width, width)
        self.norm1, self.norm2 = (nn.BatchNorm1d(width, affine=False) for _ in range(2))
        self.last, self.proxies = linear(width, embedding), linear(embedding, classes)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:  # (B, *shape)
        """Return logits (B, classes) in training, and (B, classes + embedding) in evaluation."""
        h = torch.relu(self.norm1(self.hidden1(x.flatten(1))))
        h = torch.relu(self.norm2(self.hidden2(h)))
        e = normalize(self.last(h), dim=1)
        logits: Tensor = self.scale * (e @ normalize(self.proxies.weight, dim=1).t())
        return logits if self.training else torch.cat([logits, e.to(logits.dtype)], dim=1)
