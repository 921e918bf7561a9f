"""The measures of a split."""

from __future__ import annotations

import math

import pytest
import torch

from lrwd_sweep.engine.measures import means


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_without_a_finite_loss_there_are_no_measures(loss: float) -> None:
    found = means(torch.tensor([[loss, 6.0], [3.0, 2.0], [1.0, 0.0]]), 4)
    assert found[:, 0].isnan().all()
    assert found[:, 1].tolist() == [1.5, 0.5, 0.0]
