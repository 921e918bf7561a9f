"""Residual networks for small images (He et al. 2015, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.nets.convolution import convolution

WIDTHS = (16, 32, 64)  # channels of the three stages


class Block(nn.Module):
    """relu(x + F(x)), F two 3×3 convolutions; where the width grows, x is subsampled and padded with zeros.

    That shortcut is the paper's option A, which has no parameters.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = convolution(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride)."""
        h = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        if self.more:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return torch.relu(h + x)


class ResNet(nn.Module):
    """Depth 6n + 2: a convolution, three stages of n blocks, mean over the image, a linear layer."""

    def __init__(self, channels: int, classes: int, depth: int) -> None:
        super().__init__()
        self.stem, self.norm = convolution(channels, WIDTHS[0]), nn.BatchNorm2d(WIDTHS[0])
        blocks, inputs = [], WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for k in range((depth - 2) // 6):
                blocks.append(Block(inputs, width, stride=2 if stage and k == 0 else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of x (B, channels, height, width)."""
        h = self.blocks(torch.relu(self.norm(self.stem(x))))
        logits: Tensor = self.head(h.mean(dim=(2, 3)))
        return logits
