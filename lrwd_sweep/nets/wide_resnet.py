"""Wide residual networks (Zagoruyko and Komodakis 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrwd_sweep.nets.convolution import convolution


class Block(nn.Module):
    """x + F(x), normalisation and ReLU in front of each of F's two 3×3 convolutions.

    Where the width grows, a 1×1 convolution of the normalised input takes the place of x.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), convolution(inputs, outputs, stride=stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), convolution(outputs, outputs)
        self.shortcut = None if inputs == outputs else convolution(inputs, outputs, size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride)."""
        h = torch.relu(self.norm1(x))
        if self.shortcut is not None:
            x = self.shortcut(h)
        out: Tensor = x + self.conv2(torch.relu(self.norm2(self.conv1(h))))
        return out


class WideResNet(nn.Module):
    """WRN-d-k, d = 6n + 4: a convolution, three stages of n blocks with 16k, 32k and 64k channels."""

    def __init__(self, channels: int, classes: int, depth: int, k: int) -> None:
        super().__init__()
        self.stem = convolution(channels, 16)
        blocks, inputs = [], 16
        for stage, width in enumerate((16 * k, 32 * k, 64 * k)):
            for place in range((depth - 4) // 6):
                blocks.append(Block(inputs, width, stride=2 if stage and place == 0 else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, classes)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of x (B, channels, height, width)."""
        h = torch.relu(self.norm(self.blocks(self.stem(x))))
        logits: Tensor = self.head(h.mean(dim=(2, 3)))
        return logits
