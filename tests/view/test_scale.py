"""The scale keeps the basin's contrast and says what it clips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.view.scale import Numbers, Scale
from tests.view.examples import surface, valley


def test_one_far_value_does_not_flatten_the_basin() -> None:
    values = valley()
    values[0, 0] = 1e6
    scale = Scale.of([surface(values)])
    assert scale is not None
    assert scale.clipped
    assert scale.dark < 1


def test_a_scale_without_far_values_ends_at_the_largest() -> None:
    scale = Scale.of([surface(np.array([[1.0, 2.0], [3.0, 3.5]]))])
    assert scale == Scale(1.0, 3.5)


def test_cells_at_the_cap_do_not_stretch_the_scale() -> None:
    values = valley()
    values[:6] = 2.3
    assert Scale.of([surface(values, cap=2.3)]) != Scale.of([surface(values)])


def test_a_constant_surface_has_a_scale() -> None:
    scale = Scale.of([surface(np.full((3, 3), 0.5))])
    assert scale is not None
    assert (scale.goodness(0.5), scale.digit(0.5)) == (1.0, "0")


def test_shared_scale_begins_at_the_best_of_all() -> None:
    scale = Scale.of([surface(valley()), surface(valley() - 0.05)])
    assert scale is not None
    assert scale.bright == pytest.approx(float(valley().min()) - 0.05)


@given(st.floats(-1e3, 1e3), st.floats(1e-6, 1e3), st.floats(0, 1), st.floats(0, 1))
def test_a_worse_value_is_never_drawn_as_better(low: float, span: float, x: float, y: float) -> None:
    scale = Scale(low, low + span)
    better, worse = sorted((low + x * span, low + y * span))
    assert scale.goodness(better) >= scale.goodness(worse)
    assert scale.digit(better) <= scale.digit(worse)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_numbers_tell_tenths_of_the_scale_apart(low: float, span: float) -> None:
    scale = Scale(low, low + span)
    for numbers in (Numbers.absolute(scale), Numbers.relative(scale)):
        if numbers is not None:
            texts = [numbers.text(low + k * span / 10) for k in range(11)]
            assert len(set(texts)) == 11
