"""The heatmap shows values, marks and ridge at every width, with and without colour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.notation import superscript
from lrwd_sweep.report.view.scale import dimmed
from lrwd_sweep.report.view.tiles import Mark, Tiles
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.separability import analyse
from lrwd_sweep.science.surface import CellStatus
from tests.report.view.examples import HOSTILE, drawn, harmful, surface, valley
from tests.studies import study, without

FORMULA = Optimizer.parse("adamw").formula


def rows_of(text: str, count: int) -> list[str]:
    """The lattice rows of a heatmap drawn with a title."""
    return text.splitlines()[1 : 1 + count]


def test_largest_learning_rate_is_on_top_and_rows_are_labelled_in_powers_of_two() -> None:
    lines = drawn(Heatmap(surface(valley()), "adamw", FORMULA)).splitlines()
    assert lines[0].startswith(f"adamw   {FORMULA}")
    assert [line.split()[0].rstrip("┃│") for line in lines[1:12]] == [
        "2" + superscript(str(power)) for power in range(-1, -12, -1)
    ]


def test_cells_carry_their_own_numbers() -> None:
    values = np.array([[0.5, 0.25, 0.375], [0.125, 0.75, 1.5]])
    top, bottom = rows_of(drawn(Heatmap(surface(values), "t")), 2)
    assert top.split() == ["2⁻¹", "┃.125★", ".750", "1.50"]
    assert bottom.replace("┃", " ").split() == ["2⁻²", ".500", ".250", ".375"]


def test_column_labels_stand_under_their_columns() -> None:
    lines = drawn(Heatmap(surface(valley()), "t"), 80).splitlines()
    labels, row = lines[12], lines[11]
    for k in range(1, 12):
        label = "2" + superscript(f"-{k}")
        column = 11 - k
        start = cell_len("α↑λ→ ") + 6 * column + 1
        assert labels[start:].startswith(label)
        assert row[start] == "." or row[start].isdigit()


def test_long_column_labels_are_thinned_not_moved() -> None:
    half_powers = replace(surface(valley()), weight_decay=np.exp2(np.arange(-11, 0) * 1.5))
    labels = drawn(Heatmap(half_powers, "t")).splitlines()[12]
    assert labels.split()[1:] == ["2⁻¹⁶·⁵", "2⁻¹³·⁵", "2⁻¹⁰·⁵", "2⁻⁷·⁵", "2⁻⁴·⁵", "2⁻¹·⁵"]
    assert labels.index("2⁻¹³·⁵") - labels.index("2⁻¹⁶·⁵") == 12


def test_one_star_and_nine_circles_mark_the_ten_best() -> None:
    text = "\n".join(rows_of(drawn(Heatmap(surface(valley()), "t")), 11))
    assert (text.count("★"), text.count("○")) == (1, 9)


def test_circles_are_left_out_where_they_would_mark_every_cell() -> None:
    assert "○" not in drawn(Heatmap(surface(valley(3, 3)), "t"))


def test_ridge_stands_at_each_rows_smallest_value() -> None:
    values = np.array([[3.0, 1.0, 2.0, 4.0], [1.0, 3.0, 2.0, 4.0], [4.0, 3.0, 2.0, 1.0]])
    found = rows_of(drawn(Heatmap(surface(values), "t")), 3)
    assert [row[row.index("┃") + 1 : row.index("┃") + 5] for row in found] == ["1.00"] * 3
    assert [row.index("┃") for row in found] == [23, 5, 11]


def test_ridge_ignores_the_baseline_column() -> None:
    values = np.array([[0.1, 0.3, 0.2], [0.1, 0.2, 0.3]])
    for row in rows_of(drawn(Heatmap(surface(values, baseline=True), "t")), 2):
        assert row[row.index("┃") + 1 : row.index("┃") + 5] == ".200"


def test_ridge_outside_the_slope_is_drawn_thin() -> None:
    found = surface(np.stack([valley() + seed / 1000 for seed in range(3)], axis=2))
    separability = analyse(found)
    carrying = {i for i, _ in separability.ridge}
    assert 0 < len(carrying) < 11
    rows = rows_of(drawn(Heatmap(found, "t", separability=separability)), 11)
    assert {10 - k for k, row in enumerate(rows) if "┃" in row} == carrying
    assert all(("┃" in row) != ("│" in row) for row in rows)  # each has one of the two


def test_ridge_line_is_underlined_from_bar_to_bar() -> None:
    values = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    text = drawn(Heatmap(surface(values), "t"), force_terminal=True, color_system="truecolor")
    top, bottom = rows_of(text, 2)
    assert "\x1b[1;4;" in top
    assert "\x1b[1;4;" not in bottom


def test_diverged_failed_and_missing_are_told_apart() -> None:
    found = surface(valley(4, 4))
    found.values[0, :3] = np.nan
    found.lanes[0, :3, 0] = [CellStatus.DIVERGED.value, CellStatus.FAILED.value, CellStatus.MISSING.value]
    text = drawn(Heatmap(found, "t"))
    assert rows_of(text, 4)[3].split()[1:4] == ["×", "!", "·"]
    assert all(meaning in text for meaning in ("× diverged", "! failed", "· missing"))


def test_baseline_column_is_set_apart() -> None:
    row = rows_of(drawn(Heatmap(surface(valley(3, 4), baseline=True), "t")), 3)[0]
    plain_row = rows_of(drawn(Heatmap(surface(valley(3, 4)), "t")), 3)[0]
    assert len(row.rstrip()) == len(plain_row.rstrip()) + 2


def test_values_at_the_cap_are_drawn_but_never_best() -> None:
    values = np.array([[0.5, 0.4], [2.3, 2.3]])
    text = drawn(Heatmap(surface(values, cap=0.45), "t"))
    assert "2.30" in text
    assert ".400★" in text
    none_counts = drawn(Heatmap(surface(values + 2, cap=0.45), "t"))
    assert "4.30" in none_counts
    assert "★" not in none_counts


def test_nothing_inside_is_drawn_as_missing() -> None:
    text = drawn(Heatmap(surface(np.full((3, 4), np.nan)), "t"))
    assert rows_of(text, 3)[0].split()[1:] == ["·"] * 4
    assert "no cell has a value yet" in text


def test_partial_lattice_shows_the_mean_of_the_seeds_that_are_there() -> None:
    values = np.full((2, 2, 2), np.nan)
    values[1, 0] = [0.25, np.nan]
    values[0, 1] = [0.5, 0.7]
    text = drawn(Heatmap(surface(values), "t"))
    assert ".250~" in text
    assert ".600★" in text, "the better cell lacks a seed and counts for nothing"
    assert "mean of the seeds so far" in text
    assert "~ dim: some seeds are missing (3 of 8 runs)" in text


def test_numbers_too_long_for_a_cell_are_written_above_the_best() -> None:
    text = drawn(Heatmap(surface(2310 + valley()), "t"))
    assert "above the best (2310.1" in text
    assert "┃  0★" in text


def test_two_heatmaps_stand_side_by_side_only_where_numbers_fit() -> None:
    pair = Gallery([Heatmap(surface(valley()), "one"), Heatmap(surface(valley(diagonal=True)), "two")])
    assert "two" in drawn(pair, 170).splitlines()[0]
    assert "two" not in drawn(pair, 100).splitlines()[0]
    assert ".11" in drawn(pair, 100)


def test_shared_scale_gives_one_legend() -> None:
    pair = Gallery([Heatmap(surface(valley()), "one"), Heatmap(surface(valley(diagonal=True)), "two")])
    assert drawn(pair, 170).count("★ best") == 1


def test_legend_gives_both_ends_of_the_ramp_and_says_what_is_clipped() -> None:
    text = drawn(Heatmap(surface(valley()), "t"), force_terminal=True, color_system="truecolor")
    legend = text.splitlines()[13]
    assert "0.11" in legend
    assert "and above (clipped)" in legend


def test_cells_have_digits_where_numbers_do_not_fit() -> None:
    text = drawn(Heatmap(surface(valley(6, 25)), "t"), 60)
    assert "digits: tenths of the scale" in text
    assert all(set(row[6:]) <= set("0123456789★○┃ ") for row in rows_of(text, 6))


def test_pooled_lattice_keeps_its_best_and_says_that_it_is_thinned() -> None:
    values = np.ones((100, 100)) + np.random.default_rng(0).random((100, 100))
    values[37, 61] = 0.5
    text = drawn(Gallery([Heatmap(surface(values), "t")], max_rows=25))
    assert text.splitlines()[1 + (99 - 37) // 4].count("★") == 1
    assert "thinned: each tile is the best of 4×2 cells" in text


def test_no_colour_codes_without_colour() -> None:
    heatmap = Heatmap(surface(valley()), "t")
    assert "\x1b" not in drawn(heatmap)
    unstyled = drawn(heatmap, force_terminal=True, color_system="truecolor", no_color=True)
    assert "48;" not in unstyled
    assert "38;" not in unstyled


def test_ascii_console_gets_ascii_only() -> None:
    heatmap = Heatmap(surface(valley(), rule=DecayRule.COUPLED), "adam é", Optimizer.parse("adam").formula)
    text = drawn(heatmap, encoding="ascii")
    assert "lambda'*theta" in text
    assert "* best   o ten best" in text
    assert "2^-11" in text


def test_hostile_title_is_harmless() -> None:
    text = drawn(Heatmap(surface(valley(), metric=HOSTILE), HOSTILE, FORMULA))
    assert not harmful(text)
    assert "[/x]" in text


def test_drawing_twice_gives_the_same_bytes() -> None:
    heatmap = Heatmap(surface(valley()), "t", FORMULA)
    first, second = (drawn(heatmap, force_terminal=True, color_system="truecolor") for _ in range(2))
    assert first == second


def test_no_line_is_wider_than_the_console_and_no_row_wraps() -> None:
    shapes = [(1, 1), (1, 7), (7, 1), (40, 25), (100, 100), (11, 12)]
    widths = [8, 20, 30, 80, 170]
    for k, (rows, columns) in enumerate(shapes):
        heatmap = Heatmap(surface(valley(rows, columns), baseline=columns > 7), "")
        for width in widths:
            encoding = ("utf-8", "ascii")[(k + width // 10) % 2]
            lines = drawn(heatmap, width, encoding).splitlines()
            case = (rows, columns, width, encoding)
            assert max(map(cell_len, lines)) <= width, case
            assert lines[rows].startswith("α↑" if encoding == "utf-8" else "lr^"), case


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(allow_subnormal=False) | st.just(0.0), min_size=12, max_size=12),
    st.integers(5, 100),
)
def test_any_values_are_drawn_without_a_crash(values: list[float], width: int) -> None:
    grid = np.array(values).reshape(3, 4)
    finite = np.where(np.isfinite(grid) & (np.abs(grid) < 1e150), grid, np.nan)
    text = drawn(Heatmap(surface(finite), ""), width)
    assert max(map(cell_len, text.splitlines())) <= width


def test_measures_no_less_than_it_draws() -> None:
    console = Console(width=200)
    heatmap = Heatmap(surface(valley()), "t")
    wanted = Measurement.get(console, console.options, heatmap).maximum
    assert wanted == max(len(row.rstrip("\n")) for row in rows_of(drawn(heatmap, wanted), 11))


def stopped() -> Result:
    """Return a 7×7 study of three seeds: one of each cell, except for the last row."""
    every = [(i, j, seed) for i in range(7) for j in range(7) for seed in range(3)]
    return without(study(), *(lane for lane in every if lane[2] or lane[0] == 6))


def test_cells_that_lack_seeds_are_drawn_and_rank_nowhere() -> None:
    tiles = Tiles.of(stopped().surface).every
    assert {tile.mark for tile in tiles} == {Mark.PARTIAL, Mark.MISSING}
    assert not any(tile.best_of_row for tile in tiles)
    assert sum(tile.value is not None for tile in tiles) == 42


def test_complete_cell_is_best_even_if_a_partial_one_is_lower() -> None:
    found = without(study(), (3, 3, 0))
    best = found.surface.best()
    assert best is not None
    assert best != (3, 3)
    assert found.best == found.surface.cell(*best)
    assert Tiles.of(found.surface, found.separability).rows[3][3].mark is Mark.PARTIAL
    assert np.isfinite(found.surface.mean_so_far[3, 3])


def test_legend_counts_the_runs_at_every_width() -> None:
    for width in (80, 26, 20):
        text = " ".join(drawn(Heatmap(stopped().surface, "t"), width).split())
        assert "some seeds are missing (42 of 147 runs)" in text, width
        assert "mean of the seeds so far" in text, width
        assert "best" not in text, width


def test_partial_cell_is_marked_without_colour_and_dimmed_with_it() -> None:
    heatmap = Heatmap(stopped().surface, "t")
    assert drawn(heatmap, 80).count("~") == drawn(heatmap, 80, "ascii").count("~") == 43
    coloured = drawn(heatmap, force_terminal=True, color_system="truecolor")
    whole = drawn(Heatmap(study().surface, "t"), force_terminal=True, color_system="truecolor")
    assert "\x1b[2" in coloured or ";2;" in coloured
    assert coloured.split("\n")[3] != whole.split("\n")[3]
    assert dimmed((255, 0, 128)) == (191, 64, 128)
