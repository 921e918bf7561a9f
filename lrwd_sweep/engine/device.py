"""Devices: choice by name, set-up of the process, free memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import scipy.linalg.cython_blas  # type: ignore[import-untyped]  # noqa: F401  # loads scipy's BLAS
import torch
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from lrwd_sweep.engine import host
from lrwd_sweep.errors import DeviceError, UnknownName, arg

Device = torch.device  # for packages that do not import torch

NAMES = ("auto", "cpu", "cuda")

MAX_WORKERS = 64  # packs at a time on one machine

# torch on a CPU; CUDA and Triton; cuBLAS and cuDNN
_NO_ROOM = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")

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
    return min(host.cores(), MAX_WORKERS)


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
    return host.free_bytes()


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
