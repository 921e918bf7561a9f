"""Images of bytes are normalised batch by batch, exactly; other numbers are unchanged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lrwd_sweep.data import Pixels, Split, digits

CPU = torch.device("cpu")
images = arrays.arrays(np.uint8, st.tuples(*(st.integers(1, n) for n in (6, 3, 5, 4))))


@given(images)
def test_statistics_are_numpys(x: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    pixels = Pixels.of(torch.from_numpy(x.copy()))
    deviation = x.std(axis=(0, 2, 3))
    assert pixels.mean.flatten().numpy() == pytest.approx(x.mean(axis=(0, 2, 3)))
    assert pixels.deviation.flatten().numpy() == pytest.approx(
        np.where(deviation == 0, 1, deviation), rel=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_its_images_normalised_and_bytes_stay_bytes(dtype: torch.dtype) -> None:
    x = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8)
    split = Split(x, torch.arange(20), Pixels.of(x)).to(CPU, dtype)
    assert (split.x.dtype, split.dtype, split.device) == (torch.uint8, dtype, CPU)
    index = torch.tensor([7, 0, 7])
    numbers, y = split.batch(index)
    exact = (x.double() - x.double().mean((0, 2, 3), keepdim=True)) / x.double().std(
        (0, 2, 3), correction=0, keepdim=True
    )
    assert numbers.dtype == dtype
    assert (numbers - exact[index]).abs().max() < (1e-5 if dtype == torch.float32 else 1e-12)
    assert y.tolist() == [7, 0, 7]


def test_batches_cover_the_split_in_order() -> None:
    x = torch.randint(0, 256, (25, 1, 2, 2), dtype=torch.uint8)
    split = Split(x, torch.arange(25), Pixels.of(x))
    parts = list(split.batches(10))
    assert [len(y) for _, y in parts] == [10, 10, 5]
    whole, _ = split.batch(torch.arange(25))
    assert torch.equal(torch.cat([part for part, _ in parts]), whole)
    assert torch.cat([y for _, y in parts]).tolist() == list(range(25))


def test_batches_of_numbers_are_views() -> None:
    split = digits.load().train.to(CPU, torch.float32)
    index = torch.arange(63, -1, -1)
    assert torch.equal(split.batch(index)[0], split.x[index])
    assert all(x.data_ptr() == split.x[k * 256 :].data_ptr() for k, (x, _) in enumerate(split.batches(256)))
