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


def _blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_products_use_one_thread_while_packs_train() -> None:
    threads, before = torch.get_num_threads(), _blas_threads()
    with device.threads_kept():
        assert device.prepare(CPU) >= 1
        assert torch.get_num_threads() == 1
        assert _blas_threads() == {1}
    assert torch.get_num_threads() == threads
    assert _blas_threads() == before


def test_compiled_loops_flush_subnormal_numbers() -> None:
    from lrwd_sweep.optim.jit import compiled

    half = compiled(lambda x: x * np.float32(0.5))
    tiny = np.float32(2.0**-126)  # the smallest normal number
    assert half(tiny) > 0
    try:
        device.prepare_thread(CPU)
        assert half(tiny) == 0
    finally:
        torch.set_flush_denormal(False)


def test_a_missing_device_is_refused() -> None:
    for name, error in (("tpu", UnknownName), ("cpu:1", UnknownName), ("cuda:99", DeviceError)):
        with pytest.raises(error):
            device.choose(name)


def test_errors_that_report_a_full_device_are_recognised() -> None:
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ):
        assert device.is_out_of_memory(error), error
    assert not device.is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


GIB = 1 << 30
UNLIMITED = "9223372036854771712"  # of version 1


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a system of 16 GiB, 12 of them available, without control groups."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {16 << 20} kB\nMemAvailable: {12 << 20} kB\n")
    (tmp_path / "fs").mkdir()
    for name, path in (("MEMORY", "meminfo"), ("GROUPS", "cgroup"), ("MOUNTED", "fs")):
        monkeypatch.setattr(device, name, str(tmp_path / path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    return tmp_path


def make(root: Path, group: str, **files: object) -> None:
    """Make a control group: a dot of a file's name is written __."""
    folder = root / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_limits_are_read_from_control_groups_of_both_versions(system: Path) -> None:
    stat, web = "inactive_file 0", {"cpu__max": "250000 100000"}
    v1: dict[str, object] = {"memory__usage_in_bytes": GIB, "memory__stat": "total_inactive_file 4096"}
    half: dict[str, object] = {"cpu__cfs_quota_us": 50000, "cpu__cfs_period_us": 100000}
    cached = _v2(4 * GIB, GIB, f"anon 1\ninactive_file {GIB // 2}\nactive_file 7") | web
    pods = _v2(3 * GIB, GIB, stat) | {"cpu__max": "200000 100000"}
    job = _v2("max", GIB, stat) | {"cpu__max": "max 100000"}
    limited = {"memory": v1 | {"memory__limit_in_bytes": 2 * GIB}, "cpu": half}
    most, all_ = {"memory__limit_in_bytes": UNLIMITED}, {"cpu__cfs_quota_us": -1}
    unlimited = {"memory": v1 | most, "cpu": half | all_}
    words = {".": _v2("much", 1, stat) | {"cpu__max": "1 2 3"}}
    docker = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/x\n0::/\n"
    cases: tuple[tuple[str, str | None, dict[str, dict[str, object]], int, int], ...] = (
        ("no groups", None, {}, 12 * GIB, 64),
        ("version 2: cached files are free", "0::/\n", {".": cached}, 3 * GIB + GIB // 2, 3),
        ("the tightest of the groups", "0::/pods/job\n", {"pods": pods, "pods/job": job}, 2 * GIB, 2),
        ("version 1 in a container, at the root", docker, limited, GIB + 4096, 1),
        ("version 1 without limits", "5:cpu,cpuacct:/\n4:memory:/\n", unlimited, 12 * GIB, 64),
        ("over the limit", "0::/\n", {".": _v2(GIB, GIB + 8192, "inactive_file 4096")}, 0, 64),
        ("unreadable", "nonsense\n0::/../..\n", {}, 12 * GIB, 64),
        ("words", "0::/\nnonsense\n", words, 12 * GIB, 64),
        ("no use", "0::/\n", {".": {"memory__max": 1, "cpu__max": ""}}, 12 * GIB, 64),
    )
    for case, groups, made, free, cores in cases:
        shutil.rmtree(system / "fs")
        for group, files in {".": {}, **made}.items():
            make(system / "fs", group, **files)
        if groups is not None:
            (system / "cgroup").write_text(groups)
        assert (device.free_on_host(), device.cores()) == (free, cores), case


def _v2(limit: object, used: int, stat: str) -> dict[str, object]:
    return {"memory__max": limit, "memory__current": used, "memory__stat": stat}
