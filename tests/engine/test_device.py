"""A process keeps to its machine's limits; an epoch on a GPU asks for no value and stays on the GPU."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.engine import device, lane_state
from lrwd_sweep.engine.graph import current
from lrwd_sweep.errors import DeviceError, UnknownName
from lrwd_sweep.nets import _built, network
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.optim import update
from lrwd_sweep.optim.jit import compiled
from tests.small import CPU, F32, F64, pack, splits, task

GIB, GPU = 1 << 30, torch.device("cuda", 0)


def _blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_products_use_one_thread_while_packs_train_and_loops_flush_subnormal_numbers() -> None:
    before = torch.get_num_threads(), _blas_threads()
    with device.threads_kept():
        assert device.prepare(CPU) >= 1
        assert (torch.get_num_threads(), _blas_threads()) == (1, {1})
    assert (torch.get_num_threads(), _blas_threads()) == before
    half, tiny = compiled(lambda x: x * np.float32(0.5)), np.float32(2.0**-126)  # the smallest normal number
    assert half(tiny) > 0
    try:
        device.prepare_thread(CPU)
        assert half(tiny) == 0
    finally:
        torch.set_flush_denormal(False)


def test_a_missing_device_is_refused_and_a_full_one_recognised() -> None:
    for name, error in (("tpu", UnknownName), ("cpu:1", UnknownName), ("cuda:99", DeviceError)):
        with pytest.raises(error):
            device.choose(name)
    for said in (
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail] DefaultCPUAllocator: can't allocate memory",
        "Triton Error [CUDA]: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ):
        assert device.is_out_of_memory(RuntimeError(said)), said
    assert all(map(device.is_out_of_memory, (MemoryError(), torch.OutOfMemoryError("no room"))))
    assert not device.is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def _v2(limit: object, used: int, stat: str, cpu: str = "max 100000") -> dict[str, object]:
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat, "cpu.max": cpu}


def _v1(limit: str, quota: int) -> dict[str, dict[str, object]]:
    used = {"memory.usage_in_bytes": GIB, "memory.stat": "total_inactive_file 4096"}
    cpu: dict[str, object] = {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": 100000}
    return {"memory": {**used, "memory.limit_in_bytes": limit}, "cpu": cpu}


def test_limits_are_those_of_both_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: {16 << 20} kB\nMemAvailable: {12 << 20} kB\n")
    for name, path in (("MEMORY", "meminfo"), ("GROUPS", "cgroup"), ("MOUNTED", "fs")):
        monkeypatch.setattr(device, name, str(tmp_path / path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    none = "inactive_file 0"
    cached = _v2(4 * GIB, GIB, f"anon 1\ninactive_file {GIB // 2}\nactive_file 7", "250000 100000")
    pods, job = _v2(3 * GIB, GIB, none, "200000 100000"), _v2("max", GIB, none)
    docker = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/x\n0::/\n"
    cases: tuple[tuple[str, str, dict[str, dict[str, object]], int, int], ...] = (
        ("no groups", "", {}, 12 * GIB, 64),
        ("version 2: cached files are free", "0::/\n", {".": cached}, 3 * GIB + GIB // 2, 3),
        ("the tightest of the groups", "0::/pods/job\n", {"pods": pods, "pods/job": job}, 2 * GIB, 2),
        ("version 1 in a container, at the root", docker, _v1(f"{2 * GIB}", 50000), GIB + 4096, 1),
        ("version 1 without limits", "5:cpu:/\n4:memory:/\n", _v1("9223372036854771712", -1), 12 * GIB, 64),
        ("over the limit", "0::/\n", {".": _v2(GIB, GIB + 8192, "inactive_file 4096")}, 0, 64),
        ("unreadable", "nonsense\n0::/../..\n", {}, 12 * GIB, 64),
        ("words", "0::/\nnonsense\n", {".": _v2("much", 1, none, "1 2 3")}, 12 * GIB, 64),
        ("no use", "0::/\n", {".": {"memory.max": 1, "cpu.max": ""}}, 12 * GIB, 64),
    )
    for case, groups, made, free, cores in cases:
        shutil.rmtree(tmp_path / "fs", ignore_errors=True)
        for group, files in made.items():
            (tmp_path / "fs" / group).mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (tmp_path / "fs" / group / name).write_text(f"{text}\n")
        if groups:
            (tmp_path / "cgroup").write_text(groups)
        assert (device.free_on_host(), device.cores()) == (free, cores), case


# Fake tensors have shapes and a device but no values: code that asks for one, or mixes devices, raises.
class _OnGpu(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that raises if an operator takes or gives a tensor that is not on the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, out))
        places = {leaf.device for leaf in leaves if isinstance(leaf, Tensor)}
        assert places <= {GPU}, f"{func} sees {places}"
        return out


@pytest.fixture
def unreal(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Draw on the host; leave out compiled kernels, which need a device."""
    with FakeTensorMode():
        try:
            torch.zeros(2, 2, device=GPU)[:, :1].view(-1)
        except RuntimeError:  # torch 2.6
            pytest.skip("this torch asks the driver for a device even if tensors are fake")
    drawn = lane_state.generator
    for place in ("lrwd_sweep.engine.lane_state.generator", "lrwd_sweep.engine.pack.generator"):
        monkeypatch.setattr(place, lambda seed, purpose, device="cpu": drawn(seed, purpose))
    monkeypatch.setattr("lrwd_sweep.optim.update.torch_compiled", lambda function, *_: function)
    yield monkeypatch
    for made in (splits, update._rows):  # what was made meanwhile holds fake tensors
        made.cache_clear()
    _built.clear()


def _one_epoch(name: str, patch: pytest.MonkeyPatch, **options: object) -> None:
    """Take an epoch, and assert that all that a program holds is on the device."""
    net = network(of := task(**options))  # type: ignore[arg-type]
    if isinstance(net, ModuleNetwork):  # its values are drawn on the host
        init, _ = net.init(torch.Generator()), net.scale_invariant
        patch.setattr(net, "init", lambda stream: init)
    with FakeTensorMode(allow_non_fake_inputs=True), patch.context() as unreal:
        unreal.setattr(torch.autograd, "backward", Mock())  # autograd needs streams of a real device
        unreal.setattr(torch.autograd, "grad", lambda loss, x, **_: list(map(torch.zeros_like, x)))
        here = (splits().train, splits().validation, splits().test)
        made = ((torch.zeros_like(one.x), torch.zeros_like(one.y)) for one in here)
        trainer = pack(name, of, data=Splits(*(Split(x.to(GPU), y.to(GPU)) for x, y in made)))
        assert not trainer.on_host
        program = trainer._again()
        program.begin(torch.arange(48, device=GPU))
        with _OnGpu(), torch.inference_mode():  # type: ignore[no-untyped-call]
            theta = trainer.diagnostics.before()
            while program.done < of.steps_per_epoch:
                program.go(of.steps_per_epoch)
            if theta is not None:
                trainer.diagnostics._turned(theta, 0.5)
            trainer.evaluate(trainer.splits.validation)
    places = {x.device for x in (program.theta, program.total, program.order, program.k, program.t)}
    assert (places, program.done) == ({GPU}, 3), (name, options)


NETS = [("mlp-norm", "native"), ("cnn-norm", "native"), ("resnet20", "vmap"), ("shake26-2x32d", "loop")]
UPDATES = "sgd", "amsgradw:lr-scaled", "rmspropw:corrected", "adagradw:normalized", "adamp", "sgdp"
EPOCHS: list[tuple[str, str, dict[str, str]]] = [
    *((name, "mlp-norm", {}) for name in UPDATES),
    ("adamw", "mlp-norm", {"augment": "crop-flip-cutout"}),
    *(("adamw", net, {"precision": "bfloat16"}) for net in ("mlp", "cnn-norm")),
    *(("adamw", net, {"engine": engine}) for net, engine in (("mlp-norm", "loop"), ("cnn", "vmap"))),
]
LARGE = [("adamw", net, {"engine": engine}) for net, engine in (("cnn", "loop"), *NETS[2:])]


@pytest.mark.parametrize("epochs", [EPOCHS, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_updates_images_and_networks_stay_on_the_device(epochs: Any, unreal: pytest.MonkeyPatch) -> None:
    for name, net, options in epochs:
        _one_epoch(name, unreal, net=net, **options)


REAL = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@REAL
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # a prototype
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("net", "engine"), NETS)
def test_an_epoch_is_replayed_without_waiting(net: str, engine: str, precision: str) -> None:
    of = task(net, engine=engine, precision=precision, batch_size=8, augment="crop-flip")
    real = pack("adamw", of, data=splits().to(GPU, F32))
    with current(GPU):
        program = real.prepared(torch.arange(48, device=GPU))
        assert program.replay is not None
        torch.cuda.set_sync_debug_mode("error")  # waiting for the device raises
        try:
            while program.done < of.steps_per_epoch:
                program.go(of.steps_per_epoch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert (bool(program.theta.isfinite().all()), int(program.t)) == (True, of.steps_per_epoch)


@REAL
@pytest.mark.parametrize(("net", "engine"), [*NETS[:2], ("cnn", "loop")])
def test_a_lane_equals_that_of_the_cpu(net: str, engine: str) -> None:
    for name in ("sgd", "adamw", "amsgradw", "adagradw", "rmspropw", "sgdp", "adamp"):
        of = task(net, engine=engine)
        here, there = (pack(name, of, data=splits(F64).to(device, F64)).run() for device in (CPU, GPU))
        for one, other in zip(here, there, strict=True):
            assert {n: other.metrics[n] for n in one.metrics} == pytest.approx(one.metrics, rel=1e-6), name
