"""Columns of the arena that a set of tensors occupies."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from lrwd_sweep.optim.layout import columns
from tests.optim.problem import layout

shapes = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8)


@settings(deadline=None)
@given(shapes, st.data())
def test_columns_of_tensors_are_merged_into_the_fewest_slices(
    chosen: list[tuple[int, ...]], data: st.DataObject
) -> None:
    segments = [segment for segment in layout(chosen) if data.draw(st.booleans())]
    found = columns(segments)
    assert [i for part in found for i in range(part.start, part.stop)] == [
        i for segment in segments for i in range(segment.start, segment.stop)
    ]
    assert all(left.stop < right.start for left, right in pairwise(found))
