"""Losses that users bring: means over items, and some that are none."""

from __future__ import annotations

import itertools
import random

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

ITEMS = "tests.nets.losses"
_calls = itertools.count()

smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
hinge = nn.MultiMarginLoss()
total = nn.CrossEntropyLoss(reduction="sum")


def focal(logits: Tensor, y: Tensor) -> Tensor:
    """(1 − p)² of every item's cross-entropy."""
    each = cross_entropy(logits, y, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).mean()


def squared(logits: Tensor, y: Tensor) -> Tensor:
    """Brier's score."""
    return functional.mse_loss(logits.softmax(1), functional.one_hot(y, logits.shape[1]).to(logits))


def viewing(logits: Tensor, y: Tensor) -> Tensor:
    """Needs contiguous logits."""
    return cross_entropy(logits.view(-1).view(len(y), -1), y)


def weighted(logits: Tensor, y: Tensor) -> Tensor:
    """Of the weights of its items' classes, as torch does it."""
    return cross_entropy(logits, y, weight=torch.linspace(1, 20, logits.shape[1]))


def slightly_weighted(logits: Tensor, y: Tensor) -> Tensor:
    """One class counts one in a hundred more."""
    weight = torch.ones(logits.shape[1])
    weight[-1] = 1.01
    return cross_entropy(logits, y, weight=weight)


def masked(logits: Tensor, y: Tensor) -> Tensor:
    """Leaves a class out."""
    return cross_entropy(logits, y, ignore_index=0)


def confident(logits: Tensor, y: Tensor) -> Tensor:
    """Of the items that it is sure of."""
    each, sure = cross_entropy(logits, y, reduction="none"), logits.softmax(1).amax(1) > 0.7
    return (each * sure).sum() / sure.sum().clamp_min(1)


def hardest(logits: Tensor, y: Tensor) -> Tensor:
    """Of the worse half."""
    return cross_entropy(logits, y, reduction="none").topk((len(y) + 1) // 2).values.mean()


def dice(logits: Tensor, y: Tensor) -> Tensor:
    """1 − F₁, softened."""
    p, one_hot = logits.softmax(1), functional.one_hot(y, logits.shape[1])
    shares = 2 * (p * one_hot).sum(0) / (p.sum(0) + one_hot.sum(0) + 1e-6)
    found: Tensor = 1 - shares.mean()
    return found


def ranking(logits: Tensor, y: Tensor) -> Tensor:
    """Pairs of items."""
    own = logits.gather(1, y.unsqueeze(1))
    return functional.softplus(own - own.t()).mean() + cross_entropy(logits, y)


def by_a_batch_of_64(logits: Tensor, y: Tensor) -> Tensor:
    """A sum over what batches have."""
    found: Tensor = total(logits, y) / 64
    return found


def annealed(logits: Tensor, y: Tensor) -> Tensor:
    """Another one at every call."""
    return cross_entropy(logits, y) * (1 + 0.1 * next(_calls))


def drawing(logits: Tensor, y: Tensor) -> Tensor:
    """Some of the items, at random."""
    return cross_entropy(logits, y, reduction="none")[[random.randrange(len(y)) for _ in range(4)]].mean()


def all_classes(logits: Tensor, y: Tensor) -> Tensor:
    """Raises where the last class is missing."""
    return squared(logits[:, : int(y.max()) + 1] + 0 * logits, y)


def not_a_number(logits: Tensor, y: Tensor) -> Tensor:
    """NaN."""
    return cross_entropy(logits, y) * torch.nan


def weighted_in_large_batches(logits: Tensor, y: Tensor) -> Tensor:
    """A mean over items in batches of up to 200 items only."""
    return weighted(logits, y) if len(y) > 200 else cross_entropy(logits, y)


class Remembering:
    """Pulls logits to their average so far."""

    def __init__(self) -> None:
        self.average = torch.zeros(())

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Another value where other batches came in between."""
        self.average = 0.9 * self.average + 0.1 * logits.detach().mean()
        return cross_entropy(logits, y) + (logits.mean() - self.average) ** 2


remembering = Remembering()


def binary(logits: Tensor, y: Tensor) -> Tensor:
    """One class against all others, with targets that are float32 whatever the logits are."""
    return functional.binary_cross_entropy_with_logits(logits, functional.one_hot(y, logits.shape[1]).float())


def counting(logits: Tensor, y: Tensor) -> Tensor:
    """Counts its calls, which changes nothing."""
    next(_calls)
    return cross_entropy(logits, y)
