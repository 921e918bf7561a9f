"""User losses, importable by name: means over items, others, and two with state."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss, one_hot, softplus

ITEMS = "tests.nets.losses"
_calls = itertools.count()


def _each(logits: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(logits, y, reduction="none")


def squared(logits: Tensor, y: Tensor) -> Tensor:
    return mse_loss(logits.softmax(1), one_hot(y, logits.shape[1]).to(logits))


def weighted(logits: Tensor, y: Tensor, first: float = 1, others: float = 20) -> Tensor:
    return cross_entropy(logits, y, weight=torch.linspace(first, others, logits.shape[1]))


def confident(logits: Tensor, y: Tensor) -> Tensor:
    sure = logits.softmax(1).amax(1) > 0.7
    return (_each(logits, y) * sure).sum() / sure.sum().clamp_min(1)


def dice(logits: Tensor, y: Tensor) -> Tensor:
    p, truth = logits.softmax(1), one_hot(y, logits.shape[1])
    return 1 - (2 * (p * truth).sum(0) / (p.sum(0) + truth.sum(0) + 1e-6)).mean()


def ranking(logits: Tensor, y: Tensor) -> Tensor:
    own = logits.gather(1, y.unsqueeze(1))
    return softplus(own - own.t()).mean() + cross_entropy(logits, y)


def binary(logits: Tensor, y: Tensor) -> Tensor:  # with float32 targets whatever the logits are
    return binary_cross_entropy_with_logits(logits, one_hot(y, logits.shape[1]).float())


class Remembering:
    """A loss that pulls logits to their average so far."""

    average = torch.zeros(())

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        self.average = 0.9 * self.average + 0.1 * logits.detach().mean()
        return cross_entropy(logits, y) + (logits.mean() - self.average) ** 2


MEANS: dict[str, Callable[[Any, Any], Any]] = {
    "cross_entropy": cross_entropy,
    "smooth": nn.CrossEntropyLoss(label_smoothing=0.1),
    "hinge": nn.MultiMarginLoss(),
    "focal": lambda logits, y: ((1 - (-_each(logits, y)).exp()) ** 2 * _each(logits, y)).mean(),
    "squared": squared,
    "viewing": lambda logits, y: cross_entropy(logits.view(-1).view(len(y), -1), y),
}
OTHERS: dict[str, Callable[[Any, Any], Any]] = {
    "total": nn.CrossEntropyLoss(reduction="sum"),
    "weighted": weighted,
    "slightly_weighted": lambda logits, y: weighted(logits, y, 1, 1.01),
    "masked": lambda logits, y: cross_entropy(logits, y, ignore_index=0),
    "confident": confident,
    "hardest": lambda logits, y: _each(logits, y).topk((len(y) + 1) // 2).values.mean(),
    "dice": dice,
    "ranking": ranking,
    "by_a_batch_of_64": lambda logits, y: cross_entropy(logits, y, reduction="sum") / 64,
    "annealed": lambda logits, y: cross_entropy(logits, y) * (1 + 0.1 * next(_calls)),
    "drawing": lambda logits, y: _each(logits, y)[[random.randrange(len(y)) for _ in range(4)]].mean(),
    "all_classes": lambda logits, y: squared(logits[:, : int(y.max()) + 1] + 0 * logits, y),
    "not_a_number": lambda logits, y: cross_entropy(logits, y) * torch.nan,
    "weighted_in_large_batches": lambda x, y: weighted(x, y) if len(y) > 200 else cross_entropy(x, y),
}
STATEFUL: dict[str, Callable[[Any, Any], Any]] = {
    "counting": lambda logits, y: cross_entropy(logits, y) + 0 * next(_calls),
    "remembering": Remembering(),
}
globals().update(MEANS | OTHERS | STATEFUL)
