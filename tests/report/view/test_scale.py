"""The scale keeps the contrast of the basin, says what it clips, and its colours keep their order in grey."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.view.tiles import Numbers, Scale, colour, luminance, text_on
from lrwd_sweep.science.surface import Float
from lrwd_sweep.science.trial import Direction
from tests.report.view.examples import surface, valley

ABSURD = (6e15, -6e15)


def scale_of(*values: Float, direction: Direction = Direction.MINIMIZE, ranked: bool = True) -> Scale:
    found = Scale.of([replace(surface(each), direction=direction) for each in values], ranked=ranked)
    assert found is not None
    return found


def outlying(value: float, values: Float) -> Float:
    """Return a copy in which one cell has this value."""
    values = values.copy()
    values[3, 3] = value
    return values


def test_scale_spans_the_basin_of_all_surfaces() -> None:
    assert scale_of(np.array([[1.0, 2.0], [3.0, 3.5]])) == Scale(1.0, 3.5)
    far = scale_of(outlying(1e6, valley()))
    assert far.clipped
    assert far.dark < 1
    both = scale_of(valley(), valley() - 0.05)
    assert both.bright == pytest.approx(float(valley().min()) - 0.05)
    constant = scale_of(np.full((3, 3), 0.5))
    assert (constant.goodness(0.5), constant.digit(0.5)) == (1.0, "0")
    values = valley()
    values[:6] = 2.3
    assert Scale.of([surface(values, cap=2.3)]) != Scale.of([surface(values)])
    assert scale_of(np.where(np.arange(11)[:, None] < 5, valley(), 1e9)).dark < 100
    chance = np.full((11, 11), 2.3)
    chance[5, :4] = [0.1, 0.2, 0.4, 0.8]
    assert (scale_of(chance).bright, scale_of(chance).clipped_bright) == (0.1, False)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.floats(0, 1), st.floats(0, 1))
def test_worse_values_are_not_drawn_as_better_and_numbers_tell_tenths_apart(
    low: float, span: float, x: float, y: float
) -> None:
    scale = Scale(low, low + span)
    better, worse = sorted((low + x * span, low + y * span))
    assert scale.goodness(better) >= scale.goodness(worse)
    assert scale.digit(better) <= scale.digit(worse)
    for numbers in (Numbers.absolute(scale), Numbers.relative(scale)):
        if numbers is not None:
            assert len({numbers.text(low + k * span / 10) for k in range(11)}) == 11


def test_one_absurd_value_leaves_the_others_their_colours() -> None:
    for absurd, direction in product(ABSURD, Direction):
        ordinary = scale_of(valley(), direction=direction)
        scale = scale_of(outlying(absurd, valley()), direction=direction)
        assert (scale.bright, scale.dark) == pytest.approx((ordinary.bright, ordinary.dark), rel=0.05)
        better = (absurd > 0) is (direction is Direction.MAXIMIZE)
        assert (scale.clipped_bright, scale.clipped) == (better, ordinary.clipped or not better)
        assert scale.goodness(absurd) == better
        beyond = "above" if absurd > 0 else "below"
        assert any(end.endswith(f"and {beyond} (clipped)") for end in scale.ends)


def test_absurd_values_are_clipped_in_numbers_and_diagnostics() -> None:
    for absurd in ABSURD:
        values = 2310 + valley()
        scale = scale_of(outlying(absurd, values))
        assert Numbers.absolute(scale) is None
        numbers = Numbers.relative(scale)
        assert numbers.text(float(values[0, 0])) == "66"
        assert numbers.text(absurd) == (">" if absurd > 0 else "<")
        scale = scale_of(outlying(absurd, valley()), ranked=False)
        assert scale.dark == pytest.approx(valley().max())
        assert (scale.clipped_bright, scale.clipped) == (absurd < 0, absurd > 0)


def test_value_of_some_seeds_is_not_called_the_best() -> None:
    values = np.stack([valley(), valley()], axis=2)
    values[3, 3] = [0.01, np.nan]
    assert (scale_of(values).bright, scale_of(values).brightest) == (0.01, "lowest")


def lightness(rgb: tuple[int, int, int]) -> float:
    """Return CIE L* of a colour, 0 to 100."""
    y = luminance(rgb)
    return 116 * y ** (1 / 3) - 16 if y > 216 / 24389 else y * 24389 / 27


def test_ramp_rises_evenly_in_lightness_under_readable_text() -> None:
    ramp = [colour(k / 64) for k in range(65)]
    steps = [lightness(b) - lightness(a) for a, b in pairwise(ramp)]
    assert min(steps) > 0
    assert max(steps) < 2.5 * sum(steps) / len(steps)
    assert sum(steps) > 60
    assert (colour(-3), colour(7)) == (colour(0), colour(1))
    for background in ramp:
        dark, light = sorted((luminance(background), luminance(text_on(background))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, background  # WCAG AA
