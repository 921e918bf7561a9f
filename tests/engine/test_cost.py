"""The count of a pack's memory is near its peak, packs fit into what is free, and steps are timed."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lrwd_sweep.engine import cost
from lrwd_sweep.engine.cost import Speed, lanes_that_fit, made_up, measure, pack_bytes
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task
from tests.small import ADAMW, CPU, SGDW, WELL, pack, task

CUDA = torch.device("cuda", 0)
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
LARGE_PACKS = [
    (_task("cnn-norm", 16, DIGITS, "vmap"), 64),
    (_task("resnet20", 64, engine="vmap"), 2),
    (_task("torchvision:resnet18", 64, engine="loop"), 4),
    (_task("shake26-2x32d", 64, engine="loop"), 1),
]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux reports a process's peak")
@pytest.mark.parametrize("packs", [PACKS, pytest.param(LARGE_PACKS, marks=pytest.mark.slow)])
def test_peak_of_a_process_is_near_the_count_and_unused_memory_is_free(packs: list[tuple[Task, int]]) -> None:
    """The peak is within a factor of two: the heap breaks up differently in every process."""
    request = json.dumps([(task.to_dict() | {"engine": task.engine}, lanes) for task, lanes in packs])
    command = [sys.executable, "-c", WATCHED, request]
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
    wide = _task("torchvision:resnet18", 2, engine="loop")
    of = {name: pack_bytes(wide, 4, CPU, Optimizer.parse(name)) for name in ("sgd", "adamw", "amsgrad")}
    assert of["amsgrad"] - of["adamw"] == pytest.approx(of["adamw"] - of["sgd"], rel=0.01)
    assert of["adamw"] > 1.1 * of["sgd"]
    assert 1.6 < pack_bytes(_task("resnet20", 1024), 1, CPU) / pack_bytes(_task("resnet20", 512), 1, CPU) < 2
    user: dict[str, Any] = {"batch_size": 64, "sizes": replace(DIGITS, classes=4), "engine": "loop"}
    names = ("TwoLayers", "LookingAtValues", "OfWholeBatches")  # user code is counted by values
    found = [pack_bytes(task(f"tests.nets.awkward:{name}", **user), 2, CPU) for name in names]
    assert found[0] == found[1] > 1 << 16
    assert found[2] > 0
    small = task("mlp", 7, schedule="restarts", t_0=1, t_mult=2)
    weights = 1.08 * 4 * sum(p.numel() for p in pack("sgd", small, WELL[:1]).arena.named.values())
    cases: list[tuple[dict[str, Any], int]] = [({"sam": 0.1}, 1), ({"swa": 1}, 2)]
    for fields, copies in [*cases, ({"swa": 1, "ema": 1, "ensemble": 2}, 5)]:
        more = pack_bytes(replace(small, **fields), 1, CPU) - pack_bytes(small, 1, CPU)
        assert more == pytest.approx(copies * weights, abs=2), fields


def _fit(
    monkeypatch: pytest.MonkeyPatch, task: Task, free: float, device: torch.device = CPU, **options: object
) -> int:
    monkeypatch.setattr(cost, "free_bytes", lambda _: int(free))
    given = {"workers": 2, "max_lanes": None, "optimizer": ADAMW, **options}
    return lanes_that_fit(task, device=device, **given)  # type: ignore[arg-type]


def test_packs_are_the_largest_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    for net, device in (("mlp-norm", CPU), ("resnet20", CPU), ("mlp-norm", CUDA), ("resnet20", CUDA)):
        task = _task(net, 128)
        free = 2 * pack_bytes(task, 3, device, ADAMW) / cost.MEMORY_SHARE
        assert _fit(monkeypatch, task, free + 100, device) == 3, (net, device)
        assert _fit(monkeypatch, task, free - 100, device) == 2, (net, device)
    assert _fit(monkeypatch, _task("wrn-28-10", 128), 24e9) >= 1
    lanes = [_fit(monkeypatch, _task("mlp-norm"), 1e9, CUDA, optimizer=each) for each in (SGDW, ADAMW)]
    assert lanes[0] > lanes[1] > 10


def test_packs_on_a_cpu_stay_in_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Task(net="cnn-norm", engine="native", batch_size=16)
    assert _fit(monkeypatch, Task(), 1e12) == cost.CPU_LANES
    assert _fit(monkeypatch, _task("resnet20"), 1e12, max_lanes=1) == 1
    for packed in (_task("resnet20"), replace(small, batch_size=64)):
        assert _fit(monkeypatch, packed, 1e12) == cost.FEW_LANES
    lanes = _fit(monkeypatch, small, 1e12)
    assert cost.FEW_LANES < lanes < cost.CPU_LANES
    assert pack_bytes(small, lanes, CPU, ADAMW) <= cost.CPU_BYTES


def test_no_room_for_one_lane_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 2 * pack_bytes(_task("resnet20"), 1, CPU, ADAMW) / cost.MEMORY_SHARE
    with pytest.raises(DeviceError, match=r"2 lanes of resnet20 need [^\n]* batch_size$"):
        _fit(monkeypatch, _task("resnet20"), 0.99 * needed)


def test_packs_are_measured_as_large_as_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(of: Task, lanes: int = 100, seconds: float = 0.0, optimizer: Optimizer = ADAMW) -> Speed:
        return measure(optimizer, of, lanes=lanes, seconds=seconds, device="cpu")

    for name in ("adamw", "sgdp"):
        speed = measured(Task(batch_size=2), 1, optimizer=Optimizer.parse(name))
        assert speed.whole, name  # there is no smaller pack
        assert min(speed.step, speed.sample) > 0, name
    for net in ("mlp-norm", "cnn-norm"):
        cifar = Task(net=net, data="cifar10", augment="crop-flip")  # its files need not be there
        speed = measured(cifar)
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


def test_a_lane_costs_its_steps_and_its_evaluations() -> None:
    speed, restarts = Speed(1.0, 0.001, whole=True), {"schedule": "restarts", "t_0": 4}
    evaluations = 1 + len(Task(epochs=60, **restarts).evaluations)  # type: ignore[arg-type]
    for own, times, snapshots in (({}, 12, 1), (restarts, evaluations, 4)):
        expected = 60 * 6 + 0.001 * (times * 697 + snapshots * 700)
        assert speed.seconds(Task(epochs=60, **own)) == pytest.approx(expected)  # type: ignore[arg-type]
