"""Devices: choice by name, set-up of the process, cores and free memory.

A container has less than the machine reports. Linux limits processes by control groups, of version 2 or 1
(cgroups(7)); every group is within its parent's limits. On other systems, or if a file cannot be read,
nothing is limited.
"""

import ctypes
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import scipy.linalg.cython_blas  # type: ignore[import-untyped]  # noqa: F401  # loads scipy's BLAS
import torch
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from lrwd_sweep.errors import DeviceError, UnknownName, arg

Device = torch.device  # for packages that do not import torch

NAMES = ("auto", "cpu", "cuda")

MAX_WORKERS = 64  # packs at a time on one machine

# torch on a CPU; CUDA and Triton; cuBLAS and cuDNN
_NO_ROOM = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")

MEMORY = "/proc/meminfo"
GROUPS = "/proc/self/cgroup"  # a line per hierarchy: number, its controllers, this process's group
MOUNTED = "/sys/fs/cgroup"  # version 2 itself; in version 1 a folder per controller

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc malloc.h


def choose(name: str) -> torch.device:
    """Return the device of a name; "auto" prefers CUDA. Raises UnknownName or DeviceError."""
    kind, _, index = name.partition(":")
    if kind not in NAMES or (index and not (kind == "cuda" and index.isdecimal())):
        raise UnknownName("device", name, NAMES, {"gpu": "cuda"})
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{arg('device', name)}: this machine has {torch.cuda.device_count()} CUDA "
            "devices that torch can use; "
            f"use {arg('device', 'cpu')}"
        )
    return torch.device(kind, int(index or 0)) if kind == "cuda" else torch.device("cpu")


def gpu_name(device: torch.device) -> str | None:
    """Return the product name of a GPU; None for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def prepare(device: torch.device) -> int:
    """Set this process up for training; return the number of packs to train at a time.

    On glibc freed blocks stay in the process: the same few megabytes come and go at every step, and
    returning them to the system costs more than the arithmetic done in them.
    """
    if device.type != "cpu":
        return 1
    if (mallopt := _of_libc("mallopt")) is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # glibc's own maximum
        mallopt(_M_ARENA_MAX, 1)  # a second arena keeps twice the memory
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    _blas().limit(limits=1)
    torch.set_num_threads(1)
    return min(cores(), MAX_WORKERS)


def places(name: str) -> tuple[torch.device, ...]:
    """Set this process up for training; return a device per pack trained at a time.

    That is every GPU, if the name has no number, or one per core. Raises UnknownName or DeviceError.
    """
    device = choose(name)
    workers = prepare(device)
    if device.type == "cuda" and ":" not in name:
        return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    return (device,) * workers


def prepare_thread(device: torch.device) -> None:
    """Flush subnormal numbers in the calling thread: they make high-decay corners ten times slower."""
    if device.type == "cpu":
        torch.set_flush_denormal(True)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception says that the device has no room."""
    said = any(sign in str(error) for sign in _NO_ROOM)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or said


def give_back(device: torch.device) -> None:
    """Free the GPU memory that this process caches unused."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int:
    """Free this process's unused caches and return the bytes free for allocation."""
    if device.type == "cuda":
        give_back(device)
        return int(torch.cuda.mem_get_info(device)[0])
    if (trim := _of_libc("malloc_trim")) is not None:
        trim(0)
    return free_on_host()


def _of_libc(name: str) -> Callable[..., int] | None:
    """Return a function of glibc; None if the system's library does not have it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


@contextmanager
def threads_kept() -> Iterator[None]:
    """Restore the threads of torch and BLAS: `prepare` would slow a host program down."""
    threads = torch.get_num_threads()
    try:
        with _blas().limit():
            yield
    finally:
        torch.set_num_threads(threads)


def _blas() -> ThreadpoolController:
    """Select the BLAS of numpy and scipy."""
    return ThreadpoolController().select(user_api="blas")


def cores() -> int:
    """Return the number of cores that this process can use at a time, at least one."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([here, *(math.ceil(quota) for quota in _limits("cpu", _quota))]))


def free_on_host() -> int:
    """Return the bytes that an allocation on the CPU could have now."""
    return max(0, min([_free_of_machine(), *(int(room) for room in _limits("memory", _room))]))


def _free_of_machine() -> int:
    """Return the free bytes of the whole machine."""
    try:
        with open(MEMORY, encoding="ascii") as lines:
            table = dict(line.split(":", 1) for line in lines)
        return int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        known = hasattr(os, "sysconf")
        return (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 4 << 30) // 2


def _limits(controller: str, limit: Callable[[Path, int], float]) -> Iterator[float]:
    """Yield the limits of this process's group and of all groups around it."""
    for group, kind in _groups(controller):
        with suppress(OSError, ValueError, KeyError):
            if math.isfinite(found := limit(group, kind)):
                yield found


def _groups(controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the groups, and their version, from the process's own to the root; some may be hidden."""
    with suppress(OSError, ValueError), open(GROUPS, encoding="utf-8") as lines:
        for line in lines:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = Path(MOUNTED, controller) if controllers else Path(MOUNTED)
            inner = root / path.lstrip("/")
            for group in (inner, *inner.parents):
                yield group, 1 if controllers else 2
                if group == root:
                    break


def _quota(group: Path, kind: int) -> float:
    """Return seconds of computing per second."""
    if kind == 2:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if quota == "max" else float(quota) / float(period)
    quota_us = _number(group / "cpu.cfs_quota_us")
    return math.inf if quota_us < 0 else quota_us / _number(group / "cpu.cfs_period_us")


def _room(group: Path, kind: int) -> float:
    """Return the bytes up to the limit; cached files count as free, since they yield to allocations."""
    if kind == 2:
        limit, used, kept = "memory.max", "memory.current", "inactive_file"
    else:
        limit, used, kept = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    cached = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    return _number(group / limit) - _number(group / used) + float(cached[kept])


def _number(file: Path) -> float:
    text = file.read_text(encoding="ascii").strip()
    return math.inf if text == "max" else float(text)


def machine(gpu: str | None = None) -> dict[str, Any]:
    """Describe this machine and its software for JSON, with the date; `gpu` is the name of the GPU in use."""
    return {
        "gpu": gpu,
        "cpu": cpu_name() or platform.processor() or platform.machine(),
        "cores": cores(),
        "load": load(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
        "optuna": version("optuna"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def load() -> float | None:
    """Return the mean number of running processes in the last minute; None if the system does not count."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def cpu_name() -> str:
    """Return the processor's name; empty if the system does not tell it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""
