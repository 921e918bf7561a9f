"""Networks of a user: one for vectors, with an option, and one for images."""

from blocks import block  # type: ignore[import-not-found]
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, num_classes: int, input_shape: tuple[int, ...], width: int = 8) -> None:
        super().__init__()
        self.body = block(input_shape[0], width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


class ImageNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), block(16, 4), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]
