"""User networks: one that any engine trains, one that needs values, one that refuses some batches."""

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


class LookingAtValues(Plain):
    """A network that tensors without values cannot pass."""

    def forward(self, x: Tensor) -> Tensor:
        assert float(x.sum()) < 1e9
        return super().forward(x)


class OfWholeBatches(nn.Module):
    """A network that takes no small batch in training, and no sentence without a word."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        assert (x.flatten(1).long() > 0).any(1).all()
        assert len(x) != 2 or not self.training
        logits: Tensor = self.layer(x.flatten(1))
        return logits
