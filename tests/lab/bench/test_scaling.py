"""Time against lanes: its points, the line through them, and how both are drawn."""

from __future__ import annotations

from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.lab.bench import growth
from lrwd_sweep.lab.bench.chart import chart
from lrwd_sweep.lab.bench.figure import draw
from lrwd_sweep.lab.bench.order import Order
from lrwd_sweep.lab.bench.scaling import Line, Point, Scaling, log_spaced, scale
from lrwd_sweep.lab.bench.spread import Spread
from lrwd_sweep.report.view.paper_figure import write_figure
from tests.lab.bench.made_up import LATTICE, TRAINING, scaling
from tests.report.view.examples import drawn


@given(st.integers(1, 10**6))
def test_lanes_begin_with_one_and_end_with_the_most(most: int) -> None:
    found = log_spaced(most)
    assert (found[0], found[-1]) == (1, most)
    assert all(a < b <= 2.5 * a for a, b in pairwise(found))


@given(st.floats(0, 10), st.floats(1e-4, 1), st.integers(4, 5000))
def test_a_line_is_found_again(fixed: float, per_lane: float, most: int) -> None:
    lanes = log_spaced(most)
    line = Line.through(lanes, [fixed + per_lane * n for n in lanes])
    assert line.fixed == pytest.approx(fixed, abs=1e-6)
    assert line.per_lane == pytest.approx(per_lane, rel=1e-6)


def test_the_line_goes_through_the_points_that_fill_the_machine() -> None:
    found = scaling()
    slow = Point(1, Spread((9.0,)))
    assert Scaling((slow, *found.points[1:]), found.steps, found.at_once).line == found.line
    assert found.fitted[0].lanes == 50
    assert scaling(most=100).line is None


def test_the_furthest_point_is_named_with_its_sign() -> None:
    points = [Point(n, Spread((0.01 * n * (0.8 if n == 1000 else 1),))) for n in (50, 100, 500, 1000, 2000)]
    lanes, share = Scaling(tuple(points), 60, 32).furthest
    assert lanes == 1000
    assert -0.2 < share < -0.1


def test_every_number_of_lanes_is_measured_in_every_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = count(1)

    def pretend(order: Order) -> dict[str, Any]:
        run = next(runs)
        return {"seconds": [run * n for n in order.lanes], "at_once": 32}

    monkeypatch.setattr(Order, "carried_out", pretend)
    said: list[int] = []
    found = scale(TRAINING, LATTICE, most=10, repeats=2, on_repeat=said.append)
    assert [(p.lanes, p.seconds.values) for p in found.points] == [(n, (n, 2 * n)) for n in (1, 2, 5, 10)]
    assert said == [1, 2]


def test_the_engine_is_timed_for_every_number_of_lanes() -> None:
    found = growth.measure(Order("growth", TRAINING.changed(epochs=1), LATTICE, (1, 3)))
    assert len(found["seconds"]) == 2
    assert min(found["seconds"]) > 0
    assert found["at_once"] >= 1


def test_the_chart_has_both_axes_logarithmic_and_says_the_line() -> None:
    found = chart(scaling())
    assert found is not None
    text = drawn(found, 80)
    assert text.startswith("seconds (log) by lanes (log), median of 2 runs\n")
    assert "● measured" in text
    assert "0.525 s + 10.5 ms per lane" in text
    assert max(map(len, text.splitlines())) <= 80


def test_without_a_line_the_chart_has_the_points_alone() -> None:
    found = chart(scaling(most=20))
    assert found is not None
    assert [series.about for series in found.series] == ["measured"]


@pytest.mark.parametrize("most", [20, 2000])
def test_the_figure_is_written_and_the_same_twice(tmp_path: Path, most: int) -> None:
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    for path in (first, second):
        write_figure(path, lambda: draw(scaling(most)))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text(encoding="utf-8").startswith("<?xml")
