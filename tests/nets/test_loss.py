"""Only losses that are means over items may be scored in batches; losses with state are refused."""

from __future__ import annotations

import random

import torch
from torch import nn

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.loss import is_mean_over_items, refuse_state
from tests.nets.losses import MEANS, OTHERS, STATEFUL


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
    for name, loss in (MEANS | OTHERS | STATEFUL).items():
        try:
            refuse_state(loss, "./a.py:f", 10)
        except UsageError as error:
            found = str(error)
        else:
            found = ""
        complaint = "loss='./a.py:f' gives another value when the same batch comes again"
        assert found.startswith(complaint) if name in ("annealed", "remembering") else not found, name
