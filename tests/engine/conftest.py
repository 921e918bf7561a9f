from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lrwd_sweep.data import Split, Splits, digits


@pytest.fixture(scope="session")
def digits64() -> Splits:
    """The digits in float64, with noise on every pixel.

    Where a pixel is the same in every image, its weights have no gradient but the rounding of a sum, 1e-17,
    which Adam divides by ε = 1e-8: there torch.optim itself follows nobody to 1e-10.
    """
    stream = torch.Generator().manual_seed(0)
    clean = digits.load().to(torch.device("cpu"), torch.float64)
    return Splits(
        *(
            Split(split.x + 0.1 * torch.randn(split.x.shape, generator=stream, dtype=split.x.dtype), split.y)
            for split in (clean.train, clean.validation, clean.test)
        )
    )


@pytest.fixture(scope="session")
def digits32() -> Splits:
    """The digits in float32."""
    return digits.load().to(torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """The engine sets torch's threads for its process; give them back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
