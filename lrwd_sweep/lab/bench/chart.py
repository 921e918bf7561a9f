"""Time against lanes as a chart for the terminal."""

from __future__ import annotations

import numpy as np

from lrwd_sweep.lab.bench.scaling import Scaling
from lrwd_sweep.report.view.line_chart import Chart, Series

_DENSE = 200  # points of the line, enough to look like one


def chart(scaling: Scaling) -> Chart | None:
    """The medians, and the line through those that fill the machine; both axes logarithmic."""
    lanes = np.array([point.lanes for point in scaling.points], dtype=float)
    seconds = np.array([point.seconds.median for point in scaling.points])
    repeats = len(scaling.points[0].seconds.values)
    series = [Series("measured", lanes, seconds)]
    if line := scaling.line:
        dense = np.geomspace(scaling.fitted[0].lanes, lanes[-1], _DENSE)
        series.append(Series(line.text, dense, line.at(dense)))
    about = "one run" if repeats == 1 else f"median of {repeats} runs"
    return Chart.of(about, "seconds", "lanes", series, joined=False)
