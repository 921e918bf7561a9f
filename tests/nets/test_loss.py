"""Only losses that are means over items may be scored in batches; losses with state are refused."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot, softplus

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.loss import is_mean_over_items, refuse_state

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


class Remembering:
    """A loss that pulls logits to their average so far."""

    average = torch.zeros(())

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        self.average = 0.9 * self.average + 0.1 * logits.detach().mean()
        return cross_entropy(logits, y) + (logits.mean() - self.average) ** 2


MEANS: dict[str, Callable[[Any, Any], Any]] = {
    "cross-entropy": cross_entropy,
    "smooth": nn.CrossEntropyLoss(label_smoothing=0.1),
    "hinge": nn.MultiMarginLoss(),
    "focal": lambda logits, y: ((1 - (-_each(logits, y)).exp()) ** 2 * _each(logits, y)).mean(),
    "squared": squared,
    "needs contiguous logits": lambda logits, y: cross_entropy(logits.view(-1).view(len(y), -1), y),
}
OTHERS: dict[str, Callable[[Any, Any], Any]] = {
    "total": nn.CrossEntropyLoss(reduction="sum"),
    "weighted": weighted,
    "slightly weighted": lambda logits, y: weighted(logits, y, 1, 1.01),
    "masked": lambda logits, y: cross_entropy(logits, y, ignore_index=0),
    "confident": confident,
    "hardest half": lambda logits, y: _each(logits, y).topk((len(y) + 1) // 2).values.mean(),
    "dice": dice,
    "ranking": ranking,
    "sum of a batch of 64": lambda logits, y: cross_entropy(logits, y, reduction="sum") / 64,
    "annealed": lambda logits, y: cross_entropy(logits, y) * (1 + 0.1 * next(_calls)),
    "drawing": lambda logits, y: _each(logits, y)[[random.randrange(len(y)) for _ in range(4)]].mean(),
    "needs all classes": lambda logits, y: squared(logits[:, : int(y.max()) + 1] + 0 * logits, y),
    "NaN": lambda logits, y: cross_entropy(logits, y) * torch.nan,
    "weighted if large": lambda x, y: weighted(x, y) if len(y) > 200 else cross_entropy(x, y),
}
LOSSES = SimpleNamespace(  # with float32 targets whatever the logits are
    binary=lambda logits, y: nn.functional.binary_cross_entropy_with_logits(
        logits, one_hot(y, logits.shape[1]).float()
    )
)


def test_only_means_over_items_are_recognised() -> None:
    for classes in (2, 3, 10, 100, 1000):
        for name, loss in MEANS.items():
            assert is_mean_over_items(loss, classes), (name, classes)
    for classes in (2, 10, 100):
        for name, loss in OTHERS.items():
            assert not is_mean_over_items(loss, classes), (name, classes)
    weight = torch.ones(2000)
    assert is_mean_over_items(nn.CrossEntropyLoss(weight=weight), 2000)
    weight[777] = 2
    assert not is_mean_over_items(nn.CrossEntropyLoss(weight=weight), 2000)


def test_trial_restores_global_generators() -> None:
    before = random.getstate(), torch.get_rng_state()
    is_mean_over_items(OTHERS["drawing"], 4)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_only_losses_that_change_between_calls_are_refused() -> None:
    counting: dict[str, Any] = {"counting": lambda x, y: cross_entropy(x, y) + 0 * next(_calls)}
    for name, loss in {**OTHERS, **MEANS, **counting, "remembering": Remembering()}.items():
        try:
            refuse_state(loss, "./a.py:f", 10)
        except UsageError as error:
            found = str(error)
        else:
            found = ""
        complaint = "loss='./a.py:f' gives another value when the same batch comes again"
        assert found.startswith(complaint) if name in ("annealed", "remembering") else not found, name
