"""An axis is the same whichever way it is given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import canonical, format_axis
from lrwd_sweep.spec.request import Request, axis

VALUES = st.lists(st.floats(1e-12, 1e12).map(canonical), min_size=2, max_size=8, unique=True)


@given(VALUES, st.randoms(use_true_random=False))
def test_an_axis_of_numbers_is_the_one_that_is_written(values: list[float], order: object) -> None:
    order.shuffle(values)  # type: ignore[attr-defined]
    written = axis(format_axis(tuple(sorted(values))), "lr")
    assert axis(values, "lr") == axis(np.array(values), "lr") == axis(iter(values), "lr") == written


def test_numbers_may_begin_with_a_baseline_where_text_may() -> None:
    assert axis([0.1, 0, 1], "wd") == axis("0,0.1,1", "wd")
    with pytest.raises(UsageError, match="positive"):
        axis([0, 0.1, 1], "lr")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (0.1, "is no axis"),
        ([0.1, None], "is no axis"),
        ([], "empty"),
        ([0.1], "single value"),
        ([0.1, 0.1, 0.2], "twice"),
        ([0.1, float("nan")], "not a positive number"),
        ([-0.1, 0.1, 1.0], "not a positive number"),
    ],
)
def test_what_is_no_axis_is_refused_in_one_line(given: object, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        axis(given, "lr")  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_a_precision_that_is_asked_for_is_in_the_specification_and_the_name() -> None:
    plain, rounded = Request(), Request(overrides=(("precision", "bfloat16"),))
    specs = [request.spec(request.variant("adam")) for request in (plain, rounded)]
    assert [spec.task and spec.task.precision for spec in specs] == ["float32", "bfloat16"]
    assert rounded.name(specs[1]) == f"{plain.name(specs[0])}-bfloat16"
