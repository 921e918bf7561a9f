"""Studies along a scale, for a terminal and as a figure: lattices, and best values as lines beside rules.

The panels of best values are those of the HTML page too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

from lrwd_sweep.report.scaled import Scaled
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.line_chart import COLOURS, SIZE, Chart, Range, Series
from lrwd_sweep.report.view.notation import estimate_text, styled
from lrwd_sweep.report.view.paper_figure import DOUBLE, draw_lattices, grid_of, write, write_figure
from lrwd_sweep.report.view.tables import Row, best_rows, separability_rows
from lrwd_sweep.report.view.terminal import table
from lrwd_sweep.science.scaling import DECAY, LR, TAU_EPOCHS, TAU_SHARE, Axis, axes_of
from lrwd_sweep.science.separability import Estimate

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import Container
    from matplotlib.figure import Figure

LAW = "exponent e: y ∝ {}^e"
WORDS = "brackets: 90 % interval from resampling seeds; supported: the interval lies within ±{:g} of the rule"
_BETWEEN = 3  # characters of a table beside the words of a column
_ROOM = 1.25  # factor between the outermost values and the frame
_LEAST = 4.0  # ratio of the ends of a panel's y axis, so that round values lie between them
_FAR = 16.0  # factor beyond points and lines: an interval is cut there
_ROW = 2.0  # inches of a row of panels of the figure
_APART = 0.16  # share of such a panel between two labels along x
_DASHES = ((6, 2), (6, 1.5, 1, 1.5), (2.5, 1))  # of published rules, in line widths
_MEASURED, _KEPT = "#000000", "#c8c9ce"


@dataclass(frozen=True, slots=True, eq=False)
class LawPanel:
    """The best values y of one quantity against x, on log axes, with a fitted line and those of rules."""

    name: str  # of the exponent
    label: str
    exponent: Estimate
    x: tuple[float, ...]  # (K,) ascending
    y: tuple[Estimate, ...]  # (K,)
    on_edge: tuple[bool, ...]  # (K,) y lies on the edge of its lattice's axis
    fitted: tuple[float, ...]  # (K,) or empty without an exponent
    rules: tuple[tuple[str, tuple[float, ...]], ...]  # name, (K,) from y of the smallest scale on
    x_range: Range
    y_range: Range

    def across(self, x: float) -> float:
        """Return the place of an x from the left, 0 to 1."""
        return 1 - self.x_range.heights(np.array([x]))[0] / SIZE

    def height(self, y: float) -> float:
        """Return the place of a y from the top, 0 to 1; on the rim if it lies beyond."""
        return self.y_range.heights(np.array([y]))[0] / SIZE

    def line(self, y: Sequence[float]) -> list[tuple[float, float]]:
        """Return the places of one y for every x."""
        return [(self.across(a), self.height(b)) for a, b in zip(self.x, y, strict=True)]

    def bars(self) -> list[tuple[float, float, float]]:
        """Return the places (x, low, high) of the intervals."""
        known = zip(self.x, self.y, strict=True)
        return [
            (self.across(x), self.height(y.low), self.height(y.high)) for x, y in known if y.low and y.high
        ]

    def points(self) -> list[tuple[float, float, bool]]:
        """Return the places (x, y) of the best values, and if they lie on an edge."""
        known = zip(self.x, self.y, self.on_edge, strict=True)
        return [(self.across(x), self.height(y.value), edge) for x, y, edge in known if y.value is not None]

    def x_ticks(self, room: float) -> list[tuple[float, str]]:
        """Return places and labels of the x that lie `room` apart, the first and the last among them."""
        first, *others, last = [(self.across(x), f"{x:g}") for x in self.x]
        kept = [first]
        for place, text in others:
            if min(place - kept[-1][0], last[0] - place) >= room:
                kept.append((place, text))
        return [*kept, last]


def law_panels(scaled: Scaled) -> list[LawPanel]:
    """Lay out α*, λ* and τ*, except what is not known at any scale.

    λ is that of the independent rule, or λ′ for coupled decay, which has no τ. τ in epochs has a panel only
    if the epochs differ.
    """
    optima, x = scaled.found.optima, scaled.over.values
    per_epoch, steps = ([getattr(each, name) for each in scaled.lengths] for name in ("epoch", "run"))
    coupled = all(optimum.tau_epochs.value is None for optimum in optima)
    times = [optimum.tau_epochs for optimum in optima]
    decays = [optimum.weight_decay for optimum in optima] if coupled else list(map(_rate, times, per_epoch))
    quantities: list[tuple[str, str, list[Estimate], Sequence[float]]] = [
        (LR, "best α", [optimum.lr for optimum in optima], ()),
        (DECAY, f"best {scaled.symbol}" if coupled else "best λ per step", decays, [1.0] * len(x)),
        (TAU_EPOCHS, "best τ in epochs", times, per_epoch),
        (TAU_SHARE, "best τ in runs", [optimum.tau_share for optimum in optima], steps),
    ]
    if scaled.found.axis is not Axis.EPOCHS:
        del quantities[2]
    panels = []
    for name, label, y, lengths in quantities:
        rules: list[tuple[str, tuple[float, ...]]] = []
        for rule, rate, exponent in scaled.rule_exponents():
            start, power = (optima[0].lr.value, rate) if name == LR else (decays[0].value, exponent)
            if not start or (name == LR and rules and not rate):  # as the first rule, which keeps α
                continue
            moved = [start * (each / x[0]) ** power for each in x]
            if name in (TAU_EPOCHS, TAU_SHARE):
                moved = [1 / (lam * n) for lam, n in zip(moved, lengths, strict=True)]
            rules.append((rule, tuple(moved)))
        if any(each.value is not None for each in y):
            axes = axes_of(name, scaled.results[0].surface.rule)
            on_edge = [any(axis in optimum.edges for axis in axes) for optimum in optima]
            panels.append(_panel(name, label, scaled.found.exponents[name], x, y, on_edge, rules))
    return panels


def _rate(time: Estimate, steps: float) -> Estimate:
    """Return λ per step of an averaging time in epochs of `steps`."""
    value, high, low = (
        None if not each else 1 / (each * steps) for each in (time.value, time.low, time.high)
    )
    return Estimate(value, low, high, time.reason)


def _panel(
    name: str,
    label: str,
    exponent: Estimate,
    x: Sequence[float],
    y: Sequence[Estimate],
    on_edge: Sequence[bool],
    rules: Sequence[tuple[str, tuple[float, ...]]],
) -> LawPanel:
    fitted: tuple[float, ...] = ()
    values = [each.value for each in y if each.value]
    if exponent.value is not None and len(values) == len(x):
        log_x, middle = np.log2(x), np.log2(values).mean()
        fitted = tuple(map(float, 2.0 ** (middle + exponent.value * (log_x - log_x.mean()))))
    values += [*fitted, *(each for _, moved in rules for each in moved)]
    low, high = min(values), max(values)
    ends = [end for each in y for end in (each.low, each.high) if end]
    low, high = (
        min([low, *(max(end, low / _FAR) for end in ends)]),
        max([high, *(min(end, high * _FAR) for end in ends)]),
    )
    spare = max(_LEAST / (high / low), 1.0) ** 0.5 * _ROOM
    x_spare = (x[-1] / x[0]) ** 0.06
    return LawPanel(
        name, label, exponent, tuple(x), tuple(y), tuple(on_edge), fitted, tuple(rules),
        Range(x[0] / x_spare, x[-1] * x_spare, log=True), Range(low / spare, high * spare, log=True),
    )  # fmt: skip


def law_chart(scaled: Scaled) -> Chart | None:
    """Draw α*, λ* and τ* as multiples of those of the smallest scale in one chart for a terminal."""
    series = []
    for panel in law_panels(scaled):
        first, edges = (
            panel.y[0].value,
            [f"{x:g}" for x, edge in zip(panel.x, panel.on_edge, strict=True) if edge],
        )
        known = [(x, y.value) for x, y in zip(panel.x, panel.y, strict=True) if y.value]
        if first and len(known) > 1:
            label = panel.label + f", on the edge of its axis at {', '.join(edges)}" * bool(edges)
            x, y = np.array(known).T
            series.append(Series(label, x, y / first))
    if not series:
        return None
    every = np.concatenate([each.y for each in series])
    spare = max(_LEAST / (every.max() / every.min()), 1.0) ** 0.5
    values = scaled.over.values
    return Chart(
        "slope of a line: its exponent",
        f"best value ÷ that of {scaled.over.label(values[0])}",
        str(scaled.over.axis),
        tuple(series),
        Range(values[0], values[-1], log=True),
        Range(float(every.min()) / spare, float(every.max()) * spare, log=True),
        joined=True,
        labelled=values,
    )


@dataclass(frozen=True, slots=True, eq=False)
class ScaledReport:
    """Lattices side by side, best values as lines and as a table, and a table of rules; the cost is last."""

    scaled: Scaled
    full: bool = False  # with every number of each lattice

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        scaled, ascii_only = self.scaled, options.ascii_only
        labels = [scaled.over.label(value) for value in scaled.over.values]
        yield Gallery(
            [
                Heatmap(result.surface, label, result.spec.formula, result.separability)
                for label, result in zip(labels, scaled.results, strict=True)
            ]
        )
        yield Text()
        if chart := law_chart(scaled):
            yield chart
        if self.full:
            yield Rows("best cell", labels, best_rows(scaled.results))
            yield Rows("separability", labels, separability_rows(scaled.results))
        optimizer = str(scaled.results[0].spec.optimizer)
        heading = LAW.format(scaled.over.axis)
        yield Rows(optimizer, [*labels, heading], scaled.optimum_rows())
        yield Rows("rule", rule_head(scaled), scaled.rule_rows())
        if scaled.found.rules:
            yield styled(scaled.sources(), ascii_only)
        yield styled(WORDS.format(scaled.margin), ascii_only)
        yield styled(scaled.sentence(), ascii_only, "bold")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A table, or a paragraph for each row where its words do not fit beside each other."""

    corner: str
    headings: Sequence[str]
    rows: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = options.ascii_only
        columns = [
            [styled(text, ascii_only).plain for text in column]
            for column in zip([self.corner, *self.headings], *self.rows, strict=True)
        ]
        labels = max(map(cell_len, columns[0]))
        words = [max(cell_len(word) for text in column for word in text.split()) for column in columns[1:]]
        if labels + sum(words) + _BETWEEN * len(columns) < options.max_width:
            made = table(self.corner, self.headings, self.rows, ascii_only)
            for column, width in zip(made.columns[1:], words, strict=True):
                column.min_width = width  # no word is broken
            yield made
            return
        yield Text()
        for label, *entries in self.rows:
            yield styled(f"{self.corner}: {label.strip()}", ascii_only, "bold")
            for heading, entry in zip(self.headings, entries, strict=True):
                if entry:
                    yield Padding(styled(f"{heading}: {entry}", ascii_only), (0, 0, 0, 2))
        yield Text()


def exponent_text(exponent: Estimate) -> str:
    """Write an exponent, or why there is none."""
    if exponent.value is None:
        return "no exponent" + f": {exponent.reason.replace('_', ' ')}" * bool(exponent.reason)
    return f"exponent {estimate_text(exponent)}"


def rule_head(scaled: Scaled) -> list[str]:
    """Return the headings of the table of rules."""
    return ["exponent of λ", "measured", f"cost at {scaled.over.label(scaled.over.values[-1])}"]


def save_scaled_figure(scaled: Scaled, path: Path) -> None:
    """Draw studies along a scale into an svg, png or pdf file. Raises as `write_figure` does."""
    write_figure(path, lambda: draw_scaled(scaled))


def draw_scaled(scaled: Scaled) -> Figure:
    """Draw a panel for each best value, and under them all lattices on one colour scale."""
    from matplotlib.figure import Figure

    panels = law_panels(scaled)
    rows, columns, height = grid_of(len(scaled.results), DOUBLE)
    heights = [_ROW, height] if panels else [height]
    figure = Figure(figsize=(DOUBLE, sum(heights) + 0.6), layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    names = [name for name, *_ in scaled.rule_exponents()]
    if panels:
        above = grid[0].subgridspec(1, len(panels)).subplots(squeeze=False)
        handles: dict[str, Artist | Container] = {}
        for axes, panel in zip(above.flat, panels, strict=True):
            handles |= _draw_panel(axes, panel, names)
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


def _draw_panel(axes: Axes, panel: LawPanel, rules: Sequence[str]) -> dict[str, Artist | Container]:
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
        (axes.xaxis, [label for _, label in panel.x_ticks(_APART)]),
        (axes.yaxis, [label for _, label in panel.y_range.ticks()]),
    ):
        axis.set_ticks([float(label) for label in labels], labels)
        axis.set_ticks([], minor=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(exponent_text(replace(panel.exponent, reason="")), fontsize=7, pad=3)
    write(axes.yaxis.label, panel.label, _ROW)
    return found
