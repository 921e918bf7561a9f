"""The scatter has a point for every cell whose seeds are all complete."""

from __future__ import annotations

import numpy as np
import pytest

from lrwd_sweep.report.view.scatter import scatter
from tests.report.view.examples import study
from tests.report.view.measured import EPOCHS, measured


def test_every_study_is_a_series_and_every_whole_cell_a_point() -> None:
    found = [measured("a", "adam"), measured("b", "adamw")]
    chart = scatter(found)
    assert chart is not None
    assert [series.about for series in chart.series] == ["adam", "adamw"]
    mean = found[0].surface.mean
    mean = mean[np.isfinite(mean)]
    assert len(mean) == 22
    for series in chart.series:
        assert series.x == pytest.approx(mean / EPOCHS)
        assert series.y == pytest.approx(mean / 2)
    assert chart.title == "test_error by train_loss, every point a cell"


def test_without_either_measure_there_is_none() -> None:
    assert scatter([study()]) is None
