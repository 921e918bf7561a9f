"""VGG with batch normalisation for small images."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, and convolutions before a pooling


class Vgg16(nn.Module):
    """Thirteen 3×3 convolutions, each with batch normalisation and ReLU, and one linear layer.

    Simonyan and Zisserman 2015, configuration D, as networks for images of 32×32 have it: a block
    ends with 2×2 pooling as long as the image is larger than a pixel, and one linear layer
    replaces the three of 4,096 units.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for width, depth in BLOCKS:
            layers: list[nn.Module] = []
            for _ in range(depth):
                convolution = nn.Conv2d(channels, width, 3, padding=1)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                assert convolution.bias is not None
                nn.init.zeros_(convolution.bias)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            self.blocks.append(nn.Sequential(*layers))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.head = nn.Linear(channels, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of x (B, channels, height, width)."""
        for block in self.blocks:
            x = block(x)
            if max(x.shape[2:]) > 1:
                x = self.pool(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {"vgg16-bn": Vgg16}  # by image channels and classes
