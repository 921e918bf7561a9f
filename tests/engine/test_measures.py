"""The measures of a split."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lrwd_sweep.engine.metrics import losses_of, means


def _strict(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy, of numbers alone."""
    if not logits.isfinite().all() or not len(y):
        raise ValueError("no numbers")
    return functional.cross_entropy(logits.sub_(1), y.add_(1))


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_without_a_finite_loss_there_are_no_measures(loss: float) -> None:
    found = means(torch.tensor([[loss, 6.0], [3.0, 2.0], [1.0, 0.0]]), 4)
    assert found[:, 0].isnan().all()
    assert found[:, 1].tolist() == [1.5, 0.5, 0.0]


def test_a_loss_of_ones_own_changes_nothing_and_raises_for_no_lane_that_has_diverged() -> None:
    logits, y = torch.arange(24.0).view(2, 3, 4).sin(), torch.tensor([0, 1, 1, 0])
    expected = losses_of(functional.cross_entropy, logits, y + 1)
    assert losses_of(_strict, logits, y).tolist() == pytest.approx(expected.tolist())
    assert y.tolist() == [0, 1, 1, 0]
    assert torch.equal(logits, torch.arange(24.0).view(2, 3, 4).sin())
    logits[0, 0, 0] = math.inf
    found = losses_of(_strict, logits, y)
    assert found[0].isnan()
    assert found[1] == pytest.approx(expected[1].item())
    with pytest.raises(ValueError, match="no numbers"):
        losses_of(_strict, logits[1:, :, :0], y[:0])
