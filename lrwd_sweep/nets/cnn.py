"""A small convolutional network with batch normalisation behind every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrwd_sweep.nets.mlp import LOGIT_SCALE

LAYERS = ((16, 1), (32, 2), (32, 2))  # channels and stride of every 3×3 convolution


class Cnn(nn.Module):
    """Convolutions with batch normalisation (no affine parameters) and ReLU, mean over the image, a matrix.

    With `norm_logits` the logits are normalised too, as in Mlp: every weight is then scale-invariant.
    """

    def __init__(self, channels: int, classes: int, norm_logits: bool) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for width, stride in LAYERS:
            body += [
                nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width, affine=False),
                nn.ReLU(),
            ]
            channels = width
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(channels, classes, bias=False)
        self.norm = nn.BatchNorm1d(classes, affine=False) if norm_logits else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(classes))
        self.scale = LOGIT_SCALE if norm_logits else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of x (B, channels, height, width)."""
        h = self.body(x).mean(dim=(2, 3))
        logits: Tensor = self.norm(self.head(h)) * self.scale + self.bias
        return logits
