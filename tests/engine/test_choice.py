"""An engine is chosen by measured times, once, and only if it changes no result."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from lrwd_sweep.engine import choice
from lrwd_sweep.engine.choice import cache_file, chosen, obstacle
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.runner.execution import Execution
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.small import CPU, task

NET = Task(net="resnet20", batch_size=16)
SMALL = task("tests.nets.awkward:Tied")
CNN = Task(net="cnn", batch_size=16)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _times(monkeypatch: pytest.MonkeyPatch, loop: float, rival: float, same_bits: bool = True) -> list[str]:
    """Set the seconds of a lane's step, with an empty cache; return the list of engines to be measured."""
    asked: list[str] = []

    def timed(_: object, task: Task, lanes: int, *rest: object) -> tuple[float, float]:
        asked.append(task.engine)
        return lanes * (loop if task.engine == "loop" else rival), 1e-6

    monkeypatch.setattr(choice, "timed", timed)
    monkeypatch.setattr(choice, "_same_bits", lambda *_: same_bits)
    cache_file().unlink(missing_ok=True)
    return asked


def _stored(task: Task) -> object:
    return choice._cached().get(choice._key(task, CPU))


def test_the_clearly_faster_engine_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for one, loop, rival, same_bits, expected in (
        (SMALL, 1e-3, 0.5e-3, True, "vmap"),
        (SMALL, 1e-3, 0.95e-3, True, "loop"),  # not worth different rounding
        (SMALL, 1.0, 0.1, True, "loop"),  # one lane fills the device: vmap is not tried
        (SMALL, 1e-3, 1e-4, False, "loop"),  # bits depend on the pack
        (CNN, 1e-3, 0.5e-3, True, "native"),
        (CNN, 1e-3, 0.95e-3, True, "loop"),
    ):
        asked = _times(monkeypatch, loop, rival, same_bits)
        assert (chosen(one, CPU).engine, _stored(one)) == (expected, expected), (one.net, loop, rival)
        tried = {"native" if one is CNN else "vmap"} if loop < 1 and same_bits else set()
        assert set(asked) == {"loop"} | tried, (one.net, loop, rival)


def not_a_number(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return logits.mean() * torch.nan


class _Leaking(LoopLanes):
    """Lanes that change each other's gradients."""

    def gradient(self, *arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        losses, logits = super().gradient(*arguments)  # type: ignore[arg-type]
        for grad in self.grads:
            grad.add_(1e-5 * grad.mean(dim=0, keepdim=True))
        return losses, logits


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
        patch.setattr(import_module("lrwd_sweep.nets.network"), "_NORMALISATIONS", ())
        assert "cannot be vectorised in bfloat16" in obstacle(rounded, CPU)
    monkeypatch.setattr("lrwd_sweep.nets.modules.VmapLanes", _Leaking)
    assert "looks past its lane" in obstacle(SMALL, CPU)


def test_a_choice_is_stored_by_what_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-4)
    assert chosen(SMALL, CPU).engine == "vmap"
    kept = cache_file().read_text()
    asked = _times(monkeypatch, 1e-4, 1e-3)
    cache_file().write_text(kept)
    assert (chosen(SMALL, CPU).engine, asked) == ("vmap", [])
    for other in ({"batch_size": 32}, {"precision": "bfloat16"}, {"code": (("a", "b"),)}):
        assert chosen(replace(SMALL, **other), CPU).engine == "loop", other
    choice._keep(choice._key(SMALL, CPU), "fastest")  # not an engine
    assert chosen(SMALL, CPU).engine == "loop"


def test_an_unusable_cache_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 0.95e-3)
    cache_file().parent.mkdir(parents=True)
    for content in ("", "{", "[]", '{"x": 3}', "\x00", "null"):
        cache_file().write_text(content)
        assert (chosen(CNN, CPU).engine, _stored(CNN)) == ("loop", "loop"), content
        assert list(cache_file().parent.iterdir()) == [cache_file()]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a folder cannot be made there
    assert (chosen(CNN, CPU).engine, _stored(CNN)) == ("loop", None)


def test_a_choice_that_cannot_be_measured_is_the_loop_and_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    words = task("tests.nets.awkward:OfWholeBatches")
    assert (chosen(words, CPU).engine, _stored(words)) == ("loop", None)
    for where in ("timed", "_passed"):
        _times(monkeypatch, 1e-3, 1e-4)
        with monkeypatch.context() as full:
            full.setattr(choice, where, no_room)
            assert (chosen(SMALL, CPU).engine, _stored(SMALL)) == ("loop", None), where
            if where == "_passed":
                asked = replace(SMALL, engine="vmap")
                assert_raises("no room to try out how", chosen, asked, CPU, error=DeviceError)
        assert chosen(SMALL, CPU).engine == "vmap", where


def test_perceptrons_and_named_engines_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _times(monkeypatch, 1.0, 1.0)
    assert chosen(Task(), CPU) == Task()
    assert Execution(replace(NET, engine="loop"), "cpu").task.engine == "loop"
    complaint = "'native' is not written for resnet20; choose auto, vmap or loop"
    assert_raises(complaint, chosen, replace(NET, engine="native"), CPU)
    assert not asked
    assert not cache_file().exists()
