"""The heatmap shows values, marks, colours and ridge at every width; its scale says what it clips."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.notation import superscript
from lrwd_sweep.report.view.tiles import Mark, Numbers, Scale, Tiles, colour, dimmed, luminance, text_on
from lrwd_sweep.science.optimizer import DecayRule, Optimizer
from lrwd_sweep.science.separability import analyse
from lrwd_sweep.science.surface import CellStatus, Float
from lrwd_sweep.science.trial import Direction
from tests.report.view.examples import HOSTILE, coloured, drawn, harmful, stopped, surface, valley
from tests.studies import study, without

FORMULA = Optimizer.parse("adamw").formula


def rows_of(values: Float, *, baseline: bool = False) -> list[str]:
    """Draw the rows of a lattice, the largest α first."""
    return drawn(Heatmap(surface(values, baseline=baseline), "t")).splitlines()[1 : 1 + len(values)]


def test_axes_are_labelled_with_the_largest_learning_rate_on_top() -> None:
    lines = drawn(Heatmap(surface(valley()), "adamw", FORMULA)).splitlines()
    powers = ["2" + superscript(f"-{k}") for k in range(1, 12)]
    assert lines[0].startswith(f"adamw   {FORMULA}")
    assert [line.split()[0].rstrip("┃│") for line in lines[1:12]] == powers
    for k, label in enumerate(reversed(powers)):  # each under its column
        start = cell_len("α↑λ→ ") + 6 * k + 1
        assert lines[12][start:].startswith(label)
        assert lines[11][start] == "." or lines[11][start].isdigit()
    half_powers = replace(surface(valley()), weight_decay=np.exp2(np.arange(-11, 0) * 1.5))
    labels = drawn(Heatmap(half_powers, "t")).splitlines()[12]
    assert labels.split()[1:] == ["2⁻¹⁶·⁵", "2⁻¹³·⁵", "2⁻¹⁰·⁵", "2⁻⁷·⁵", "2⁻⁴·⁵", "2⁻¹·⁵"]
    assert labels.index("2⁻¹³·⁵") - labels.index("2⁻¹⁶·⁵") == 12


def test_ten_best_cells_and_best_of_each_row_are_marked() -> None:
    top, bottom = rows_of(np.array([[0.5, 0.25, 0.375], [0.125, 0.75, 1.5]]))
    assert top.split() == ["2⁻¹", "┃.125★", ".750", "1.50"]
    assert bottom.replace("┃", " ").split() == ["2⁻²", ".500", ".250", ".375"]
    text = "".join(rows_of(valley()))
    assert (text.count("★"), text.count("○")) == (1, 9)
    assert "○" not in drawn(Heatmap(surface(valley(3, 3)), "t"))  # it would mark every cell
    found = rows_of(np.array([[3.0, 1.0, 2.0, 4.0], [1.0, 3.0, 2.0, 4.0], [4.0, 3.0, 2.0, 1.0]]))
    assert [(row.index("┃"), row.split("┃")[1][:4]) for row in found] == [
        (23, "1.00"), (5, "1.00"), (11, "1.00"),
    ]  # fmt: skip
    for row in rows_of(np.array([[0.1, 0.3, 0.2], [0.1, 0.2, 0.3]]), baseline=True):
        assert row.split("┃")[1][:4] == ".200"  # λ = 0 has no part in the ridge


def test_ridge_is_thin_outside_the_slope_and_underlined_between_rows() -> None:
    found = surface(np.stack([valley() + seed / 1000 for seed in range(3)], axis=2))
    separability = analyse(found)
    carrying = {i for i, _ in separability.ridge}
    assert 0 < len(carrying) < 11
    rows = drawn(Heatmap(found, "t", separability=separability)).splitlines()[1:12]
    assert {10 - k for k, row in enumerate(rows) if "┃" in row} == carrying
    assert all(("┃" in row) != ("│" in row) for row in rows)
    text = coloured(Heatmap(surface(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])), "t")).splitlines()
    assert ["\x1b[1;4;" in row for row in text[1:3]] == [True, False]


def test_lost_cells_baseline_and_cap_are_shown() -> None:
    found = surface(valley(4, 4))
    found.values[0, :3] = np.nan
    found.lanes[0, :3, 0] = [CellStatus.DIVERGED.value, CellStatus.FAILED.value, CellStatus.MISSING.value]
    text = drawn(Heatmap(found, "t"))
    assert text.splitlines()[4].split()[1:4] == ["×", "!", "·"]
    assert all(meaning in text for meaning in ("× diverged", "! failed", "· missing"))
    apart, together = (rows_of(valley(3, 4), baseline=zero)[0].rstrip() for zero in (True, False))
    assert len(apart) == len(together) + 2
    values = np.array([[0.5, 0.4], [2.3, 2.3]])
    some, none = (drawn(Heatmap(surface(values + more, cap=0.45), "t")) for more in (0, 2))
    assert (".400★" in some, "2.30" in some, "4.30" in none, "★" in none) == (True, True, True, False)
    text = drawn(Heatmap(surface(np.full((3, 4), np.nan)), "t"))
    assert text.splitlines()[1].split()[1:] == ["·"] * 4
    assert "no cell has a value yet" in text


def test_numbers_become_relative_and_then_digits_where_there_is_no_room() -> None:
    text = drawn(Heatmap(surface(2310 + valley()), "t"))
    assert "above the best (2310.1" in text
    assert "┃  0★" in text
    text = drawn(Heatmap(surface(valley(6, 25)), "t"), 60)
    assert "digits: tenths of the scale" in text
    assert all(set(row[6:]) <= set("0123456789★○┃ ") for row in text.splitlines()[1:7])
    values = np.ones((100, 100)) + np.random.default_rng(0).random((100, 100))
    values[37, 61] = 0.5
    text = drawn(Gallery([Heatmap(surface(values), "t")], max_rows=25))
    assert text.splitlines()[1 + (99 - 37) // 4].count("★") == 1
    assert "thinned: each tile is the best of 4×2 cells" in text


def test_gallery_puts_heatmaps_side_by_side_if_numbers_fit_under_one_legend() -> None:
    pair = Gallery([Heatmap(surface(valley()), "one"), Heatmap(surface(valley(diagonal=True)), "two")])
    assert ["two" in drawn(pair, width).splitlines()[0] for width in (170, 100)] == [True, False]
    assert ".11" in drawn(pair, 100)
    assert drawn(pair, 170).count("★ best") == 1
    legend = coloured(Heatmap(surface(valley()), "t")).splitlines()[13]
    assert "0.11" in legend
    assert "and above (clipped)" in legend


def test_colour_and_unicode_appear_only_on_consoles_that_have_them() -> None:
    heatmap = Heatmap(surface(valley()), "t")
    assert "\x1b" not in drawn(heatmap)
    unstyled = coloured(heatmap, no_color=True)
    assert "48;" not in unstyled
    assert "38;" not in unstyled
    heatmap = Heatmap(surface(valley(), rule=DecayRule.COUPLED), "adam é", Optimizer.parse("adam").formula)
    text = drawn(heatmap, encoding="ascii")
    for part in ("lambda'*theta", "* best   o ten best", "2^-11"):
        assert part in text, part
    text = drawn(Heatmap(surface(valley(), metric=HOSTILE), HOSTILE, FORMULA))
    assert not harmful(text)
    assert "[/x]" in text


def test_no_line_is_wider_than_the_console_and_no_row_wraps() -> None:
    for k, (rows, columns) in enumerate([(1, 1), (1, 7), (7, 1), (40, 25), (100, 100), (11, 12)]):
        heatmap = Heatmap(surface(valley(rows, columns), baseline=columns > 7), "")
        for width in (8, 20, 30, 80, 170):
            encoding = ("utf-8", "ascii")[(k + width // 10) % 2]
            lines = drawn(heatmap, width, encoding).splitlines()
            case = (rows, columns, width, encoding)
            assert max(map(cell_len, lines)) <= width, case
            assert lines[rows].startswith("α↑" if encoding == "utf-8" else "lr^"), case


@settings(deadline=None)
@given(st.lists(st.floats() | st.just(0.0), min_size=12, max_size=12), st.integers(5, 100))
def test_any_values_are_drawn(values: list[float], width: int) -> None:
    grid = np.array(values).reshape(3, 4)
    finite = np.where(np.isfinite(grid) & (np.abs(grid) < 1e150), grid, np.nan)
    assert max(map(cell_len, drawn(Heatmap(surface(finite), ""), width).splitlines())) <= width


def test_cells_that_lack_seeds_are_drawn_pale_and_rank_nowhere() -> None:
    found = stopped().surface
    tiles = Tiles.of(found).every
    assert {tile.mark for tile in tiles} == {Mark.PARTIAL, Mark.MISSING}
    assert not any(tile.best_of_row for tile in tiles)
    assert sum(tile.value is not None for tile in tiles) == 42
    one = without(study(), (3, 3, 0))
    assert one.surface.best() not in (None, (3, 3))
    assert Tiles.of(one.surface, one.separability).rows[3][3].mark is Mark.PARTIAL
    for width in (80, 26, 20):
        text = " ".join(drawn(Heatmap(found, "t"), width).split())
        assert "some seeds are missing (42 of 147 runs)" in text, width
        assert "mean of the seeds so far" in text, width
        assert "best" not in text, width
    heatmap = Heatmap(found, "t")
    assert drawn(heatmap, 80).count("~") == drawn(heatmap, 80, "ascii").count("~") == 43
    assert coloured(heatmap).split("\n")[3] != coloured(Heatmap(study().surface, "t")).split("\n")[3]
    assert dimmed((255, 0, 128)) == (191, 64, 128)


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
