"""A process that trains uses one thread per pack, and keeps to the machine's and its container's limits."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from lrwd_sweep.engine import device
from lrwd_sweep.errors import DeviceError, UnknownName

CPU = torch.device("cpu")
GIB = 1 << 30


def _blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_products_use_one_thread_while_packs_train() -> None:
    before = torch.get_num_threads(), _blas_threads()
    with device.threads_kept():
        assert device.prepare(CPU) >= 1
        assert (torch.get_num_threads(), _blas_threads()) == (1, {1})
    assert (torch.get_num_threads(), _blas_threads()) == before


def test_compiled_loops_flush_subnormal_numbers() -> None:
    from lrwd_sweep.optim.jit import compiled

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
    return {
        "memory": {**used, "memory.limit_in_bytes": limit},
        "cpu": {"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": 100000},
    }


def test_limits_are_read_from_control_groups_of_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: {16 << 20} kB\nMemAvailable: {12 << 20} kB\n")
    for name, path in (("MEMORY", "meminfo"), ("GROUPS", "cgroup"), ("MOUNTED", "fs")):
        monkeypatch.setattr(device, name, str(tmp_path / path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    none = "inactive_file 0"
    cached = _v2(4 * GIB, GIB, f"anon 1\ninactive_file {GIB // 2}\nactive_file 7", "250000 100000")
    pods, job = _v2(3 * GIB, GIB, none, "200000 100000"), _v2("max", GIB, none)
    docker = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/x\n0::/\n"
    cases: tuple[tuple[str, str | None, dict[str, dict[str, object]], int, int], ...] = (
        ("no groups", None, {}, 12 * GIB, 64),
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
        if groups is not None:
            (tmp_path / "cgroup").write_text(groups)
        assert (device.free_on_host(), device.cores()) == (free, cores), case
