from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lrwd_sweep.data import LOADERS, Splits


@pytest.fixture(scope="session")
def digits64() -> Splits:
    """The digits in float64."""
    return LOADERS["digits"]().to(torch.device("cpu"), torch.float64)


@pytest.fixture(scope="session")
def digits32() -> Splits:
    """The digits in float32."""
    return LOADERS["digits"]().to(torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """The engine sets torch's threads for its process; give them back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
