"""The colours keep their order in grey, and text on them can be read."""

from __future__ import annotations

from itertools import pairwise

from lrwd_sweep.report.view.ramp import colour, luminance, text_on

RAMP = [colour(k / 64) for k in range(65)]


def lightness(rgb: tuple[int, int, int]) -> float:
    """CIE L* of a colour, 0 to 100."""
    y = luminance(rgb)
    return 116 * y ** (1 / 3) - 16 if y > 216 / 24389 else y * 24389 / 27


def test_lightness_rises_all_the_way_in_even_steps() -> None:
    steps = [lightness(b) - lightness(a) for a, b in pairwise(RAMP)]
    assert min(steps) > 0
    assert max(steps) < 2.5 * sum(steps) / len(steps)
    assert lightness(RAMP[-1]) - lightness(RAMP[0]) > 60


def test_text_on_every_colour_has_the_contrast_of_wcag_aa() -> None:
    for background in RAMP:
        dark, light = sorted((luminance(background), luminance(text_on(background))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_goodness_outside_the_scale_is_clipped() -> None:
    assert colour(-3) == colour(0)
    assert colour(7) == colour(1)
