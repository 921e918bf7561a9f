"""Studies along a scale as a figure: best values as lines beside published rules, and the lattices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrwd_sweep.report.scaled import Scaled
from lrwd_sweep.report.view.line_chart import COLOURS
from lrwd_sweep.report.view.paper_figure import DOUBLE, draw_lattices, grid_of, write, write_figure
from lrwd_sweep.report.view.scaled_report import LawPanel, exponent_text, law_panels

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import Container
    from matplotlib.figure import Figure

_HEIGHT = 2.0  # inches of a row of panels
_LEAST = 0.16  # share of a panel between two labels along x
_DASHES = ((6, 2), (6, 1.5, 1, 1.5), (2.5, 1))  # of published rules, in line widths
_MEASURED, _KEPT = "#000000", "#c8c9ce"


def save_scaled_figure(scaled: Scaled, path: Path) -> None:
    """Draw studies along a scale into an svg, png or pdf file. Raises as `write_figure` does."""
    write_figure(path, lambda: draw_scaled(scaled))


def draw_scaled(scaled: Scaled) -> Figure:
    """Draw a panel for each best value, and under them all lattices on one colour scale."""
    from matplotlib.figure import Figure

    panels = law_panels(scaled)
    rows, columns, height = grid_of(len(scaled.results), DOUBLE)
    heights = [_HEIGHT, height] if panels else [height]
    figure = Figure(figsize=(DOUBLE, sum(heights) + 0.6), layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    names = [name for name, *_ in scaled.rule_exponents()]
    if panels:
        above = grid[0].subgridspec(1, len(panels)).subplots(squeeze=False)
        handles: dict[str, Artist | Container] = {}
        for axes, panel in zip(above.flat, panels, strict=True):
            handles |= _draw(axes, panel, names)
            axes.set_xlabel(str(scaled.over.axis))
        figure.legend(
            handles=list(handles.values()),
            loc="outside upper center",
            ncols=3,
            frameon=False,
            columnspacing=1.2,
        )
    below = grid[-1].subgridspec(rows, columns).subplots(squeeze=False)
    labels = [scaled.over.label(value) for value in scaled.over.values]
    draw_lattices(figure, list(below.flat), columns, scaled.results, labels)
    return figure


def _draw(axes: Axes, panel: LawPanel, rules: Sequence[str]) -> dict[str, Artist | Container]:
    """Draw points with intervals, the fitted line, and lines of rules; return an artist for each name."""
    found: dict[str, Artist | Container] = {}
    for name, edge in (("best value, 90 % interval", False), ("on the edge of its axis", True)):
        shown = [
            (x, y.value, y.low or y.value, y.high or y.value)
            for x, y, on_edge in zip(panel.x, panel.y, panel.on_edge, strict=True)
            if y.value is not None and on_edge is edge
        ]
        if shown:
            x, y, low, high = np.array(shown).T
            found[name] = axes.errorbar(
                x, y, yerr=[y - low, high - y], fmt="o", color=_MEASURED, label=name, zorder=3,
                markerfacecolor="white" if edge else _MEASURED, markersize=4, elinewidth=0.8, capsize=2,
            )  # fmt: skip
    if panel.fitted:
        style: dict[str, Any] = {"color": _MEASURED, "linewidth": 0.8}
        (found["fitted"],) = axes.plot(panel.x, panel.fitted, label="fitted power law", **style)
    for name, moved in panel.rules:
        k = rules.index(name)
        style = {"color": COLOURS[k - 1], "linewidth": 1.1, "dashes": _DASHES[k - 1]}
        if not k:  # under a rule that says the same
            style = {"color": _KEPT, "linewidth": 3.0, "zorder": 1}
        (found[name],) = axes.plot(panel.x, moved, label=name, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(panel.x_range.low, panel.x_range.high)
    axes.set_ylim(panel.y_range.low, panel.y_range.high)
    for axis, labels in (
        (axes.xaxis, [label for _, label in panel.x_ticks(_LEAST)]),
        (axes.yaxis, [label for _, label in panel.y_range.ticks()]),
    ):
        axis.set_ticks([float(label) for label in labels], labels)
        axis.set_ticks([], minor=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(exponent_text(replace(panel.exponent, reason="")), fontsize=7, pad=3)
    write(axes.yaxis.label, panel.label, _HEIGHT)
    return found
