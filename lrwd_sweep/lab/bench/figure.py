"""Time against lanes as a figure."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lrwd_sweep.lab.bench.scaling import Scaling

_SIZE = 3.4, 2.5  # inches: one column of a paper


def draw(scaling: Scaling) -> Figure:
    """Medians with bars from the fastest to the slowest run, and the line; both axes logarithmic."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    lanes = [point.lanes for point in scaling.points]
    median, low, high = (
        np.array([point.seconds.to_dict()[name] for point in scaling.points])
        for name in ("median", "low", "high")
    )
    axes.errorbar(lanes, median, (median - low, high - median), fmt="o", markersize=3, label="measured")
    if line := scaling.line:
        dense = np.geomspace(scaling.fitted[0].lanes, lanes[-1], 200)
        axes.plot(dense, line.at(dense), linewidth=0.8, label=line.text)
    axes.set(xscale="log", yscale="log", xlabel="lanes", ylabel="seconds")
    axes.legend(frameon=False)
    return figure
