"""Windows of images equal torch's unfold, and their sum is its adjoint."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lrwd_sweep.nets.lane_layers import Windows

SIZES = st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 9)] * 2, st.integers(1, 4))


@settings(max_examples=40)
@given(SIZES, st.sampled_from([1, 2]))
def test_columns_equal_unfold_and_sum_is_the_adjoint(sizes: tuple[int, ...], stride: int) -> None:
    x = torch.randn(sizes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    windows = Windows(sizes, stride, x)
    lanes, channels, *_, batch = sizes
    batch_first = x.movedim(-1, 1).flatten(0, 1)
    unfolded = functional.unfold(batch_first, 3, padding=1, stride=stride)  # (L·B, C·9, H′·W′)
    columns = unfolded.view(lanes, batch, channels * 9, -1).movedim(1, -1).flatten(2)
    for _ in range(2):  # nothing remains of the images before
        assert torch.equal(windows.of(x), columns)
    other = torch.randn(columns.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    windows.gradient.copy_(other)
    torch.testing.assert_close((columns * other).sum(), (x.flatten(2) * windows.sum()).sum())


def test_nine_windows_of_bfloat16_are_added_without_rounding() -> None:
    windows = Windows((1, 1, 3, 3, 1), 1, torch.empty(0, dtype=torch.bfloat16))
    windows.gradient.fill_(1 + 2**-7)
    found = windows.sum()
    assert found.dtype is torch.float32
    assert float(found[0, 0, 4]) == 9 * (1 + 2**-7)
