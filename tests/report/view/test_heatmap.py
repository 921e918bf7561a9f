"""The heatmap shows values, marks, colours and ridge at every width; its scale says what it clips."""

import re
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.paper_figure import colour_scale
from lrwd_sweep.report.view.tiles import Mark, Numbers, Scale, Tiles, colour, dimmed, luminance, text_on
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.separability import analyse
from lrwd_sweep.science.surface import CellStatus, Float
from lrwd_sweep.science.trial import Direction
from tests import studies
from tests.report.view.examples import coloured, contrast, drawn, known, stopped, surface, valley

FORMULA = Optimizer.parse("adamw").formula
DRAWN = """\
adamw   θ ← θ − η(α m̂/(√v̂+ε) + λθ)
2⁻¹   .524    .269 ┃.164○ .209○ .404
2⁻²   .487    .232 ┃.127○ .172○ .366
2⁻³   .474    .219○┃.114★ .159○ .354
2⁻⁴   .487    .232○┃.127○ .172○ .366
2⁻⁵   .774     ×     !     ·   │.654
α↑λ→  0       2⁻⁴   2⁻³   2⁻²   2⁻¹
numbers: val_loss, mean of 3 seeds
rows: learning rate α; columns: weight decay λ (independent)
★ best   ○ ten best   ┃ row's best, the ridge
│ row's best, not in the slope   × diverged   ! failed
· missing
"""


def test_lattice_with_baseline_and_lost_cells_is_drawn_as_stored_here() -> None:
    found = surface(np.stack([valley(5, 5) + seed / 1000 for seed in range(3)], axis=2), baseline=True)
    found.values[0, 1:4] = np.nan
    for j, status in enumerate((CellStatus.DIVERGED, CellStatus.FAILED, CellStatus.MISSING), start=1):
        found.lanes[0, j] = status.value
    heatmap = Heatmap(found, "adamw", FORMULA, separability=analyse(found))
    assert drawn(heatmap, 60) == DRAWN
    text = " ".join(drawn(heatmap, 60, "ascii").split())
    for part in ("+ lambda*theta)", "2^-3 .474 .219o|.114* .159o .354", "x ! . :.654 lr^wd> 0", ". missing"):
        assert part in text, part
    assert "8;" not in coloured(heatmap, no_color=True)  # neither 38; nor 48;


def test_sixteen_colours_give_five_backgrounds_and_eight_colours_suffice() -> None:
    text = drawn(Heatmap(surface(valley())), force_terminal=True, color_system="standard")
    used = {int(code) for codes in re.findall(r"\x1b\[([\d;]+)m", text) for code in codes.split(";")}
    assert {code for code in used if 40 <= code <= 49 or code >= 100} == {42, 43, 44, 45, 46}
    assert not used & {38, 48, *range(90, 108)}
    (best,) = re.findall(r"\x1b\[([\d;]+)m[^\x1b]*\d★", text)
    assert {"43", "30"} <= set(best.split(";"))  # black on yellow


def test_numbers_become_relative_or_digits_and_no_row_wraps() -> None:
    text = drawn(Heatmap(surface(2310 + valley()), "t"))
    assert "above the best (2310.1" in text
    assert "┃  0★" in text
    text = drawn(Heatmap(surface(valley(6, 25)), "t"), 60)
    assert "digits: tenths of the scale" in text
    assert all(set(row[6:]) <= set("0123456789★○┃ ") for row in text.splitlines()[1:7])
    capped = drawn(Heatmap(surface(np.array([[0.5, 0.4], [2.3, 2.3]]), cap=0.45), "t"))
    assert (capped.count("★ "), ".400★" in capped, "2.30" in capped) == (1, True, True)
    pair = Gallery([Heatmap(surface(valley()), "one"), Heatmap(surface(valley(diagonal=True)), "two")])
    assert ["two" in drawn(pair, width).splitlines()[0] for width in (170, 100)] == [True, False]
    assert drawn(pair, 170).count("★ best") == 1  # one legend
    values = np.ones((100, 100)) + np.random.default_rng(0).random((100, 100))
    values[37, 61] = 0.5
    text = drawn(Gallery([Heatmap(surface(values), "t")], max_rows=25))
    assert text.splitlines()[1 + (99 - 37) // 4].count("★") == 1
    assert "thinned: each tile is the best of 4×2 cells" in text
    for rows, columns, width in ((1, 1, 8), (1, 7, 30), (7, 1, 80), (40, 25, 8), (40, 25, 170), (11, 12, 30)):
        lines = drawn(Heatmap(surface(valley(rows, columns), baseline=columns > 7), ""), width).splitlines()
        assert lines[rows].startswith("α↑"), (rows, columns, width)


def test_cells_that_lack_seeds_are_drawn_pale_and_rank_nowhere() -> None:
    found = stopped().surface
    assert {tile.mark for tile in Tiles.of(found).every} == {Mark.PARTIAL, Mark.MISSING}
    text = " ".join(drawn(Heatmap(found, "t"), 20).split())
    assert "some seeds are missing (42 of 147 runs)" in text
    assert (text.count("~"), "best" in text) == (43, False)
    pale = next(tile for tile in Tiles.of(found).every if tile.mark is Mark.PARTIAL)
    assert pale.colour(Scale(0, 1)) == dimmed(colour(Scale(0, 1).goodness(pale.value or 0)))
    assert "○" not in drawn(Heatmap(surface(valley(3, 3)), "t")), "the ten best of nine are all"


def scale_of(*values: Float, direction: Direction = Direction.MINIMIZE, ranked: bool = True) -> Scale:
    return known(Scale.of([replace(surface(each), direction=direction) for each in values], ranked=ranked))


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.floats(0, 1), st.floats(0, 1))
def test_colours_keep_the_order_of_values_and_numbers_tell_tenths_apart(
    low: float, span: float, x: float, y: float
) -> None:
    scale = Scale(low, low + span)
    better, worse = sorted((low + x * span, low + y * span))
    assert scale.goodness(better) >= scale.goodness(worse)
    assert scale.digit(better) <= scale.digit(worse)
    for numbers in filter(None, (Numbers.absolute(scale), Numbers.relative(scale))):
        assert len({numbers.text(low + k * span / 10) for k in range(11)}) == 11


@given(st.lists(st.floats() | st.just(0.0), min_size=12, max_size=12), st.integers(5, 100))
def test_any_values_are_drawn_within_the_width(values: list[float], width: int) -> None:
    grid = np.array(values).reshape(3, 4)
    finite = np.where(np.isfinite(grid) & (np.abs(grid) < 1e150), grid, np.nan)
    drawn(Heatmap(surface(finite), ""), width)


def test_scale_spans_all_surfaces_and_clips_one_absurd_value_and_its_ramp_rises_in_luminance() -> None:
    assert scale_of(valley(), valley() - 0.05).bright == pytest.approx(float(valley().min()) - 0.05)
    reach = 2 * (np.median(valley()) - valley().min())  # of the ramp, to twice the height of the better half
    assert scale_of(valley()).dark == pytest.approx(float(valley().min() + reach))
    assert scale_of(np.full((3, 3), 0.5)).goodness(0.5) == 1.0
    for absurd, direction in product((6e15, -6e15), Direction):
        values = valley()
        values[3, 3] = absurd
        ordinary, scale = scale_of(valley(), direction=direction), scale_of(values, direction=direction)
        assert (scale.bright, scale.dark) == pytest.approx((ordinary.bright, ordinary.dark), rel=0.05)
        better = (absurd > 0) is (direction is Direction.MAXIMIZE)
        assert (scale.clipped_bright, scale.clipped) == (better, ordinary.clipped or not better)
        assert scale.goodness(absurd) == better
        beyond = "above" if absurd > 0 else "below"
        assert any(end.endswith(f"and {beyond} (clipped)") for end in scale.ends)
        diagnostic = scale_of(values, ranked=False)
        assert (diagnostic.clipped_bright, diagnostic.clipped) == (absurd < 0, absurd > 0)
        assert Numbers.relative(scale_of(2310 + values)).text(absurd) == (">" if absurd > 0 else "<")
    ramp = [colour(k / 64) for k in range(65)]
    assert all(luminance(a) < luminance(b) for a, b in pairwise(ramp))
    assert all(contrast(background, text_on(background)) >= 4.5 for background in ramp)  # WCAG AA


def test_a_maximised_study_is_drawn_as_its_negative() -> None:
    low = studies.plain(studies.study(studies.ridge, "low"))
    high = studies.mirrored(low)
    marks = [Tiles.of(each.surface, each.separability).every for each in (low, high)]
    assert [(t.mark, t.ridge) for t in marks[0]] == [(t.mark, t.ridge) for t in marks[1]]
    ((pooled, *_),) = Tiles.of(high.surface, pool=(7, 7)).rows
    assert pooled.value == high.ranked(1)[0].value
    scale, (norm, ramp, _) = known(Scale.of([low.surface])), colour_scale([high.surface])
    assert (norm.vmin, norm.vmax) == (-scale.dark, -scale.bright)
    assert ramp(1.0) == colour_scale([low.surface])[1](0.0)
    text = drawn(Heatmap(replace(surface(2310 - valley()), direction=Direction.MAXIMIZE), "t"))
    for part in ("below the best (2309.8", "┃ 0★", "higher is better"):
        assert part in " ".join(text.split()), part
