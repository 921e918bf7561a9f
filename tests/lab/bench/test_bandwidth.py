"""The update's bandwidth counts what it has to move, and is measured on a GPU alone."""

from __future__ import annotations

import pytest
import torch

from lrwd_sweep.errors import DeviceError
from lrwd_sweep.lab.bench import bandwidth
from lrwd_sweep.optim import Segment, make_update
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task


@pytest.mark.parametrize(("name", "most"), [("sgdw", 20), ("adamw", 28), ("amsgradw", 36), ("adagradw", 20)])
def test_an_update_moves_so_many_bytes_per_parameter(name: str, most: int) -> None:
    theta, one = torch.zeros(3, 5), torch.ones(3, 1)
    parts = [Segment("θ", 0, 5, (5,))]
    update = make_update(Optimizer.parse(name), Task(), theta, parts, alpha=one, lam=one)
    assert bandwidth.moved(update, theta) == most * 15


def test_every_family_is_measured() -> None:
    found = [one.to_dict() for one in bandwidth.measured(torch.device("cpu"), 2, 64, 1)]
    assert [one["optimizer"] for one in found] == list(bandwidth.OPTIMIZERS)
    for one in found:
        assert not one["fused"]
        assert one["share"] == one["bytes_per_second"] / one["copy_bytes_per_second"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    with pytest.raises(DeviceError, match="on a CUDA device, and torch finds none here; leave it out"):
        bandwidth.measure(1)
