"""The speed of a task is measured without its data, on packs as large as time allows."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from lrwd_sweep.engine.graph import Program
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.engine.speed import Speed, measure, timed
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task
from tests.engine import tape


def test_packs_are_measured_as_large_as_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    for optimizer in ("adamw", "sgdp"):
        speed = measure(Optimizer.parse(optimizer), Task(batch_size=2), lanes=1, seconds=0.0, device="cpu")
        assert speed.whole, optimizer  # there is no smaller pack
        assert min(speed.step, speed.sample) > 0, optimizer
    for net in ("mlp-norm", "cnn-norm"):
        cifar = Task(net=net, data="cifar10", augment="crop-flip")  # its files need not be there
        speed = measure(Optimizer.parse("adam"), cifar, lanes=100, seconds=0.0, device="cpu")
        assert not speed.whole, net
        assert speed.step > 0, net

    def timed(optimizer: Optimizer, task: Task, lanes: int, *_: object) -> tuple[float, float]:
        if lanes * task.batch_size > 2:
            raise MemoryError
        return 1e-6, 1e-9

    monkeypatch.setattr("lrwd_sweep.engine.speed.timed", timed)  # as if the room for more were gone
    assert not measure(Optimizer.parse("adam"), Task(), lanes=100, seconds=600.0, device="cpu").whole
    monkeypatch.setattr("lrwd_sweep.engine.memory.free_bytes", lambda device: 0)
    with pytest.raises(DeviceError, match="free some memory"):
        measure(Optimizer.parse("adam"), Task(), lanes=1, seconds=0.0, device="cpu")


def test_a_lane_costs_its_steps_and_its_evaluations() -> None:
    speed = Speed(step=1.0, sample=0.001, whole=True)
    assert speed.seconds(Task(epochs=60)) == pytest.approx(60 * 6 + 0.001 * (60 * 697 + 700))
    restarted = Task(epochs=60, schedule="restarts", t_0=4)  # type: ignore[arg-type]
    assert speed.seconds(restarted) == pytest.approx(60 * 6 + 0.001 * (60 * 697 + 4 * 700))


@pytest.mark.usefixtures("without_numba")
def test_steps_on_a_device_are_timed_as_they_train(monkeypatch: pytest.MonkeyPatch) -> None:
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
    task = Task(epochs=1, batch_size=130)  # fewer steps than are timed
    gc.disable()
    try:
        step, sample = timed(Optimizer.parse("adamw"), task, 2, 0.05, torch.device("cpu"), 1)
        assert step > 0
        assert sample > 0
        assert replayed == [True]
        assert packs[0]() is None  # its memory is free again
    finally:
        gc.enable()
