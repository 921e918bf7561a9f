"""Only losses that are means over items may be scored in batches; losses with state are refused."""

from __future__ import annotations

import torch
from torch.nn import functional

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.loss import is_mean_over_items, refuse_state
from tests.nets import losses

MEANS = (functional.cross_entropy, losses.smooth, losses.hinge, losses.focal, losses.squared, losses.viewing)
OTHERS = (
    *(losses.total, losses.weighted, losses.slightly_weighted, losses.masked, losses.confident),
    *(losses.hardest, losses.dice, losses.ranking, losses.by_a_batch_of_64, losses.annealed, losses.drawing),
    *(losses.all_classes, losses.not_a_number, losses.weighted_in_large_batches),
)


def test_means_over_items_are_recognised() -> None:
    for classes in (2, 3, 10, 100, 1000):
        for loss in MEANS:
            assert is_mean_over_items(loss, classes), (loss, classes)


def test_other_losses_are_not_taken_for_means() -> None:
    for classes in (2, 10, 100):
        for loss in OTHERS:
            assert not is_mean_over_items(loss, classes), (loss, classes)


def test_weight_of_one_class_in_thousands_is_noticed() -> None:
    weight = torch.ones(2000)
    weight[777] = 2
    assert not is_mean_over_items(torch.nn.CrossEntropyLoss(weight=weight), 2000)
    assert is_mean_over_items(torch.nn.CrossEntropyLoss(weight=torch.ones(2000)), 2000)


def test_trial_restores_global_generators() -> None:
    before = torch.get_rng_state()
    is_mean_over_items(losses.drawing, 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_only_losses_that_change_between_calls_are_refused() -> None:
    refused = {}
    for name in ("annealed", "remembering", "weighted", "counting", "not_a_number", "all_classes"):
        try:
            refuse_state(getattr(losses, name), "./a.py:f", 10)
        except UsageError as error:
            refused[name] = str(error)
    complaint = "loss='./a.py:f' gives another value when the same batch comes again"
    assert {name: text[: len(complaint)] for name, text in refused.items()} == {
        "annealed": complaint,
        "remembering": complaint,
    }
