"""A schedule's chart says when η falls, where it starts anew and where a solution is kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from lrwd_sweep.report.view.schedule_plot import SchedulePlot, caption
from lrwd_sweep.science.schedule import Schedule, Timetable
from tests.report.view.examples import drawn

PAPER = Timetable(Schedule.RESTARTS, 1800, 351, t_0=100, t_mult=2)
CHARACTERS = set(" ▁▂▃▄▅▆▇█┤1η0▲0123456789\n")


@st.composite
def timetables(draw: st.DrawFn) -> Timetable:
    """Any schedule over any run."""
    epochs = draw(st.integers(1, 2000))
    warmup = draw(st.integers(0, epochs - 1))
    return Timetable(
        draw(st.sampled_from(Schedule)),
        epochs,
        draw(st.integers(1, 400)),
        warmup,
        draw(st.integers(1, 300)),
        draw(st.integers(1, 3)),
        draw(st.floats(0, 0.9)),
    )


def bars(text: str) -> list[int]:
    """The height of every column of a chart, in eighths of a line."""
    lines = [line[5:] for line in text.splitlines()[:6]]
    return [
        sum(" ▁▂▃▄▅▆▇█".index(line[k]) for line in lines if k < len(line))
        for k in range(max(map(len, lines)))
    ]


@settings(max_examples=60, deadline=None)
@given(timetables(), st.integers(1, 120), st.sampled_from(["utf-8", "ascii"]))
def test_any_schedule_fits_any_console(timetable: Timetable, width: int, encoding: str) -> None:
    text = drawn(SchedulePlot(timetable), width, encoding)
    assert max(map(cell_len, text.splitlines())) <= min(width, 80)
    assert text.isascii() if encoding == "ascii" else set(text) <= CHARACTERS
    assert caption(timetable, ascii_only=True).replace("…", "").isascii()


@settings(max_examples=60, deadline=None)
@given(timetables(), st.integers(1, 80))
def test_heights_are_eta(timetable: Timetable, columns: int) -> None:
    heights = SchedulePlot(timetable).heights(columns)
    assert len(heights) == columns
    assert all(0 <= height <= 1 for height in heights)


def test_a_fixed_schedule_is_full_and_a_linear_one_falls_to_the_right() -> None:
    full = bars(drawn(SchedulePlot(Timetable(Schedule.FIXED, 60, 6)), 80))
    assert set(full) == {48}
    falling = bars(drawn(SchedulePlot(Timetable(Schedule.LINEAR, 60, 6)), 80))
    assert falling == sorted(falling, reverse=True)
    assert (falling[0], falling[-1]) == (48, 1)


def test_the_last_plateaus_of_the_step_schedule_are_low_but_not_nothing() -> None:
    found = bars(drawn(SchedulePlot(Timetable(Schedule.STEP, 100, 10)), 80))
    assert sorted(set(found), reverse=True) == [48, 5, 1]  # 1, 0.1, then 0.01 and 0.001
    assert found.index(5) == pytest.approx(0.3 * 75, abs=1)


def test_warm_up_rises_in_front() -> None:
    found = bars(drawn(SchedulePlot(Timetable(Schedule.COSINE, 60, 6, warmup=20)), 80))
    assert found[:25] == sorted(found[:25])
    assert found[25:] == sorted(found[25:], reverse=True)
    assert caption(Timetable(Schedule.COSINE, 60, 6, 20)) == "cosine over 60 epochs, 20 of them warm-up"


def test_every_restart_is_a_leap_and_every_snapshot_marked_and_dated() -> None:
    *chart, marks, dates = drawn(SchedulePlot(PAPER), 80).splitlines()
    found = bars("\n".join(chart))
    leaps = [k for k in range(1, len(found)) if found[k] > found[k - 1]]
    assert len(leaps) == 4
    assert marks.count("▲") == 4
    assert dates.split() == ["0", "100", "300", "700", "1500", "1800"]
    assert [mark - 5 for mark in range(len(marks)) if marks[mark] == "▲"] == pytest.approx(leaps, abs=1)


def test_a_run_without_restarts_marks_nothing() -> None:
    text = drawn(SchedulePlot(Timetable(Schedule.COSINE, 60, 6)), 80)
    assert "▲" not in text
    assert text.splitlines()[-1].split() == ["0", "60"]


def test_the_caption_names_the_restarts_and_not_every_one_of_many() -> None:
    assert caption(PAPER) == (
        "restarts over 1800 epochs, T_0 = 100, T_mult = 2, ▲ snapshots after 100, 300, 700, 1500"
    )
    assert caption(Timetable(Schedule.RESTARTS, 60, 6, t_0=1)).endswith("after 1, 2, 3, 4, 5, 6, …, 60")
    assert caption(Timetable(Schedule.LINEAR, 1, 6, eta_min=0.1)) == "linear over 1 epoch, down to 0.1"
