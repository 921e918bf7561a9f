"""A process that trains uses one thread per pack, in torch and in BLAS, and gives the others back."""

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


def test_products_are_of_one_thread_while_packs_train() -> None:
    threads, before = torch.get_num_threads(), _blas_threads()
    with device.threads_kept():
        assert device.prepare(CPU) >= 1
        assert torch.get_num_threads() == 1
        assert _blas_threads() == {1}
    assert torch.get_num_threads() == threads
    assert _blas_threads() == before


def test_compiled_loops_take_no_pains_over_subnormal_numbers() -> None:
    """They make high-decay corners ten times slower; torch's switch is the processor's, of the thread."""
    from lrwd_sweep.optim.jit import compiled

    half = compiled(lambda x: x * np.float32(0.5))
    tiny = np.float32(2.0**-126)  # the smallest that is normal
    assert half(tiny) > 0
    try:
        device.prepare_thread(CPU)
        assert half(tiny) == 0
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize(
    ("name", "error"), [("tpu", UnknownName), ("cpu:1", UnknownName), ("cuda:99", DeviceError)]
)
def test_a_device_that_is_not_there_is_refused(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        device.choose(name)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells what is resident")
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_what_says_that_there_is_no_room_is_known(error: Exception, expected: bool) -> None:
    assert device.is_out_of_memory(error) is expected


def test_memory_that_this_process_only_keeps_counts_as_free() -> None:
    """glibc keeps freed blocks, so that a study after another would find no room beside the first one's."""
    code = """
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
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, found.stdout.split())
    assert before < 40 << 20
    assert after > 390 << 20
