"""The speed of a task is measured without its data, on packs as large as time allows."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lrwd_sweep.engine.graph import Program
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.engine.speed import Speed, _sizes, measure, timed
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task
from tests.engine import tape


@given(st.integers(1, 64), st.integers(2, 1024))
def test_trials_grow_up_to_the_pack_that_would_train(most: int, batch: int) -> None:
    sizes = list(_sizes(most, batch))
    work = [lanes * few for lanes, few in sizes]
    assert work == sorted(set(work))
    assert sizes[-1] == (most, batch)
    assert all(2 <= few <= batch for _, few in sizes)


@pytest.mark.parametrize("optimizer", ["adamw", "sgdp"])
def test_whole_packs_are_measured_where_they_are_small(optimizer: str) -> None:
    smallest = Task(batch_size=2)  # nothing is smaller, however little time there is
    speed = measure(Optimizer.parse(optimizer), smallest, lanes=1, seconds=0.0, device="cpu")
    assert speed.whole
    assert speed.step > 0
    assert speed.sample > 0


@pytest.mark.parametrize("net", ["mlp-norm", "cnn-norm"])
def test_without_time_one_network_on_a_few_samples_has_to_do(net: str) -> None:
    cifar = Task(net=net, data="cifar10", augment="crop-flip")  # its files need not be there
    speed = measure(Optimizer.parse("adam"), cifar, lanes=100, seconds=0.0, device="cpu")
    assert not speed.whole
    assert speed.step > 0


def test_a_lane_costs_its_steps_and_its_evaluations() -> None:
    speed = Speed(step=1.0, sample=0.001, whole=True)
    assert speed.seconds(Task(epochs=60)) == pytest.approx(60 * 6 + 0.001 * (60 * 697 + 700))
    restarted = Task(epochs=60, schedule="restarts", t_0=4)  # type: ignore[arg-type]
    assert speed.seconds(restarted) == pytest.approx(60 * 6 + 0.001 * (60 * 697 + 4 * 700))


def test_no_room_is_said_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrwd_sweep.engine.packing.free_bytes", lambda device: 0)
    with pytest.raises(DeviceError, match="free some memory"):
        measure(Optimizer.parse("adam"), Task(), lanes=1, seconds=0.0, device="cpu")


def test_what_was_measured_stands_when_the_room_for_more_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(optimizer: Optimizer, task: Task, lanes: int, *_: object) -> tuple[float, float]:
        if lanes * task.batch_size > 2:
            raise MemoryError
        return 1e-6, 1e-9

    monkeypatch.setattr("lrwd_sweep.engine.speed.timed", timed)
    speed = measure(Optimizer.parse("adam"), Task(), lanes=100, seconds=600.0, device="cpu")
    assert not speed.whole


@pytest.mark.usefixtures("without_numba")
@pytest.mark.parametrize(("batch_size", "recorded"), [(40, True), (130, True), (200, False), (400, False)])
def test_on_a_device_what_trains_is_timed(
    batch_size: int, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs: list[weakref.ref[PackTrainer]] = []
    replayed: list[bool] = []

    class OnDevice(PackTrainer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.on_host, self.record = False, tape.record
            packs.append(weakref.ref(self))

        def prepared(self, shuffled: Tensor) -> Program:
            program = super().prepared(shuffled)
            replayed.append(program.replay is not None)
            return program

    monkeypatch.setattr("lrwd_sweep.engine.speed.PackTrainer", OnDevice)
    task = Task(epochs=1, batch_size=batch_size)  # fewer steps than are timed
    gc.disable()
    try:
        step, sample = timed(Optimizer.parse("adamw"), task, 2, 0.05, torch.device("cpu"), 1)
        assert step > 0
        assert sample > 0
        assert replayed == [recorded]
        assert packs[0]() is None  # its memory is free again
    finally:
        gc.enable()
