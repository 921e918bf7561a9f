"""Packs are as large as is worth while and as fits into what is free."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from lrwd_sweep.engine import packing
from lrwd_sweep.engine.memory import pack_bytes
from lrwd_sweep.engine.packing import lanes_that_fit
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
CIFAR = DataSet(train=45_000, validation=5_000, test=10_000, classes=10, shape=(3, 32, 32))
ADAMW, SGD = Optimizer.parse("adamw"), Optimizer.parse("sgd")


def _training(net: str, batch_size: int = 128) -> Task:
    return Task(net=net, batch_size=batch_size, sizes=CIFAR)


def _fit(
    monkeypatch: pytest.MonkeyPatch,
    net: str,
    free: float,
    *,
    max_lanes: int | None = None,
    device: torch.device = CPU,
    optimizer: Optimizer = ADAMW,
) -> int:
    monkeypatch.setattr(packing, "free_bytes", lambda _: int(free))
    return lanes_that_fit(_training(net), device=device, workers=2, max_lanes=max_lanes, optimizer=optimizer)


def test_packs_of_the_widest_networks_fit_in_24_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for net in ("wrn-28-10", "shake26-2x96d"):
        lanes = _fit(monkeypatch, net, 24e9)
        assert lanes >= 1
        assert 2 * pack_bytes(_training(net), lanes, CPU, ADAMW) <= packing.MEMORY_SHARE * 24e9


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("net", ["mlp-norm", "resnet20"])
def test_one_lane_more_would_not_fit(net: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 2 * pack_bytes(_training(net), 3, device, ADAMW) / packing.MEMORY_SHARE
    assert _fit(monkeypatch, net, free + 100, device=device) == 3
    assert _fit(monkeypatch, net, free - 100, device=device) == 2


def test_an_optimizer_of_fewer_moments_leaves_room_for_more_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [_fit(monkeypatch, "mlp-norm", 1e9, device=CUDA, optimizer=each) for each in (SGD, ADAMW)]
    assert lanes[0] > lanes[1] > 10


def test_lanes_in_a_loop_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _fit(monkeypatch, "resnet20", 1e12) == packing.FEW
    assert _fit(monkeypatch, "resnet20", 1e12, max_lanes=1) == 1


def test_lanes_of_one_program_are_as_many_as_the_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "free_bytes", lambda _: 1 << 40)
    fit = partial(lanes_that_fit, device=CPU, workers=2, max_lanes=None, optimizer=ADAMW)
    assert fit(Task()) == packing.CPU_LANES
    convolutional = Task(net="cnn-norm", engine="native")
    lanes = fit(replace(convolutional, batch_size=16))
    assert packing.FEW < lanes < packing.CPU_LANES
    assert pack_bytes(replace(convolutional, batch_size=16), lanes, CPU, ADAMW) <= packing.CPU_BYTES
    assert fit(convolutional) == fit(replace(convolutional, batch_size=400)) == packing.FEW


def test_no_room_for_one_lane_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 2 * pack_bytes(_training("resnet20"), 1, CPU, ADAMW) / packing.MEMORY_SHARE
    with pytest.raises(DeviceError, match=r"2 lanes of resnet20 need [^\n]* batch_size$"):
        _fit(monkeypatch, "resnet20", 0.99 * needed)
