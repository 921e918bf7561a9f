"""The memory of packs is counted, packs fit into what is free, and an engine is chosen by measured times."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from lrwd_sweep.engine import choice, cost
from lrwd_sweep.engine.choice import cache_file, chosen, obstacle
from lrwd_sweep.engine.cost import Speed, lanes_that_fit, made_up, measure, pack_bytes
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.runner.execution import Execution
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.small import ADAMW, CPU, SGDW, WELL, pack, task

CUDA = torch.device("cuda", 0)
NET, CNN = (Task(net=net, batch_size=16) for net in ("resnet20", "cnn"))
SMALL = task("tests.nets.awkward:Tied")
DIGITS = DataSet(train=400, validation=697, test=700, classes=10, shape=(1, 8, 8))
CIFAR = DataSet(train=45_000, validation=5_000, test=10_000, classes=10, shape=(3, 32, 32))

WATCHED = """
import ctypes, gc, json, sys
from dataclasses import replace
import torch
from lrwd_sweep.data import Split, Splits
from lrwd_sweep.engine import device
from lrwd_sweep.spec.task import Task
from tests.small import WELL, pack

def resident(name):  # bytes
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def train(task, batch, lanes):
    sizes = replace(task.data_set, train=batch, test=2)
    splits = [Split(torch.rand(n, *sizes.shape), torch.randint(10, (n,))) for n in (batch, 256, 2)]
    few = replace(task, batch_size=batch, sizes=sizes)
    pack("adamw", few, WELL[2:] * lanes, data=Splits(*splits)).run()

device.prepare(torch.device("cpu"))
for text, lanes in json.loads(sys.argv[1]):
    task = Task.from_dict(text)
    train(task, 2, 1)  # the libraries' own pages
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before = resident("VmRSS")
    train(task, task.batch_size, lanes)
    print(resident("VmHWM") - before)
blocks = [torch.ones(1 << 20) for _ in range(100)]  # 4 MiB each
last = torch.ones(1 << 20)  # which keeps the heap from shrinking by itself
full = resident("VmRSS")
del blocks
print(full - resident("VmRSS"))
device.free_bytes(torch.device("cpu"))
print(full - resident("VmRSS"))
"""


def _task(net: str, batch_size: int = 64, sizes: DataSet = CIFAR, engine: str = "auto") -> Task:
    return Task(net=net, batch_size=batch_size, sizes=sizes, engine=engine, epochs=1)


PACKS = [(_task("mlp-norm", 64, DIGITS), 256), (_task("resnet20", 32, engine="loop"), 2)]
LARGE_PACKS = [(_task("cnn-norm", 16, DIGITS, "vmap"), 64), (_task("resnet20", engine="vmap"), 2)]
LARGE_PACKS += [(_task(n, engine="loop"), k) for n, k in (("torchvision:resnet18", 4), ("shake26-2x32d", 1))]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux reports a process's peak")
@pytest.mark.parametrize("packs", [PACKS, pytest.param(LARGE_PACKS, marks=pytest.mark.slow)])
def test_peak_of_a_process_is_near_the_count_and_unused_memory_is_free(packs: list[tuple[Task, int]]) -> None:
    """The peak is within a factor of two: the heap breaks up differently in every process."""
    request = [(task.to_dict() | {"engine": task.engine}, lanes) for task, lanes in packs]
    command = [sys.executable, "-c", WATCHED, json.dumps(request)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *peaks, by_itself, asked = map(int, done.stdout.split())
    for (packed, lanes), peak in zip(packs, peaks, strict=True):
        assert 0.4 < peak / pack_bytes(packed, lanes, CPU, ADAMW) < 2, f"{packed.net} {packed.engine}"
    assert by_itself < 40 << 20  # glibc keeps it
    assert asked > 390 << 20


def test_memory_grows_with_lanes_moments_copies_and_batch() -> None:
    loop, stacked = _task("resnet20", engine="loop"), _task("resnet20", engine="vmap")
    for device in (CPU, CUDA):
        assert pack_bytes(loop, 1, device) < pack_bytes(loop, 4, device) < 1.3 * pack_bytes(loop, 1, device)
        assert 3.9 * pack_bytes(stacked, 1, device) < pack_bytes(stacked, 4, device)
    wide, names = _task("torchvision:resnet18", 2, engine="loop"), ("sgd", "adamw", "amsgrad")
    sgd, adamw, amsgrad = (pack_bytes(wide, 4, CPU, Optimizer.parse(name)) for name in names)
    assert amsgrad - adamw == pytest.approx(adamw - sgd, rel=0.01)
    assert adamw > 1.1 * sgd
    assert 1.6 < pack_bytes(_task("resnet20", 1024), 1, CPU) / pack_bytes(_task("resnet20", 512), 1, CPU) < 2
    awkward = ("TwoLayers", "LookingAtValues", "OfWholeBatches")  # user code is counted by values
    user = [_task(f"tests.nets.awkward:{name}", 64, replace(DIGITS, classes=4), "loop") for name in awkward]
    found = [pack_bytes(one, 2, CPU) for one in user]
    assert found[0] == found[1] > 1 << 16
    assert found[2] > 0
    small = task("mlp", 7, schedule="restarts", t_0=1, t_mult=2)
    weights = 1.08 * 4 * sum(p.numel() for p in pack("sgd", small, WELL[:1]).arena.named.values())
    every: dict[str, Any] = {"swa": 1, "ema": 1, "ensemble": 2}
    for fields, copies in (({"sam": 0.1}, 1), ({"swa": 1}, 2), (every, 5)):
        more = pack_bytes(replace(small, **fields), 1, CPU) - pack_bytes(small, 1, CPU)
        assert more == pytest.approx(copies * weights, abs=2), fields


def test_packs_are_the_largest_that_fit_and_stay_in_a_cpu_s_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(task: Task, free: float = 1e12, device: torch.device = CPU, **options: Any) -> int:
        monkeypatch.setattr(cost, "free_bytes", lambda _: int(free))
        given: dict[str, Any] = {"workers": 2, "max_lanes": None, "optimizer": ADAMW, **options}
        return lanes_that_fit(task, device=device, **given)

    for net, device in itertools.product(("mlp-norm", "resnet20"), (CPU, CUDA)):
        task = _task(net, 128)
        free = 2 * pack_bytes(task, 3, device, ADAMW) / cost.MEMORY_SHARE
        assert [fit(task, free + more, device) for more in (100, -100)] == [3, 2], (net, device)
    assert fit(_task("wrn-28-10", 128), 24e9) >= 1
    lanes = [fit(_task("mlp-norm"), 1e9, CUDA, optimizer=each) for each in (SGDW, ADAMW)]
    assert lanes[0] > lanes[1] > 10
    large, small = _task("resnet20"), Task(net="cnn-norm", engine="native", batch_size=16)
    found = [fit(Task()), fit(large, max_lanes=1), fit(large), fit(replace(small, batch_size=64))]
    assert found == [cost.CPU_LANES, 1, cost.FEW_LANES, cost.FEW_LANES]
    assert cost.FEW_LANES < (most := fit(small)) < cost.CPU_LANES
    assert pack_bytes(small, most, CPU, ADAMW) <= cost.CPU_BYTES
    needed = 2 * pack_bytes(large, 1, CPU, ADAMW) / cost.MEMORY_SHARE
    with pytest.raises(DeviceError, match=r"2 lanes of resnet20 need [^\n]* batch_size$"):
        fit(large, 0.99 * needed)


def test_packs_grow_with_time_and_lanes_cost_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(of: Task, lanes: int = 100, seconds: float = 0.0, optimizer: Optimizer = ADAMW) -> Speed:
        return measure(optimizer, of, lanes=lanes, seconds=seconds, device="cpu")

    for name in ("adamw", "sgdp"):
        speed = measured(Task(batch_size=2), 1, optimizer=Optimizer.parse(name))
        assert speed.whole, name  # there is no smaller pack
        assert min(speed.step, speed.sample) > 0, name
    for net in ("mlp-norm", "cnn-norm"):
        speed = measured(Task(net=net, data="cifar10", augment="crop-flip"))  # its files need not be there
        assert (speed.whole, speed.step > 0) == (False, True), net
    for split in (made_up(Task(batch_size=16), CPU).train, made_up(Task(), CPU).validation):
        assert set(split.x.flatten(1).long().sum(1).tolist()) == {1}  # as tokens, sentences of one word

    def timed(optimizer: Optimizer, task: Task, lanes: int, *_: object) -> tuple[float, float]:
        if lanes * task.batch_size > 2:
            raise MemoryError
        return 1e-6, 1e-9

    monkeypatch.setattr(cost, "timed", timed)  # as if the room for more were gone
    assert not measured(Task(), seconds=600.0).whole
    monkeypatch.setattr(cost, "free_bytes", lambda device: 0)
    with pytest.raises(DeviceError, match="free some memory"):
        measured(Task())
    speed, restarts = Speed(1.0, 0.001, whole=True), {"schedule": "restarts", "t_0": 4}
    evaluations = 1 + len(Task(epochs=60, **restarts).evaluations)  # type: ignore[arg-type]
    for own, times, snapshots in (({}, 12, 1), (restarts, evaluations, 4)):
        expected = 60 * 6 + 0.001 * (times * 697 + snapshots * 700)
        assert speed.seconds(Task(epochs=60, **own)) == pytest.approx(expected)  # type: ignore[arg-type]


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


class _Leaking(LoopLanes):
    """Lanes that change each other's gradients."""

    def gradient(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        found = super().gradient(*arguments)
        for grad in self.grads:
            grad.add_(1e-5 * grad.mean(dim=0, keepdim=True))
        return found


def test_vmap_is_not_chosen_if_it_fails_or_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    _times(monkeypatch, 1e-3, 1e-4)
    for one, why in (
        (task("tests.nets.awkward:AveragedForever"), "cannot be vectorised"),
        (task(loss="tests.nets.test_loss:not_a_number"), "gives NaN on made-up data"),
    ):
        assert why in obstacle(one, CPU), one.net
        assert chosen(one, CPU).engine == "loop", one.net
    assert obstacle(SMALL, CPU) == ""
    with monkeypatch.context() as patch:
        patch.setattr(import_module("lrwd_sweep.nets.network"), "_NORMALISATIONS", ())
        assert "cannot be vectorised in bfloat16" in obstacle(replace(NET, precision="bfloat16"), CPU)
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
    no_room = Mock(side_effect=RuntimeError("CUDA error: out of memory"))
    words = task("tests.nets.awkward:OfWholeBatches")
    assert (chosen(words, CPU).engine, _stored(words)) == ("loop", None)
    for where in ("timed", "_passed"):
        _times(monkeypatch, 1e-3, 1e-4)
        with monkeypatch.context() as full:
            full.setattr(choice, where, no_room)
            assert (chosen(SMALL, CPU).engine, _stored(SMALL)) == ("loop", None), where
        assert chosen(SMALL, CPU).engine == "vmap", where
    monkeypatch.setattr(choice, "_passed", no_room)
    asked = replace(SMALL, engine="vmap")
    assert_raises("no room to try out how", chosen, asked, CPU, error=DeviceError)


def test_perceptrons_and_named_engines_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _times(monkeypatch, 1.0, 1.0)
    assert chosen(Task(), CPU) == Task()
    assert Execution(replace(NET, engine="loop"), "cpu").task.engine == "loop"
    complaint = "'native' is not written for resnet20; choose auto, vmap or loop"
    assert_raises(complaint, chosen, replace(NET, engine="native"), CPU)
    assert not asked
    assert not cache_file().exists()
