"""The lattices as a figure for a paper, in the manner of Loshchilov and Hutter's Figure 2."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lrwd_sweep.errors import HostError, NothingToReport, UnknownName, UsageError, arg
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.notation import (
    FEWER,
    NEVER,
    UNICODE,
    axes_are_decimal,
    decay_labels,
    decay_symbol,
    mathematics,
    plain,
    short_decimal,
)
from lrwd_sweep.report.view.tables import title
from lrwd_sweep.report.view.tiles import Mark, Scale, Tiles, colour, ridge_runs, seeds_of
from lrwd_sweep.science.lattice import format_value
from lrwd_sweep.science.surface import Float, Surface
from lrwd_sweep.science.trial import Direction

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_MOST_LABELS = 12  # along one axis
_GAP = 0.4  # steps that set the λ = 0 column apart
_LABEL = 0.25  # inches of one label along the horizontal axis
_LONGER = 2  # times the length of a power of two: a decimal
_CHARACTER = 0.08  # inches of one character of a name
_MANY = 400  # cells; white lines between more of them would cover them
_EMPTY = "#e4e4e8"  # of a cell without a value
_PALE = 0.45  # opacity of a cell that lacks seeds
_RIDGE = "#c2143f"


def write(artist: Text, content: str, inches: float) -> None:
    """Write a user's name: a dollar sign starts no formula, and the middle of a long name is left out."""
    shown, room = plain(content), max(int(inches / _CHARACTER), 3)
    if len(shown) > room:
        half = (room - 1) // 2
        shown = f"{shown[:half]}…{shown[-half:]}"
    artist.set_parse_math(False)
    artist.set_text(shown)


Extend = Literal["neither", "min", "max", "both"]


def colour_scale(surfaces: Sequence[Surface]) -> tuple[Normalize, Colormap, Extend]:
    """Return the colour scale of several surfaces, and at which ends of its bar values are clipped.

    The ramp is that of the heatmaps, bright at the best; grey where there is no value. The scale runs from 0
    to 1 if no surface has a value.
    """
    from matplotlib.colors import ListedColormap, Normalize

    scale = Scale.of(surfaces) or Scale(0.0, 1.0)
    low, high = sorted((scale.bright, scale.dark))
    high = high if high > low else low + (abs(low) or 1.0)
    below, above = scale.clipped_bright, scale.clipped
    ramp = [tuple(channel / 255 for channel in colour(1 - k / 255)) for k in range(256)]
    if scale.direction is Direction.MAXIMIZE:
        below, above, ramp = above, below, ramp[::-1]
    extend: Extend = "both" if below and above else "min" if below else "max" if above else "neither"
    return Normalize(low, high), ListedColormap(ramp).with_extremes(bad=_EMPTY), extend


@dataclass(frozen=True, slots=True, eq=False)
class LogAxis:
    """An axis in log2 of its values; 0 lies apart, below the others."""

    values: Float  # (n,) ascending
    places: Float  # (n,) centres of the cells
    edges: Float  # of the cells of positive values

    @classmethod
    def of(cls, values: Float) -> LogAxis:
        """Set edges half-way between neighbours, and as far beyond the ends."""
        logs = np.log2(values[values > 0])
        middles = (logs[1:] + logs[:-1]) / 2
        first, last = (middles[0], middles[-1]) if len(middles) else (logs[0] - 0.5, logs[0] + 0.5)
        edges = np.concatenate([[2 * logs[0] - first], middles, [2 * logs[-1] - last]])
        if values[0] > 0:
            return cls(values, logs, edges)
        apart = edges[0] - (_GAP + 0.5) * (edges[1] - edges[0])
        return cls(values, np.concatenate([[apart], logs]), edges)

    @property
    def zeros(self) -> int:
        """1 if the axis begins with 0, else 0."""
        return int(self.values[0] == 0)

    def ticks(self, most: int = _MOST_LABELS, *, decimal: bool = False) -> tuple[list[float], list[str]]:
        """Return places and labels, at most about `most`: powers of two or of ten if any, else values.

        With `decimal` always values.
        """
        positive = [float(value) for value in self.values if value > 0]
        found = [(math.log2(value), short_decimal(value)) for value in positive]
        names = [format_value(value) for value in positive]
        low, high = math.ceil(math.log10(positive[0]) - 1e-9), math.floor(math.log10(positive[-1]) + 1e-9)
        if decimal:
            most = math.ceil(most / _LONGER)
        elif all(name.startswith("2^") for name in names):
            found = [(place, f"$2^{{{name[2:]}}}$") for (place, _), name in zip(found, names, strict=True)]
        elif high > low:
            found = [(math.log2(10) * power, f"$10^{{{power}}}$") for power in range(low, high + 1)]
        found = found[:: math.ceil(len(found) / most)]
        found = [(float(self.places[0]), "0")] * self.zeros + found
        return [place for place, _ in found], [label for _, label in found]


def _draw_panel(
    axes: Axes, result: Result, name: str, inches: float, norm: Normalize, ramp: Colormap
) -> None:
    """Draw one lattice: colours, marks, ridge and axes, and the name above the formula."""
    surface = result.surface
    x, y = LogAxis.of(surface.weight_decay), LogAxis.of(surface.lr)
    _colour(axes, surface, x, y, norm, ramp)
    _mark(axes, result, x, y)
    _draw_ridge(axes, result, y)
    tau = decay_symbol(surface) != surface.symbol
    places, labels = x.ticks(round(0.8 * inches / _LABEL), decimal=tau or axes_are_decimal())
    if tau:
        decays = [0.0] * x.zeros + [2.0**place for place in places[x.zeros :]]
        labels = decay_labels(surface, decays, UNICODE)
    axes.set_xticks(places, labels)
    axes.set_yticks(*y.ticks(decimal=axes_are_decimal()))
    axes.set_xlabel(f"weight decay {mathematics(decay_symbol(surface))} ({result.spec.optimizer.rule})")
    axes.spines[:].set_visible(False)
    axes.set_title(mathematics(result.spec.formula), fontsize=8, pad=4)
    above = axes.annotate(
        "", (0.5, 1), (0, 17), "axes fraction", "offset points", ha="center", fontsize=9, fontweight="bold"
    )
    write(above, name, inches)


def _colour(axes: Axes, surface: Surface, x: LogAxis, y: LogAxis, norm: Normalize, ramp: Colormap) -> None:
    mean = np.ma.masked_invalid(surface.mean_so_far)
    pale = np.where(surface.partial, _PALE, 1.0)
    few = mean.size <= _MANY
    blocks = [(x.edges, slice(x.zeros, None))]
    if x.zeros:  # the column at 0
        half = (x.edges[1] - x.edges[0]) / 2
        blocks.append((x.places[0] + np.array([-half, half]), slice(None, 1)))
    for edges, columns in blocks:
        axes.pcolormesh(
            edges,
            y.edges,
            mean[:, columns],
            cmap=ramp,
            norm=norm,
            alpha=pale[:, columns] if surface.partial.any() else None,  # type: ignore[arg-type]  # one per cell
            edgecolors="white" if few else "face",
            linewidth=0.4 if few else 0.1,
        )


def _mark(axes: Axes, result: Result, x: LogAxis, y: LogAxis) -> None:
    """Circle the ten best, mark the best by a star, and sign the cells without a value."""
    size, tiles = _cell_points(axes, result.surface), Tiles.of(result.surface, result.separability)
    for mark, (shape, of_cell, style, _) in _MARKS.items():
        alike = {mark, Mark.BEST} if mark is Mark.TOP else {mark}
        cells = [
            (left, above)
            for above, row in zip(reversed(y.places), tiles.rows, strict=True)
            for left, tile in zip(x.places, row, strict=True)
            if tile.mark in alike
        ]
        if cells:
            across, up = zip(*cells, strict=True)
            area = (of_cell * size) ** 2
            axes.scatter(across, up, s=area, marker=shape, zorder=4, **style)


def _cell_points(axes: Axes, surface: Surface) -> float:
    """Estimate the smaller side of a cell, in points."""
    grid = axes.get_subplotspec()
    assert axes.figure is not None, "the axes belong to a figure"
    assert grid is not None, "the axes are one panel of a grid"
    (width, height), (rows, columns) = axes.figure.get_size_inches(), grid.get_gridspec().get_geometry()  # type: ignore[union-attr]
    across, up = 0.7 * width / columns / len(surface.weight_decay), 0.6 * height / rows / len(surface.lr)
    return float(72 * min(across, up))


def _draw_ridge(axes: Axes, result: Result, y: LogAxis) -> None:
    """Draw a line through (λ*, α), broken at rows that do not carry the slope."""
    for run in ridge_runs(result.separability.ridge):
        low, high = run[0][0], run[-1][0]
        reach = [(y.places[i], at) for i, at in run]
        if low == high:  # a line as tall as its row
            reach = [(y.edges[low], run[0][1]), (y.edges[high + 1], run[0][1])]
        up, along = zip(*reach, strict=True)
        for width, paint in ((2.4, "white"), (1.3, _RIDGE)):
            axes.plot(along, up, color=paint, linewidth=width, solid_joinstyle="round", zorder=3)


_GREY: dict[str, Any] = {"c": "#55555c", "linewidths": 0.0}
_MARKS: dict[Mark, tuple[str, float, dict[str, Any], str]] = {  # shape, share of the cell, style, meaning
    Mark.TOP: ("o", 0.78, {"facecolors": "none", "edgecolors": "black", "linewidths": 1.1}, "ten best"),
    Mark.BEST: ("*", 0.62, {"facecolors": "black", "edgecolors": "white", "linewidths": 0.3}, "best"),
    Mark.PARTIAL: (r"$\sim$", 0.4, _GREY, "some seeds missing"),
    Mark.DIVERGED: ("x", 0.36, _GREY | {"linewidths": 0.8}, "diverged"),
    Mark.FAILED: ("_", 0.36, _GREY | {"linewidths": 0.8}, "failed"),
    Mark.MISSING: (".", 0.2, _GREY, "missing"),
}


def _legend_handles(results: Sequence[Result]) -> list[Artist]:
    """List the marks that occur, each with its meaning."""
    from matplotlib.lines import Line2D

    found = {tile.mark for result in results for tile in Tiles.of(result.surface).every}
    handles: list[Artist] = []
    refined = any(result.surface.is_refined for result in results)
    for mark in Mark:
        if mark in found and mark in _MARKS:
            shape, of_cell, style, meaning = _MARKS[mark]
            meaning = {Mark.PARTIAL: FEWER, Mark.MISSING: NEVER}.get(mark, meaning) if refined else meaning
            face, edge = style.get("facecolors", "none"), style.get("edgecolors", style.get("c"))
            look = {"markersize": 4 + 5 * of_cell, "markerfacecolor": face, "markeredgecolor": edge}
            handles.append(Line2D([], [], linestyle="", marker=shape, label=meaning, **look))
    if any(result.separability.ridge for result in results):
        handles.append(Line2D([], [], color=_RIDGE, linewidth=1.3, label=r"ridge: best $\lambda$ of a row"))
    return handles


# No file carries when and by which version it was made, so that the same results give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": "lrwd-sweep"},
    "pdf": {"CreationDate": None, "Creator": "lrwd-sweep", "Producer": None},
    "png": {"Software": None},
}
_STYLE = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],  # both come with matplotlib
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 8,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "pdf.fonttype": 42,  # TrueType, embedded: publishers refuse Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "lrwd-sweep",
    "savefig.dpi": 300,
}
SINGLE, DOUBLE = 3.4, 7.0  # inches: one column of a paper, and both


def save_figure(results: Sequence[Result], path: Path) -> None:
    """Draw one panel per result, all on one colour scale, into an svg, png or pdf file.

    Raises as `write_figure` does, NothingToReport without results, UsageError if their metrics differ.
    """
    figure_format(path)
    if not results:
        raise NothingToReport("there is no study to draw; name one that lrwd-sweep study list shows")
    if len({result.surface.metric for result in results}) > 1:
        raise UsageError(f"different metrics share no colour scale; choose one with {arg('metric')}")
    write_figure(path, lambda: draw(results))


def figure_format(path: Path) -> str:
    """Return the format of a file's suffix. Raises UnknownName if it cannot be written."""
    form = path.suffix.lower().removeprefix(".")
    if form not in _METADATA:
        raise UnknownName("figure format", path.suffix or path.name, [f".{name}" for name in _METADATA])
    return form


def check_figure(path: Path) -> None:
    """Raise UnknownName for a suffix that cannot be written, HostError without matplotlib."""
    figure_format(path)
    with _style():
        pass


def write_figure(path: Path, draw: Callable[[], Figure]) -> None:
    """Write the figure that `draw` returns, in our style and the format of the file's suffix.

    It is drawn in memory first, so that a failure leaves no file; the same results give the same bytes.
    Raises UnknownName for another suffix, HostError without matplotlib, OSError if it cannot be written.
    """
    form = figure_format(path)
    drawn = io.BytesIO()
    with _style():
        draw().savefig(drawn, format=form, metadata=_METADATA[form])
    path.write_bytes(drawn.getvalue())


@contextmanager
def _style() -> Iterator[None]:
    """Set matplotlib to our style within the block, without pyplot."""
    try:
        from matplotlib import rc_context, style
    except ImportError:
        raise HostError("a figure needs matplotlib; run pip install 'lrwd-sweep[figures]'") from None
    with rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # in a user's name
        style.use(["default", _STYLE])
        yield


def draw(results: Sequence[Result]) -> Figure:
    """Draw the figure: as wide as one column for one panel, as two columns for more."""
    from matplotlib.figure import Figure

    width = SINGLE if len(results) == 1 else DOUBLE
    rows, columns, height = grid_of(len(results), width)
    figure = Figure(figsize=(width, height + 0.3), layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    draw_lattices(figure, every, columns, results, [title(result, results) for result in results])
    return figure


def grid_of(count: int, width: float) -> tuple[int, int, float]:
    """Return rows, columns and height of a grid of lattices, lengths in inches."""
    columns = count if count <= 2 else 2 if count == 4 else 3
    rows = math.ceil(count / columns)
    return rows, columns, rows * (0.72 * width / columns + 0.55)


def draw_lattices(
    figure: Figure, every: Sequence[Axes], columns: int, results: Sequence[Result], names: Sequence[str]
) -> None:
    """Draw lattices on the first axes of a grid, with their colour bar and the legend of the figure."""
    from matplotlib.cm import ScalarMappable

    surfaces, (width, height) = [result.surface for result in results], figure.get_size_inches()
    norm, ramp, extend = colour_scale(surfaces)
    for axes in every[len(results) :]:
        axes.set_axis_off()
    for k, (axes, result, name) in enumerate(zip(every, results, names, strict=False)):
        _draw_panel(axes, result, name, width / columns, norm, ramp)
        if k % columns == 0:
            axes.set_ylabel(r"learning rate $\alpha$")
    scale = ScalarMappable(norm, ramp)
    bar = figure.colorbar(scale, ax=every, extend=extend, fraction=0.05, pad=0.02, aspect=30)
    write(bar.ax.yaxis.label, f"{surfaces[0].metric}, {seeds_of(surfaces)}", height)
    handles = _legend_handles(results)
    spacing = {"handletextpad": 0.3, "columnspacing": 1.2}
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, **spacing)
