"""An engine is chosen by measured times, once, and only if it changes no result."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lrwd_sweep.engine import choice
from lrwd_sweep.engine.choice import cache_file, chosen, obstacle
from lrwd_sweep.engine.cost import Speed, made_up, measure, timed
from lrwd_sweep.engine.graph import Program
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.errors import DeviceError, UsageError
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.runner.execution import Execution
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task
from tests.engine import tape
from tests.small import CPU, task

NET = Task(net="resnet20", batch_size=16)
SMALL = task("tests.nets.awkward:Tied")
CNN = Task(net="cnn", batch_size=16)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _times(monkeypatch: pytest.MonkeyPatch, loop: float, rival: float, same_bits: bool = True) -> list[str]:
    """Set the seconds of a lane's step; return the list of engines to be measured."""
    asked: list[str] = []

    def timed(_: object, task: Task, lanes: int, *rest: object) -> tuple[float, float]:
        asked.append(task.engine)
        return lanes * (loop if task.engine == "loop" else rival), 1e-6

    monkeypatch.setattr(choice, "timed", timed)
    monkeypatch.setattr(choice, "_same_bits", lambda *_: same_bits)
    return asked


def _stored(task: Task) -> object:
    return choice._cached().get(choice._key(task, CPU))


def _forget() -> None:
    cache_file().unlink(missing_ok=True)


def test_the_clearly_faster_engine_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for one, loop, rival, same_bits, expected in (
        (SMALL, 1e-3, 0.5e-3, True, "vmap"),
        (SMALL, 1e-3, 0.95e-3, True, "loop"),  # not worth different rounding
        (SMALL, 1e-3, 2e-3, True, "loop"),
        (SMALL, 1.0, 0.1, True, "loop"),  # one lane fills the device: vmap is not tried
        (SMALL, 1e-3, 1e-4, False, "loop"),  # bits depend on the pack
        (CNN, 1e-3, 0.5e-3, True, "native"),
        (CNN, 1e-3, 0.95e-3, True, "loop"),
    ):
        _forget()
        asked = _times(monkeypatch, loop, rival, same_bits)
        assert chosen(one, CPU).engine == expected, (one.net, loop, rival)
        assert _stored(one) == expected
        tried = {"native" if one is CNN else "vmap"} if loop < 1 and same_bits else set()
        assert set(asked) == {"loop"} | tried, (one.net, loop, rival)


def not_a_number(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return logits.mean() * torch.nan


def test_vmap_is_not_chosen_if_it_fails_or_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-4)
    for one, why in (
        (task("tests.nets.awkward:AveragedForever"), "cannot be vectorised"),
        (task(loss=f"{__name__}:not_a_number"), "gives NaN on made-up data"),
    ):
        assert why in obstacle(one, CPU), one.net
        assert chosen(one, CPU).engine == "loop", one.net
    assert obstacle(SMALL, CPU) == ""
    rounded = replace(NET, precision="bfloat16")
    with monkeypatch.context() as patch:
        patch.setattr("lrwd_sweep.nets.precision._NORMALISATIONS", ())
        assert "cannot be vectorised in bfloat16" in obstacle(rounded, CPU)
        assert chosen(rounded, CPU).engine == "loop"
    monkeypatch.setattr("lrwd_sweep.nets.modules.VmapLanes", _Leaking)
    assert "looks past its lane" in obstacle(SMALL, CPU)


class _Leaking(LoopLanes):
    """Lanes that change each other's gradients."""

    def gradient(self, *arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        losses, logits = super().gradient(*arguments)  # type: ignore[arg-type]
        for grad in self.grads:
            grad.add_(1e-5 * grad.mean(dim=0, keepdim=True))
        return losses, logits


def test_a_network_that_cannot_be_measured_trains_by_the_loop_and_nothing_is_stored() -> None:
    words = task("tests.nets.awkward:OfWholeBatches")
    assert chosen(words, CPU).engine == "loop"
    assert _stored(words) is None
    data = made_up(Task(batch_size=16), CPU)
    for split in (data.train, data.validation):  # sentences of one word
        assert set(split.x.flatten(1).long().sum(1).tolist()) == {1}


def test_a_choice_is_stored_by_what_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-4)
    assert chosen(SMALL, CPU).engine == "vmap"
    asked = _times(monkeypatch, 1e-4, 1e-3)
    assert chosen(SMALL, CPU).engine == "vmap"
    assert asked == []
    for other in ({"batch_size": 32}, {"precision": "bfloat16"}, {"code": (("a", "b"),)}):
        assert chosen(replace(SMALL, **other), CPU).engine == "loop", other
    choice._keep(choice._key(SMALL, CPU), "fastest")  # not an engine
    assert chosen(SMALL, CPU).engine == "loop"


def test_an_unusable_cache_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 0.95e-3)
    cache_file().parent.mkdir(parents=True)
    for content in ("", "{", "[]", '{"x": 3}', "\x00", "null"):
        cache_file().write_text(content)
        assert chosen(CNN, CPU).engine == "loop", content
        assert _stored(CNN) == "loop", content
        assert list(cache_file().parent.iterdir()) == [cache_file()]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a folder cannot be made there
    assert chosen(CNN, CPU).engine == "loop"
    assert _stored(CNN) is None


def test_a_choice_without_room_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    for where in ("timed", "_passed"):
        _forget()
        _times(monkeypatch, 1e-3, 1e-4)
        with monkeypatch.context() as full:
            full.setattr(choice, where, no_room)
            assert chosen(SMALL, CPU).engine == "loop", where
            if where == "_passed":
                with pytest.raises(DeviceError, match="no room to try out how"):
                    chosen(replace(SMALL, engine="vmap"), CPU)
        assert _stored(SMALL) is None, where
        assert chosen(SMALL, CPU).engine == "vmap", where


def test_perceptrons_and_named_engines_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _times(monkeypatch, 1.0, 1.0)
    assert chosen(Task(), CPU) == Task()
    for engine in ("loop", "vmap"):
        assert Execution(replace(NET, engine=engine), "cpu").task.engine == engine
    with pytest.raises(UsageError, match="'native' is not written for resnet20; choose auto, vmap or loop"):
        chosen(replace(NET, engine="native"), CPU)
    assert asked == []
    assert Execution(Task(), "cpu").task.engine == "auto"
    assert not os.path.exists(cache_file())


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

    monkeypatch.setattr("lrwd_sweep.engine.cost.timed", timed)  # as if the room for more were gone
    assert not measure(Optimizer.parse("adam"), Task(), lanes=100, seconds=600.0, device="cpu").whole
    monkeypatch.setattr("lrwd_sweep.engine.cost.free_bytes", lambda device: 0)
    with pytest.raises(DeviceError, match="free some memory"):
        measure(Optimizer.parse("adam"), Task(), lanes=1, seconds=0.0, device="cpu")


def test_a_lane_costs_its_steps_and_its_evaluations() -> None:
    speed = Speed(step=1.0, sample=0.001, whole=True)
    assert speed.seconds(Task(epochs=60)) == pytest.approx(60 * 6 + 0.001 * (12 * 697 + 700))
    restarted = Task(epochs=60, schedule="restarts", t_0=4)  # type: ignore[arg-type]
    evaluated = (1 + len(restarted.evaluations)) * 697 + 4 * 700
    assert speed.seconds(restarted) == pytest.approx(60 * 6 + 0.001 * evaluated)


@pytest.mark.usefixtures("without_numba")
def test_steps_on_a_device_are_timed_as_they_train(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[bool] = []

    class OnDevice(PackTrainer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.on_host, self.record = False, tape.record

        def prepared(self, shuffled: Tensor) -> Program:
            program = super().prepared(shuffled)
            replayed.append(program.replay is not None)
            return program

    monkeypatch.setattr("lrwd_sweep.engine.cost.PackTrainer", OnDevice)
    few = Task(epochs=1, batch_size=130)  # fewer steps than are timed
    assert min(timed(Optimizer.parse("adamw"), few, 2, 0.05, CPU, 1)) > 0
    assert replayed == [True]
