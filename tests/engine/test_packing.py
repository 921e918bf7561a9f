"""Lanes that train one after another share one lane's activations, and gain nothing from many neighbours."""

from __future__ import annotations

import math

import pytest
import torch

from lrwd_sweep.catalog import DataSet
from lrwd_sweep.engine import Pool, packing
from lrwd_sweep.engine.packing import lane_bytes, lanes_that_fit, pack_bytes
from lrwd_sweep.errors import DeviceError, UsageError
from lrwd_sweep.nets import build
from lrwd_sweep.spec import Training

CPU = torch.device("cpu")
CIFAR = DataSet(train=45_000, validation=5_000, test=10_000, classes=10, shape=(3, 32, 32))


def _training(net: str, batch_size: int = 128) -> Training:
    return Training(net=net, batch_size=batch_size, sizes=CIFAR)


def test_stacked_lanes_hold_their_own_activations_and_others_share_one_lanes() -> None:
    assert pack_bytes(Training()) == 0
    training = _training("resnet20")
    parameters = sum(map(math.prod, build("resnet20", CIFAR.shape, 10).shapes.values()))
    assert lane_bytes(training) == 4 * 7 * parameters
    assert pack_bytes(training) > 0
    assert pack_bytes(_training("resnet20", 512)) > 1.9 * pack_bytes(_training("resnet20", 256))


def _fit(monkeypatch: pytest.MonkeyPatch, net: str, free: float, max_lanes: int | None = None) -> int:
    monkeypatch.setattr(packing, "free_bytes", lambda _: int(free))
    return lanes_that_fit(_training(net), device=CPU, workers=2, max_lanes=max_lanes)


def test_packs_of_the_widest_networks_fit_in_24_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for net in ("wrn-28-10", "shake26-2x96d"):
        lanes = _fit(monkeypatch, net, 24e9)
        used = 2 * (pack_bytes(_training(net)) + lanes * lane_bytes(_training(net)))
        assert lanes >= 1
        assert used < packing.MEMORY_SHARE * 24e9


def test_lanes_in_a_loop_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _fit(monkeypatch, "resnet20", 1e12) == packing.LOOP_LANES
    assert _fit(monkeypatch, "resnet20", 1e12, max_lanes=1) == 1
    assert _fit(monkeypatch, "mlp-norm", 1e12) == packing.CPU_LANES


@pytest.mark.parametrize("net", ["torchvision:resnet81", "torchvision:squeezenet1_1"])
def test_pool_refuses_a_network_before_there_is_anything_to_train(net: str) -> None:
    with pytest.raises(UsageError):
        Pool(Training(net=net), "cpu")


def test_activations_count_before_the_first_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    training = _training("resnet20")
    needed = 2 * (pack_bytes(training) + lane_bytes(training)) / packing.MEMORY_SHARE
    assert _fit(monkeypatch, "resnet20", 1.01 * needed) == 1
    with pytest.raises(DeviceError, match=r"2 lanes of resnet20 need .* --batch-size"):
        _fit(monkeypatch, "resnet20", 0.99 * needed)
