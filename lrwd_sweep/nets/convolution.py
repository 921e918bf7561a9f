"""The convolution of residual networks: no bias, since a normalisation follows, and He's initialisation."""

from __future__ import annotations

from torch import nn


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """`size`×`size`, same padding, normal weights of variance 2/(size² outputs) (He et al. 2015, eq. 14)."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
