"""The windows of 3×3 convolutions in columns, so that a convolution of every lane is a product of matrices.

Images are (L, C, H, W, B), the batch last: a window's pixel is then a contiguous row of B numbers, and
copying it costs little beside the product (im2col; Chellapilla et al. 2006).
"""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 3


class Windows:
    """Of images (L, C, H, W, B) with a border of zeros, every `stride` pixels; L may be 1 for all lanes."""

    def __init__(self, images: tuple[int, ...], stride: int, like: Tensor) -> None:
        lanes, channels, height, width, batch = images
        self.images, self.stride = images, stride
        self.size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
        self.padded = like.new_zeros(lanes, channels, height + 2, width + 2, batch)
        self.columns = like.new_empty(lanes, channels, SIDE, SIDE, *self.size, batch)

    def of(self, x: Tensor) -> Tensor:  # (L, C·9, H′·W′·B)
        """The windows of images x, in a buffer that the next call overwrites."""
        self.padded[:, :, 1:-1, 1:-1].copy_(x.view(self.images))
        for (i, j), window in self._shifts(self.padded):
            self.columns[:, :, i, j].copy_(window)
        lanes, channels = self.images[:2]
        return self.columns.view(lanes, channels * SIDE**2, -1)

    def sum(self, columns: Tensor) -> Tensor:  # (L, C·9, H′·W′·B) → (L, C, H, W, B)
        """What every pixel has in all windows together: the gradient behind `of`."""
        columns = columns.view(self.columns.shape)
        padded = torch.zeros_like(self.padded, dtype=columns.dtype)
        for (i, j), window in self._shifts(padded):
            window.add_(columns[:, :, i, j])
        return padded[:, :, 1:-1, 1:-1]

    def _shifts(self, padded: Tensor) -> list[tuple[tuple[int, int], Tensor]]:
        """The pixel (i, j) of every window, (L, C, H′, W′, B) views of padded images."""
        height, width = (self.stride * size for size in self.size)
        return [
            ((i, j), padded[:, :, i : i + height : self.stride, j : j + width : self.stride])
            for i in range(SIDE)
            for j in range(SIDE)
        ]
