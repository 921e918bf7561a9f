"""Networks that do and do not look at the values that they are given."""

from __future__ import annotations

from torch import Tensor, nn


class Plain(nn.Module):
    """Two convolutions and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x).relu().mean(dim=(2, 3))
        logits: Tensor = self.head(h)
        return logits


class Looking(Plain):
    """Which tensors without values do not allow."""

    def forward(self, x: Tensor) -> Tensor:
        assert float(x.sum()) < 1e9
        return super().forward(x)


class Breaking(Plain):
    """Right for as many images as are tried when it is built, for no others."""

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) == 8
        return super().forward(x)
