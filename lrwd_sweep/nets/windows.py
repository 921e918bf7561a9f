"""The windows of 3×3 convolutions in columns, so that a convolution of every lane is a product of matrices.

Images are (L, C, H, W, B), the batch last: a window's pixel is then a contiguous row of B numbers, and
copying it costs little beside the product (im2col; Chellapilla et al. 2006).
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

SIDE = 3


class Windows:
    """Of images (L, C, H, W, B) with a border of zeros, every `stride` pixels; L may be 1 for all lanes.

    What is returned lies in buffers that the next call of the same method overwrites: memory that was used
    before is in the cache.
    """

    def __init__(self, images: tuple[int, ...], stride: int, like: Tensor) -> None:
        lanes, channels, height, width, batch = images
        self.images, self.stride = images, stride
        self.size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
        self.padded = like.new_zeros(lanes, channels, height + 2, width + 2, batch)
        self.columns = like.new_empty(lanes, channels, SIDE, SIDE, *self.size, batch)

    def of(self, x: Tensor) -> Tensor:  # (L, C·9, H′·W′·B)
        """The windows of images x."""
        self.padded[:, :, 1:-1, 1:-1].copy_(x.view(self.images))
        for (i, j), window in self._shifts(self.padded):
            self.columns[:, :, i, j].copy_(window)
        return self._as_matrices(self.columns)

    @cached_property
    def gradient(self) -> Tensor:  # (L, C·9, H′·W′·B)
        """Room for a gradient of the windows, which `sum` takes from there."""
        return self._as_matrices(torch.empty_like(self.columns))

    def sum(self) -> Tensor:  # (L, C, H·W·B)
        """What every pixel has in all windows of `gradient` together, rounded to no less than float32."""
        columns = self.gradient.view(self.columns.shape)
        self._summed.zero_()
        for (i, j), window in self._shifts(self._summed):
            window.add_(columns[:, :, i, j])
        return self._summed[:, :, 1:-1, 1:-1].flatten(2)

    @cached_property
    def _summed(self) -> Tensor:
        exact = torch.promote_types(self.padded.dtype, torch.float32)
        return torch.empty_like(self.padded, dtype=exact)

    def _as_matrices(self, columns: Tensor) -> Tensor:
        lanes, channels = self.images[:2]
        return columns.view(lanes, channels * SIDE**2, -1)

    def _shifts(self, padded: Tensor) -> list[tuple[tuple[int, int], Tensor]]:
        """The pixel (i, j) of every window, (L, C, H′, W′, B) views of padded images."""
        height, width = (self.stride * size for size in self.size)
        return [
            ((i, j), padded[:, :, i : i + height : self.stride, j : j + width : self.stride])
            for i in range(SIDE)
            for j in range(SIDE)
        ]
