"""Which losses are means over items: only those may be scored in batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.loss import is_mean_over_items, refuse_state
from tests.nets import losses

Loss = Callable[[Tensor, Tensor], Tensor]


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
@pytest.mark.parametrize(
    "loss",
    [functional.cross_entropy, losses.smooth, losses.hinge, losses.focal, losses.squared, losses.viewing],
)
def test_means_over_items_are_told(loss: Loss, classes: int) -> None:
    assert is_mean_over_items(loss, classes)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize(
    "loss",
    [
        losses.total,
        losses.weighted,
        losses.slightly_weighted,
        losses.masked,
        losses.confident,
        losses.hardest,
        losses.dice,
        losses.ranking,
        losses.by_a_batch_of_64,
        losses.annealed,
        losses.drawing,
        losses.all_classes,
        losses.not_a_number,
        losses.weighted_in_large_batches,
    ],
)
def test_all_others_are_told_too(loss: Loss, classes: int) -> None:
    assert not is_mean_over_items(loss, classes)


def test_a_weight_of_one_class_in_thousands_is_seen() -> None:
    weight = torch.ones(2000)
    weight[777] = 2
    assert not is_mean_over_items(torch.nn.CrossEntropyLoss(weight=weight), 2000)
    assert is_mean_over_items(torch.nn.CrossEntropyLoss(weight=torch.ones(2000)), 2000)


def test_the_trial_leaves_global_generators_as_they_were() -> None:
    before = torch.get_rng_state()
    is_mean_over_items(losses.drawing, 4)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("loss", [losses.annealed, losses.remembering])
def test_a_loss_that_changes_from_call_to_call_is_refused(loss: Loss) -> None:
    with pytest.raises(UsageError, match=r"--loss \./a\.py:f gives another value when the same batch comes"):
        refuse_state(loss, "./a.py:f", 10)


@pytest.mark.parametrize("loss", [losses.weighted, losses.counting, losses.not_a_number, losses.all_classes])
def test_a_loss_that_gives_the_same_again_is_not_refused(loss: Loss) -> None:
    refuse_state(loss, "./a.py:f", 10)
