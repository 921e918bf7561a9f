"""A chart fits its console, shows every series, and keeps absurd points from stretching its axes."""

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.view.line_chart import COLOURS, MARKS, SIZE, Chart, Range, Series
from tests.report.view.examples import coloured, contrast, drawn

EPOCHS = np.arange(1.0, 31)
DRAWN = [
    "   1 ┤⢱",
    "     │ ⢣",
    " 0.5 ┤⢢⠈⢆",
    "     │⠈⢆ ●⡀",
    "     │ ⠘⡄ ⠈⢆⡀",
    " 0.2 ┤  ⠘⢄  ⠈⠢⢄",
]  # from the top


def lines(*series: Series, joined: bool = True) -> Chart:
    found = Chart.of("mean of 3 seeds", "val_loss", "epoch", series, joined=joined)
    assert found is not None
    return found


def chart(count: int = 3, *, joined: bool = True) -> Chart:
    """Return losses that fall, each half as large as the one before."""
    return lines(*(Series(f"number {k}", EPOCHS, 2.0**-k / EPOCHS) for k in range(count)), joined=joined)


def test_lines_are_drawn_without_infinite_or_absurd_values() -> None:
    title, *rows = drawn(chart(2), 60).splitlines()
    assert title.rstrip() == "val_loss (log) by epoch, mean of 3 seeds"
    assert [row.rstrip() for row in rows[:6]] == DRAWN
    assert rows[-4].count("┬") == 3
    assert "\x1b[38" in coloured(chart())
    for code in COLOURS:
        rgb = int(code[1:3], 16), int(code[3:5], 16), int(code[5:], 16)
        assert min(contrast(rgb, (0, 0, 0)), contrast(rgb, (255, 255, 255))) >= 3, code
    gone = Series("gone", EPOCHS, np.full(30, np.nan))
    assert Chart.of("", "y", "epoch", [gone], joined=True) is None
    found = lines(gone, Series("broken", EPOCHS, np.where(EPOCHS < 20, 1 / EPOCHS, np.inf)))
    assert ([series.about for series in found.series], found.x.high) == (["broken"], 19)
    for absurd in (6e15, -6e15):
        found = lines(Series("a", EPOCHS, np.where(EPOCHS == 4, absurd, 2.0 / EPOCHS)))
        assert 0 < found.y.low < found.y.high <= 2.0, absurd
        assert found.title.endswith("mean of 3 seeds; points far off are drawn on the rim")


@given(st.integers(20, 140), st.integers(1, 9), st.booleans(), st.sampled_from(["utf-8", "ascii"]))
def test_chart_fits_the_console_and_shows_every_series(
    width: int, count: int, joined: bool, encoding: str
) -> None:
    text = drawn(chart(count, joined=joined), width, encoding)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii() == (encoding == "ascii")
    text = drawn(chart(count, joined=joined), 140)
    plot = "".join(line.partition("┤")[2] or line.partition("│")[2] for line in text.splitlines())
    assert joined or set(plot) == {" ", *MARKS[:count]}
    assert all(mark in plot and f"{mark} number {k}" in text for k, mark in enumerate(MARKS[:count]))


def test_ticks_stay_in_the_panel() -> None:
    for low, span in product((1e-6, 0.3, 1.0, 7e5, -2.0), (1e-3, 1.0, 999.0)):
        ticks = Range(low, low + span, low > 0).ticks()
        assert 2 <= len(ticks) <= 12, (low, span)
        assert all(0 <= height <= SIZE for height, _ in ticks), (low, span)
