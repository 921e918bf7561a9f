"""A process that trains uses one thread per pack, in torch and in BLAS, and restores the others."""

from __future__ import annotations

import subprocess
import sys
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


RESIDENT = """
import torch
from lrwd_sweep.engine import device

def resident():
    return int(open("/proc/self/statm").read().split()[1]) << 12

device.prepare(torch.device("cpu"))
blocks = [torch.ones(1 << 20) for _ in range(100)]  # 4 MiB each
last = torch.ones(1 << 20)  # which keeps the heap from shrinking by itself
full = resident()
del blocks
kept = resident()
device.free_bytes(torch.device("cpu"))
print(full - kept, full - resident())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux reports resident memory")
def test_memory_that_glibc_only_keeps_counts_as_free() -> None:
    found = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    before, after = map(int, found.stdout.split())
    assert before < 40 << 20
    assert after > 390 << 20
