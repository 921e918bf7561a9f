"""Shake-Shake-Image residual networks of depth 26 (Gastaldi 2017)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.nets.convolution import convolution
from lrwd_sweep.nets.noise import Noisy, drawn_as

BLOCKS = 4  # of each of the three stages: 1 + 3·4·2 + 1 layers


class _Mix(torch.autograd.Function):
    """α a + (1 − α) b, with the gradient of β a + (1 − β) b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        ctx.save_for_backward(beta)
        return torch.lerp(b, a, alpha)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (beta,) = ctx.saved_tensors
        of_a = beta * g
        return of_a, g - of_a, None, None


class Shake(Noisy):
    """The mean of two branches; in training a random one of its own for every image.

    α and β are uniform on (0, 1), α for the forward pass, an independent β for the backward pass.
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """One tensor of a's and b's shape (B, C, H, W)."""
        if not self.training:
            return (a + b) / 2
        shape = (2, a.shape[0], 1, 1, 1)
        drawn = torch.rand(shape, generator=self.noise, dtype=drawn_as(a), device=a.device)
        alpha, beta = drawn.to(a.dtype)
        mixed: Tensor = _Mix.apply(a, b, alpha, beta)
        return mixed


class Shortcut(nn.Module):
    """Every second pixel and the pixels beside them, each through a 1×1 convolution to half of the channels.

    The second path sees the image moved right and down by one pixel before it is subsampled.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.straight = convolution(inputs, outputs // 2, size=1, stride=stride)
        self.moved = convolution(inputs, outputs // 2, size=1, stride=stride)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, h: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride)."""
        paths = [self.straight(h), self.moved(functional.pad(h, (1, -1, 1, -1)))]
        out: Tensor = self.norm(torch.cat(paths, dim=1))
        return out


def _branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        convolution(inputs, outputs, stride=stride),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        convolution(outputs, outputs),
        nn.BatchNorm2d(outputs),
    )


class Block(nn.Module):
    """x + shake(F₁(h), F₂(h)), h = relu(x); where the width grows, a Shortcut of h takes the place of x."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _branch(inputs, outputs, stride), _branch(inputs, outputs, stride)
        self.shake = Shake()
        self.shortcut = None if inputs == outputs else Shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H/stride, W/stride)."""
        h = torch.relu(x)
        past = x if self.shortcut is None else self.shortcut(h)
        out: Tensor = past + self.shake(self.first(h), self.second(h))
        return out


class ShakeShake(nn.Module):
    """26 2×`width`d: a convolution to 16 channels, then stages with `width`, 2·`width` and 4·`width`."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.stem, self.norm = convolution(channels, 16), nn.BatchNorm2d(16)
        blocks, inputs = [], 16
        for stage, outputs in enumerate((width, 2 * width, 4 * width)):
            for place in range(BLOCKS):
                blocks.append(Block(inputs, outputs, stride=2 if stage and place == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of x (B, channels, height, width)."""
        h = torch.relu(self.blocks(self.norm(self.stem(x))))
        logits: Tensor = self.head(h.mean(dim=(2, 3)))
        return logits
