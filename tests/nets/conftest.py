"""A small task for networks: images of 8×8 in four classes, a pixel of noise everywhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task

SIZES = DataSet(train=48, validation=20, test=20, classes=4, shape=(1, 8, 8))


def task(net: str, epochs: int = 2, **options: object) -> Task:
    """Three steps of 16 images per epoch."""
    return Task(**{"net": net, "epochs": epochs, "batch_size": 16, "sizes": SIZES, **options})  # type: ignore[arg-type]


def _splits(dtype: torch.dtype) -> Splits:
    stream = torch.Generator().manual_seed(0)
    centres = torch.randn(SIZES.classes, *SIZES.shape, generator=stream, dtype=torch.float64)

    def split(count: int) -> Split:
        y = torch.arange(count) % SIZES.classes
        x = centres[y] + torch.randn(count, *SIZES.shape, generator=stream, dtype=torch.float64)
        return Split(x, y)

    splits = Splits(split(SIZES.train), split(SIZES.validation), split(SIZES.test))
    return splits.to(torch.device("cpu"), dtype)


@pytest.fixture(scope="session")
def tiny64() -> Splits:
    """The task in float64."""
    return _splits(torch.float64)


@pytest.fixture(scope="session")
def tiny32() -> Splits:
    """The task in float32."""
    return _splits(torch.float32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the engine trains on a CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
