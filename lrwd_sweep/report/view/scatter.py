"""Test error against training loss, every cell a point, every study a mark: Figures 3 and 4, bottom right."""

from __future__ import annotations

from collections.abc import Sequence

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.chart import Chart, Series
from lrwd_sweep.report.view.fields import title
from lrwd_sweep.report.view.quantity import Quantity, X, Y


def scatter(results: Sequence[Result]) -> Chart | None:
    """Seed means of the cells in which every seed is complete; None where no study has both."""
    series = []
    for result in results:
        x, y = Quantity(X).surface(result), Quantity(Y).surface(result)
        if x is not None and y is not None:
            series.append(Series(title(result, results), x.mean.ravel(), y.mean.ravel()))
    return Chart.of("every point a cell", Y, X, series, joined=False)
