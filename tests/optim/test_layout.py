"""Which columns of the arena a set of tensors is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from lrwd_sweep.optim.layout import columns
from tests.optim.problem import layout

shapes = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8)


@settings(deadline=None)
@given(shapes, st.data())
def test_merged_columns_are_those_of_the_chosen_tensors_in_as_few_slices_as_can_be(
    chosen: list[tuple[int, ...]], data: st.DataObject
) -> None:
    segments = [segment for segment in layout(chosen) if data.draw(st.booleans())]
    found = columns(segments)
    assert [i for part in found for i in range(part.start, part.stop)] == [
        i for segment in segments for i in range(segment.start, segment.stop)
    ]
    assert all(left.stop < right.start for left, right in pairwise(found))


@settings(deadline=None)
@given(shapes)
def test_everything_is_one_slice(chosen: list[tuple[int, ...]]) -> None:
    segments = layout(chosen)
    assert columns(segments) == (slice(0, segments[-1].stop),)


def test_a_matrix_has_more_than_one_dimension() -> None:
    assert [s.is_matrix for s in layout([(3,), (3, 1), (2, 3, 1, 1), ()])] == [False, True, True, False]
