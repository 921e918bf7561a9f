"""A small task for networks: images of 8×8 in four classes, with noise on every pixel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lrwd_sweep.data import Split, Splits
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task

SIZES = DataSet(train=48, validation=20, test=20, classes=4, shape=(1, 8, 8))
ADAMW, SGDW = Optimizer.parse("adamw"), Optimizer.parse("sgdw")
WAYS = [  # every way to train: network and engine
    *[(net, "native") for net in ("mlp-norm", "mlp", "cnn-norm", "cnn")],
    *[(net, "loop") for net in ("mlp-norm", "cnn-norm", "cnn", "tests.nets.awkward:Normed")],
    *[(net, "vmap") for net in ("mlp", "cnn", "tests.nets.awkward:Normed", "tests.nets.awkward:Dropping")],
]


def task(net: str, epochs: int = 2, **options: object) -> Task:
    """Return a task of three steps of 16 images per epoch."""
    return Task(**{"net": net, "epochs": epochs, "batch_size": 16, "sizes": SIZES, **options})  # type: ignore[arg-type]


def tiny_splits(dtype: torch.dtype, shape: tuple[int, ...] = SIZES.shape) -> Splits:
    """Make the task's images, or such of another shape."""
    stream = torch.Generator().manual_seed(0)
    centres = torch.randn(SIZES.classes, *shape, generator=stream, dtype=torch.float64)

    def split(count: int) -> Split:
        y = torch.arange(count) % SIZES.classes
        return Split(centres[y] + torch.randn(count, *shape, generator=stream, dtype=torch.float64), y)

    splits = Splits(split(SIZES.train), split(SIZES.validation), split(SIZES.test))
    return splits.to(torch.device("cpu"), dtype)


@pytest.fixture(scope="session")
def tiny64() -> Splits:
    """Return the task's data in float64."""
    return tiny_splits(torch.float64)


@pytest.fixture(scope="session")
def tiny32() -> Splits:
    """Return the task's data in float32."""
    return tiny_splits(torch.float32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread, as the engine does on a CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
