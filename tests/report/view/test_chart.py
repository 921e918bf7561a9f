"""A chart fits its console, holds every series, and is drawn in what the console has."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.view.chart import COLOURS, MARKS, Chart, Series
from lrwd_sweep.report.view.ramp import luminance
from tests.report.view.examples import HOSTILE, drawn

EPOCHS = np.arange(1.0, 31)


def chart(count: int = 3, *, joined: bool = True) -> Chart:
    """Losses that fall, each half as large as the one before."""
    series = [Series(f"number {k}", EPOCHS, 2.0**-k / EPOCHS) for k in range(count)]
    found = Chart.of("mean of 3 seeds", "val_loss", "epoch", series, joined=joined)
    assert found is not None
    return found


def plot(text: str) -> list[str]:
    """The lines of the plot, without labels."""
    return [line[line.index(side) + 1 :] for line in text.splitlines() for side in "┤│|+" if side in line][
        :14
    ]


@given(st.integers(20, 140), st.integers(1, 9), st.booleans())
def test_no_line_is_wider_than_the_console_and_every_series_shows_its_mark(
    width: int, count: int, joined: bool
) -> None:
    for encoding in ("utf-8", "ascii"):
        text = drawn(chart(count, joined=joined), width, encoding)
        assert max(map(len, text.splitlines())) <= width
        assert text.isascii() == (encoding == "ascii")
    text = drawn(chart(count, joined=joined), 140)
    assert all(mark in "".join(plot(text)) for mark in MARKS[:count])
    assert all(f"{MARKS[k]} number {k}" in text for k in range(count))


def test_axes_say_what_they_hold_and_where_they_are_logarithmic() -> None:
    lines = drawn(chart()).splitlines()
    assert lines[0] == "val_loss (log) by epoch, mean of 3 seeds"
    labels = [line.split("┤")[0].strip() for line in lines if "┤" in line]
    values = list(map(float, labels))
    assert values == sorted(values, reverse=True)
    assert lines[16].split() == ["10", "20", "30"]
    error = Chart.of("", "val_error", "epoch", [Series("", EPOCHS, EPOCHS - 1)], joined=True)
    near = Chart.of("", "norm", "epoch", [Series("", EPOCHS, 9 + EPOCHS)], joined=True)
    for linear in (error, near):
        assert linear is not None
        assert "log" not in linear.title


def test_a_falling_line_falls_without_a_gap() -> None:
    found = Chart.of("", "y", "epoch", [Series("", EPOCHS, np.exp(-EPOCHS))], joined=True)
    rows = plot(drawn(found, 60))  # type: ignore[arg-type]
    columns = list(zip(*(row.ljust(60) for row in rows), strict=True))
    heights = [[k for k, c in enumerate(column) if c != " "] for column in columns]
    heights = [found for found in heights if found]
    assert len(heights) >= 50
    for left, right in pairwise(heights):
        assert left[0] <= right[0] <= left[-1] + 1


def test_one_epoch_and_one_value_are_a_chart() -> None:
    found = Chart.of("", "y", "epoch", [Series("only", np.array([1.0]), np.array([3.0]))], joined=True)
    assert found is not None
    assert MARKS[0] in "".join(plot(drawn(found)))


def test_what_is_not_finite_is_left_out_and_without_a_point_there_is_no_chart() -> None:
    gone = Series("gone", EPOCHS, np.full(30, np.nan))
    broken = Series("broken", EPOCHS, np.where(EPOCHS < 20, 1 / EPOCHS, np.inf))
    assert Chart.of("", "y", "epoch", [gone], joined=True) is None
    assert Chart.of("", "y", "epoch", [], joined=True) is None
    found = Chart.of("", "y", "epoch", [gone, broken], joined=True)
    assert found is not None
    assert [series.about for series in found.series] == ["broken"]
    assert found.x.high == 19


def test_points_are_not_joined() -> None:
    text = "".join(plot(drawn(chart(1, joined=False))))
    assert set(text) == {" ", MARKS[0]}


def test_ascii_lines_are_drawn_in_their_marks() -> None:
    text = "".join(plot(drawn(chart(2), encoding="ascii")))
    assert text.count("o") > 40
    assert text.count("x") > 40


def test_colour_is_for_terminals_alone_and_stands_out_on_black_and_on_white() -> None:
    assert "\x1b" not in drawn(chart())
    assert "\x1b[38" in drawn(chart(), force_terminal=True, color_system="truecolor")
    assert "\x1b[3" not in drawn(chart(), force_terminal=True, color_system="truecolor", no_color=True)
    for code in COLOURS:
        light = luminance((int(code[1:3], 16), int(code[3:5], 16), int(code[5:], 16)))
        assert (light + 0.05) / 0.05 >= 3
        assert 1.05 / (light + 0.05) >= 3


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_hostile_names_are_harmless(encoding: str) -> None:
    found = Chart.of(HOSTILE, HOSTILE, HOSTILE, [Series(HOSTILE, EPOCHS, EPOCHS)], joined=True)
    assert found is not None
    assert not {"\x1b", "\u202e", "\x9b"} & set(drawn(found, 200, encoding))


@pytest.mark.parametrize("absurd", [6e15, -6e15])
def test_one_absurd_point_leaves_the_axis_to_the_others(absurd: float) -> None:
    losses = 2.0 / EPOCHS
    losses[3] = absurd
    found = Chart.of("one seed", "val_loss", "epoch", [Series("a", EPOCHS, losses)], joined=True)
    assert found is not None
    assert found.y.high <= 2.0
    assert found.y.low > 0
    assert found.title.endswith("one seed; points far off are drawn on the rim")
    assert (found.x.low, found.x.high) == (1.0, 30.0)
