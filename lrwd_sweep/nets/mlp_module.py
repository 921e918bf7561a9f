"""Mlp as an ordinary module, one network at a time: what vmap and loop train, and what takes any loss."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lrwd_sweep.nets.mlp import LOGIT_SCALE, Mlp
from lrwd_sweep.nets.module_network import ModuleNetwork, Way


class MlpModule(nn.Module):
    """`net` with its parameters' names, shapes and order; their values are drawn elsewhere."""

    bias: nn.Parameter

    def __init__(self, net: Mlp) -> None:
        super().__init__()
        for name, shape in net.shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.weights = [name for name in net.shapes if name.startswith("weight")]
        normed = net.widths[1:] if net.norm_logits else net.widths[1:-1]
        self.norms = nn.ModuleList(nn.BatchNorm1d(width, affine=False) for width in normed)
        self.scale = LOGIT_SCALE if net.norm_logits else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of x (B, *shape)."""
        *hidden, last = [getattr(self, name) for name in self.weights]
        h = x.flatten(1)
        for weight, norm in zip(hidden, self.norms, strict=False):
            h = torch.relu(norm(h @ weight.t()))
        z = h @ last.t()
        if len(self.norms) > len(hidden):
            z = self.norms[-1](z) * self.scale
        logits: Tensor = z + self.bias
        return logits


class MlpNetwork(ModuleNetwork):
    """Mlp by way of its module, initialised as ever."""

    def __init__(self, net: Mlp, shape: tuple[int, ...], way: Way) -> None:
        super().__init__(partial(MlpModule, net), shape, net.widths[-1], way)
        self.net = net

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Parameters of one network, float64."""
        return self.net.init(generator)
