"""The engine is chosen by what was measured, the same every time, and only where it changes nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lrwd_sweep.data.user_data import completed
from lrwd_sweep.engine import choice
from lrwd_sweep.engine.choice import cache_file, chosen, obstacle
from lrwd_sweep.engine.speed import made_up
from lrwd_sweep.errors import DeviceError, UsageError
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.runner.execution import Execution
from lrwd_sweep.spec.task import Task

CPU = torch.device("cpu")
NET = Task(net="resnet20", batch_size=16)
CNN = Task(net="cnn", batch_size=16)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of its own, one thread."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _times(monkeypatch: pytest.MonkeyPatch, loop: float, rival: float) -> list[str]:
    """Let every step take so long per lane; the engines that are asked."""
    asked: list[str] = []

    def timed(_: object, task: Task, lanes: int, *rest: object) -> tuple[float, float]:
        asked.append(task.engine)
        return lanes * (loop if task.engine == "loop" else rival), 1e-6

    monkeypatch.setattr(choice, "timed", timed)
    return asked


@pytest.mark.parametrize(
    ("loop", "vmap", "expected"),
    [
        (1e-3, 0.5e-3, "vmap"),
        (1e-3, 0.95e-3, "loop"),  # not worth another rounding
        (1e-3, 2e-3, "loop"),
        (1.0, 0.1, "loop"),  # one lane fills the device: vmap is not even tried
    ],
)
def test_the_clearly_faster_is_chosen(
    loop: float, vmap: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_same_bits", lambda *_: True)
    asked = _times(monkeypatch, loop, vmap)
    assert chosen(NET, CPU).engine == expected
    assert ("vmap" in asked) is (loop < 1)


def test_vmap_is_not_chosen_where_bits_depend_on_the_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-4)
    monkeypatch.setattr(choice, "_same_bits", lambda *_: False)
    assert chosen(NET, CPU).engine == "loop"


def test_vmap_is_not_chosen_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-4)
    task = Task(net="tests.nets.awkward:AveragedForever", batch_size=16)
    assert "cannot be vectorised" in obstacle(task, CPU)
    assert chosen(task, CPU).engine == "loop"


class OfWholeBatches(nn.Module):
    """Takes no batch that is smaller than those of its training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) == 2:
            raise ValueError("two")
        logits: torch.Tensor = self.layer(x.flatten(1))
        return logits


class OfWords(OfWholeBatches):
    """Takes no sentence without a word."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert (x.flatten(1).long() > 0).any(1).all()
        return super().forward(x)


def not_a_number(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A loss that nobody can lower."""
    return logits.mean() * torch.nan


@pytest.mark.parametrize("kind", [OfWholeBatches, OfWords])
def test_a_network_that_cannot_be_measured_trains_by_the_loop_and_nothing_is_kept(
    kind: type[nn.Module],
) -> None:
    task = Task(net=f"{__name__}:{kind.__name__}", batch_size=16)
    assert chosen(task, CPU).engine == "loop"
    assert choice._cached().get(choice._key(task, CPU)) is None


def test_sentences_of_made_up_data_have_a_word() -> None:
    data = made_up(Task(batch_size=16), CPU)
    for split in (data.train, data.validation):
        assert set(split.x.flatten(1).long().sum(1).tolist()) == {1}


def test_a_loss_that_is_no_number_is_no_reason_to_vectorise(monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-4)
    task = Task(net="mlp", batch_size=16, loss=f"{__name__}:not_a_number")
    assert "gives NaN on made-up data" in obstacle(task, CPU)
    assert chosen(task, CPU).engine == "loop"


def test_vmap_is_not_chosen_where_it_cannot_compute_in_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-4)
    monkeypatch.setattr("lrwd_sweep.nets.precision._NORMALISATIONS", ())
    rounded = replace(NET, precision="bfloat16")
    assert obstacle(NET, CPU) == ""
    assert "cannot be vectorised in bfloat16" in obstacle(rounded, CPU)
    assert chosen(rounded, CPU).engine == "loop"


def test_a_choice_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_same_bits", lambda *_: True)
    _times(monkeypatch, 1e-3, 1e-4)
    assert chosen(NET, CPU).engine == "vmap"
    asked = _times(monkeypatch, 1e-4, 1e-3)
    assert chosen(NET, CPU).engine == "vmap"
    assert asked == []
    for other in ({"batch_size": 32}, {"precision": "bfloat16"}):  # those are other questions
        assert chosen(replace(NET, **other), CPU).engine == "loop"


def test_the_choice_is_made_again_for_a_changed_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(choice, "_same_bits", lambda *_: True)
    helper = tmp_path / "blocks_of_one.py"
    (tmp_path / "net_of_one.py").write_text(
        "from blocks_of_one import WIDTH\nfrom torch import nn\ndef make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.Linear(WIDTH, 10))\n"
    )
    asked = []
    for text in ("WIDTH = 5\n", "WIDTH = 60\n", "WIDTH = 5\n"):
        helper.write_text(text)
        for name in ("blocks_of_one", "net_of_one"):  # as in a new process
            sys.modules.pop(name, None)
        timed = _times(monkeypatch, 1e-3, 1e-4)
        task = completed(Task(net=f"{tmp_path}/net_of_one.py:make", batch_size=16))
        assert chosen(task, CPU).engine == "vmap"
        asked.append(bool(timed))
    assert asked == [True, True, False]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 3}', "\x00", "null"])
def test_a_cache_that_makes_no_sense_is_none(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-2)
    monkeypatch.setattr(choice, "_same_bits", lambda *_: True)
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(content)
    assert chosen(NET, CPU).engine == "loop"
    assert choice._cached().get(choice._key(NET, CPU)) == "loop"
    assert list(cache_file().parent.iterdir()) == [cache_file()]


def test_a_wrong_entry_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-2)
    choice._keep(choice._key(NET, CPU), "fastest")
    assert chosen(NET, CPU).engine == "loop"


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-2)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert chosen(NET, CPU).engine == "loop"
    assert choice._cached().get(choice._key(NET, CPU)) is None
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(("native", "expected"), [(0.5e-3, "native"), (0.95e-3, "loop")])
def test_what_is_written_for_lanes_is_measured_in_the_place_of_vmap(
    native: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _times(monkeypatch, 1e-3, native)
    assert chosen(CNN, CPU).engine == expected
    assert set(asked) == {"loop", "native"}
    assert choice._cached().get(choice._key(CNN, CPU)) == expected


@pytest.mark.parametrize("where", ["timed", "_passed"])
def test_a_choice_for_want_of_room_is_not_kept(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_same_bits", lambda *_: True)
    _times(monkeypatch, 1e-3, 1e-4)

    def no_room(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    with monkeypatch.context() as full:
        full.setattr(choice, where, no_room)
        assert chosen(NET, CPU).engine == "loop"
        if where == "_passed":
            with pytest.raises(DeviceError, match="no room to try out how resnet20 trains"):
                chosen(replace(NET, engine="vmap"), CPU)
    assert choice._cached().get(choice._key(NET, CPU)) is None
    assert chosen(NET, CPU).engine == "vmap"


def test_perceptrons_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _times(monkeypatch, 1.0, 1.0)
    assert chosen(Task(), CPU) == Task()
    assert chosen(Task(), CPU).engine == "auto"
    assert asked == []


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_what_is_forced_is_taken(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _times(monkeypatch, 1.0, 1.0)
    assert chosen(replace(NET, engine=engine), CPU).engine == engine
    assert asked == []


def test_native_is_refused_where_it_is_not_written() -> None:
    with pytest.raises(UsageError, match="native is not written for resnet20; choose auto, vmap or loop"):
        chosen(replace(NET, engine="native"), CPU)


class _Leaking(LoopLanes):
    """Lanes that leave something behind for the next."""

    def gradient(self, *arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        losses, logits = super().gradient(*arguments)  # type: ignore[arg-type]
        for grad in self.grads:
            grad.add_(1e-5 * grad.mean(dim=0, keepdim=True))
        return losses, logits


def test_lanes_that_see_each_other_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert obstacle(NET, CPU) == ""
    monkeypatch.setattr("lrwd_sweep.nets.modules.VmapLanes", _Leaking)
    assert "looks past its lane" in obstacle(NET, CPU)


def test_the_pool_says_what_it_trains_by() -> None:
    assert Execution(replace(NET, engine="vmap"), "cpu").task.engine == "vmap"
    assert Execution(NET, "cpu").task.engine in ("loop", "vmap")
    assert Execution(Task(), "cpu").task.engine == "auto"
