"""The scale keeps the basin's contrast, states what it clips, and its colours keep their order in grey."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.view.scale import Numbers, Scale, colour, luminance, text_on
from lrwd_sweep.science.trial import Direction
from tests.report.view.examples import surface, valley


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


ABSURD = (6e15, -6e15)


def test_one_absurd_value_leaves_the_others_their_colours() -> None:
    for absurd, direction in product(ABSURD, Direction):
        values = valley()
        ordinary = Scale.of([replace(surface(values), direction=direction)])
        values[3, 3] = absurd
        scale = Scale.of([replace(surface(values), direction=direction)])
        assert scale is not None
        assert ordinary is not None
        assert (scale.bright, scale.dark) == pytest.approx((ordinary.bright, ordinary.dark), rel=0.05)
        better = (absurd > 0) is (direction is Direction.MAXIMIZE)
        assert (scale.clipped_bright, scale.clipped) == (better, ordinary.clipped or not better)
        assert scale.goodness(absurd) == better
        beyond = "above" if absurd > 0 else "below"
        assert any(end.endswith(f"and {beyond} (clipped)") for end in scale.ends)


def test_an_absurd_value_leaves_the_others_their_numbers() -> None:
    for absurd in ABSURD:
        values = 2310 + valley()
        values[3, 3] = absurd
        scale = Scale.of([surface(values)])
        assert scale is not None
        assert Numbers.absolute(scale) is None
        numbers = Numbers.relative(scale)
        assert numbers.text(float(values[0, 0])) == "66"
        assert numbers.text(absurd) == (">" if absurd > 0 else "<")


def test_absurd_values_of_a_diagnostic_are_clipped() -> None:
    for absurd in ABSURD:
        values = valley()
        values[3, 3] = absurd
        scale = Scale.of([surface(values)], ranked=False)
        assert scale is not None
        assert scale.dark == pytest.approx(values[np.abs(values) < 1e9].max())
        assert (scale.clipped_bright, scale.clipped) == (absurd < 0, absurd > 0)


def test_more_than_half_absurd_values_leave_the_others_their_colours() -> None:
    values = valley()
    values[5:] = 1e9
    scale = Scale.of([surface(values)])
    assert scale is not None
    assert scale.dark < 100


def test_few_good_cells_among_many_at_chance_are_no_outliers() -> None:
    values = np.full((11, 11), 2.3)
    values[5, :4] = [0.1, 0.2, 0.4, 0.8]
    scale = Scale.of([surface(values)])
    assert scale is not None
    assert (scale.bright, scale.clipped_bright) == (0.1, False)


def test_a_value_of_some_of_the_seeds_is_not_called_the_best() -> None:
    values = np.stack([valley(), valley()], axis=2)
    values[3, 3] = [0.01, np.nan]
    scale = Scale.of([surface(values)])
    assert scale is not None
    assert (scale.bright, scale.brightest) == (0.01, "lowest")


RAMP = [colour(k / 64) for k in range(65)]


def lightness(rgb: tuple[int, int, int]) -> float:
    """Return CIE L* of a colour, 0 to 100."""
    y = luminance(rgb)
    return 116 * y ** (1 / 3) - 16 if y > 216 / 24389 else y * 24389 / 27


def test_lightness_of_the_ramp_rises_in_even_steps() -> None:
    steps = [lightness(b) - lightness(a) for a, b in pairwise(RAMP)]
    assert min(steps) > 0
    assert max(steps) < 2.5 * sum(steps) / len(steps)
    assert lightness(RAMP[-1]) - lightness(RAMP[0]) > 60
    assert (colour(-3), colour(7)) == (colour(0), colour(1))


def test_text_on_every_colour_has_the_contrast_of_wcag_aa() -> None:
    for background in RAMP:
        dark, light = sorted((luminance(background), luminance(text_on(background))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, background
