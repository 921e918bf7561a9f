"""Packs are as large as is worth while and as fits into what is free."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import lrwd_sweep
from lrwd_sweep.engine import Pool, packing
from lrwd_sweep.engine.memory import pack_bytes
from lrwd_sweep.engine.packing import lanes_that_fit
from lrwd_sweep.errors import DeviceError, UsageError
from lrwd_sweep.science.lattice import Cell
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


@pytest.mark.parametrize("net", ["torchvision:resnet81", "torchvision:squeezenet1_1"])
def test_pool_refuses_a_network_before_there_is_anything_to_train(net: str) -> None:
    with pytest.raises(UsageError):
        Pool(Task(net=net), "cpu")


def test_no_room_for_one_lane_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 2 * pack_bytes(_training("resnet20"), 1, CPU, ADAMW) / packing.MEMORY_SHARE
    with pytest.raises(DeviceError, match=r"2 lanes of resnet20 need [^\n]* --batch-size$"):
        _fit(monkeypatch, "resnet20", 0.99 * needed)
    monkeypatch.setattr(packing, "free_bytes", lambda _: 1 << 20)
    with pytest.raises(DeviceError, match=r"^cpu has 1 MiB free and a lane of resnet20 needs \d+; "):
        Pool(_training("resnet20"), "cpu")


def test_no_more_cores_train_than_have_room_for_a_lane(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("lrwd_sweep.engine.host.cores", lambda: 8)
    needed = pack_bytes(Task(epochs=1), 1, CPU) / packing.MEMORY_SHARE
    for room, seats in ((0.9 * 8, 7), (3.5, 3), (1.1, 1), (100, 8)):
        free = int(room * needed)
        monkeypatch.setattr(packing, "free_bytes", lambda _, free=free: free)
        pool = Pool(Task(epochs=1), "cpu")
        assert len(pool.seats_for()) == seats
        packs = pool.plan({0: [Cell(1 + k, 1) for k in range(100)]})
        assert (len(pool.seats), len(pool.places)) == (seats, 8)
        assert seats * pack_bytes(Task(epochs=1), len(packs[0].cells), CPU) < free
    monkeypatch.setattr(packing, "free_bytes", lambda _: int(1.1 * needed))
    storage = tmp_path / "a.db"
    found = lrwd_sweep.sweep(lr="2^-7:2^-6", weight_decay="0.01,0.1", seeds=1, epochs=1, storage=storage)
    assert found.surface.counts()["complete"] == 4
    told = "there is memory for 1 lane of mlp-norm at a time; 7 of 8 cores stay idle"
    assert told in capsys.readouterr().err


def test_a_place_without_room_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    places = tuple(torch.device("cpu", k) for k in range(3))  # as GPUs are, each with memory of its own
    monkeypatch.setattr("lrwd_sweep.engine.device.places", lambda _: places)
    free = [1000, 1 << 40, 1 << 40]
    monkeypatch.setattr(packing, "free_bytes", lambda place: free[place.index])
    pool = Pool(Task(epochs=1), "cpu")
    assert pool.device == places[1]
    assert pool.seats_for() == places[1:]
    free[:] = 1 << 40, 1 << 40, 1000
    assert pool.seats_for() == (places[1], places[0])  # where the data are comes first
    free[:] = [1000] * 3
    with pytest.raises(DeviceError, match="free some memory"):
        pool.plan({0: [Cell(1, 1)]})
    with pytest.raises(DeviceError, match=r"^cpu:0 has 0 MiB free"):
        Pool(Task(epochs=1), "cpu")
