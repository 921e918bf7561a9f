"""One panel of a figure: a lattice on log axes, with its circles, its ridge and what became of bad cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.figure_axis import LogAxis
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.report.view.ramp import colour
from lrwd_sweep.report.view.scale import Scale
from lrwd_sweep.report.view.tiles import Mark, Tiles
from lrwd_sweep.science.surface import Surface
from lrwd_sweep.science.trial import Direction

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.text import Text

_LABEL = 0.25  # inches that one takes along the horizontal axis
_CHARACTER = 0.08  # inches that one of a name takes
_MANY = 400  # cells, from which on white lines between them would cover them
_EMPTY = "#e4e4e8"  # of a cell without a value
_PALE = 0.45  # opacity of a cell that lacks seeds
_RIDGE = "#c2143f"
_LETTERS = {
    "θ": r"\theta",
    "η": r"\eta",
    "α": r"\alpha",
    "λ": r"\lambda",
    "β": r"\beta",
    "ε": r"\epsilon",
    "m̂": r"\hat{m}",
    "v̂": r"\hat{v}",
    "′": r"^{\prime}",
    "₁": "_1",
    "₂": "_2",
    "²": "^2",
    "ᵗ": "^t",
    "Π": r"\Pi",
    "κ": r"\kappa",
    "λ_norm": r"\lambda_{norm}",
    "←": r"\leftarrow",
    "−": "-",
    ";": r",\quad",
}
_LETTER = re.compile("|".join(sorted(_LETTERS, key=len, reverse=True)))


def mathematics(formula: str) -> str:
    r"""An update rule as matplotlib's mathematics.

    >>> mathematics("θ ← θ − ηα m̂/(√v̂+ε)")
    '$\\theta  \\leftarrow  \\theta  - \\eta \\alpha  \\hat{m}/(\\sqrt{\\hat{v}}+\\epsilon )$'
    """
    rooted = formula.replace("√(max v/(1−β₂ᵗ))", r"\sqrt{\max v/(1−β₂ᵗ)}")
    rooted = re.sub("√(v̂|[a-zN])", r"\\sqrt{\1}", rooted)

    def letter(found: re.Match[str]) -> str:
        written = _LETTERS[found[0]]
        return written + " " * written[-1].isalpha() * written.startswith("\\")

    return f"${_LETTER.sub(letter, rooted)}$"


def write(artist: Text, content: str, inches: float) -> None:
    """Write somebody's name: a dollar sign begins no formula, and what has no room is left out."""
    shown, room = plain(content), max(int(inches / _CHARACTER), 3)
    if len(shown) > room:
        half = (room - 1) // 2
        shown = f"{shown[:half]}…{shown[-half:]}"
    artist.set_parse_math(False)
    artist.set_text(shown)


@dataclass(frozen=True, slots=True)
class Colours:
    """The colour scale that all panels share: the heatmaps' own ramp, bright where it is best."""

    low: float
    high: float
    clipped: tuple[bool, bool]  # whether values lie below, and above
    reversed: bool  # the highest is the best

    @classmethod
    def of(cls, surfaces: Sequence[Surface]) -> Colours:
        """The scale of several surfaces; 0 to 1 where none has a value."""
        scale = Scale.of(surfaces) or Scale(0.0, 1.0)
        low, high = sorted((scale.bright, scale.dark))
        clipped = scale.clipped_bright, scale.clipped
        maximized = scale.direction is Direction.MAXIMIZE
        high = high if high > low else low + (abs(low) or 1.0)
        return cls(low, high, clipped[::-1] if maximized else clipped, maximized)

    @property
    def extend(self) -> Literal["neither", "min", "max", "both"]:
        """At which ends of the colour bar values are clipped."""
        below, above = self.clipped
        return "both" if below and above else "min" if below else "max" if above else "neither"

    def norm(self) -> Normalize:
        """Values as shares of the scale."""
        from matplotlib.colors import Normalize

        return Normalize(self.low, self.high)

    def ramp(self) -> Colormap:
        """Shares of the scale as colours, and grey where there is no value."""
        from matplotlib.colors import ListedColormap

        ramp = [tuple(channel / 255 for channel in colour(1 - k / 255)) for k in range(256)]
        ramp = ramp[::-1] if self.reversed else ramp
        return ListedColormap(ramp).with_extremes(bad=_EMPTY)


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One study's lattice on matplotlib axes."""

    axes: Axes
    result: Result
    width: float  # inches, labels included

    def draw(self, colours: Colours, name: str) -> None:
        """Colours, marks, ridge, axes, and the name above the formula."""
        surface = self.result.surface
        x, y = LogAxis.of(surface.weight_decay), LogAxis.of(surface.lr)
        self._colour(x, y, colours)
        self._mark(x, y)
        self._ridge(y)
        self.axes.set_xticks(*x.ticks(round(0.8 * self.width / _LABEL)))
        self.axes.set_yticks(*y.ticks())
        symbol = mathematics(self.result.spec.optimizer.symbol)
        self.axes.set_xlabel(f"weight decay {symbol} ({self.result.spec.optimizer.rule})")
        self.axes.spines[:].set_visible(False)
        self.axes.set_title(mathematics(self.result.spec.formula), fontsize=8, pad=4)
        above = self.axes.annotate(
            "",
            (0.5, 1),
            (0, 17),
            "axes fraction",
            "offset points",
            ha="center",
            fontsize=9,
            fontweight="bold",
        )
        write(above, name, self.width)

    def _colour(self, x: LogAxis, y: LogAxis, colours: Colours) -> None:
        mean = np.ma.masked_invalid(self.result.surface.mean_so_far)
        pale = np.where(self.result.surface.partial, _PALE, 1.0)
        alike = bool((pale == 1).all())
        first = slice(None, 1)
        blocks = [(x.edges, slice(x.zeros, None))] + [(x.zero_edges, first)] * x.zeros
        for edges, columns in blocks:
            self.axes.pcolormesh(
                edges,
                y.edges,
                mean[:, columns],
                cmap=colours.ramp(),
                norm=colours.norm(),
                alpha=None if alike else pale[:, columns],  # type: ignore[arg-type]  # or one for each cell
                edgecolors="white" if mean.size <= _MANY else "face",
                linewidth=0.4 if mean.size <= _MANY else 0.1,
            )

    def _mark(self, x: LogAxis, y: LogAxis) -> None:
        """The ten best circled, the best a star, and a sign for what has no value."""
        size = self._cell_points()
        for mark, (shape, of_cell, style) in _MARKS.items():
            cells = self._marked(mark)
            if cells:
                self.axes.scatter(
                    [x.places[j] for _, j in cells],
                    [y.places[i] for i, _ in cells],
                    s=(of_cell * size) ** 2,
                    marker=shape,
                    zorder=4,
                    **style,  # type: ignore[arg-type]
                )

    def _marked(self, mark: Mark) -> list[tuple[int, int]]:
        """Surface indices of the cells with a mark; the best is one of the ten best too."""
        tiles = Tiles.of(self.result.surface, self.result.separability)
        every = [
            (len(tiles.rows) - 1 - k, j, tile)
            for k, row in enumerate(tiles.rows)
            for j, tile in enumerate(row)
        ]
        alike = {mark, Mark.BEST} if mark is Mark.TOP else {mark}
        return [(i, j) for i, j, tile in every if tile.mark in alike]

    def _cell_points(self) -> float:
        """About the smaller side of a cell, in points."""
        figure = self.axes.figure
        assert figure is not None, "the axes belong to a figure"
        width, height = figure.get_size_inches()  # type: ignore[union-attr]
        grid = self.axes.get_subplotspec()
        rows, columns = grid.get_gridspec().get_geometry() if grid else (1, 1)
        lattice = self.result.surface.mean.shape
        across, up = 0.7 * width / columns / lattice[1], 0.6 * height / rows / lattice[0]
        return float(72 * min(across, up))

    def _ridge(self, y: LogAxis) -> None:
        """A line through (λ*, α), broken where a row between does not carry the slope."""
        for run in _runs(self.result.separability.ridge):
            low, high = run[0][0], run[-1][0]
            reach = [(y.places[i], at) for i, at in run]
            if low == high:  # a line as tall as its row
                reach = [(y.edges[low], run[0][1]), (y.edges[high + 1], run[0][1])]
            for width, paint in ((2.4, "white"), (1.3, _RIDGE)):
                self.axes.plot(
                    [at for _, at in reach],
                    [place for place, _ in reach],
                    color=paint,
                    linewidth=width,
                    solid_joinstyle="round",
                    zorder=3,
                )


_MARKS: dict[Mark, tuple[str, float, dict[str, object]]] = {  # shape, size as a share of the cell, style
    Mark.TOP: ("o", 0.78, {"facecolors": "none", "edgecolors": "black", "linewidths": 1.1}),
    Mark.BEST: ("*", 0.62, {"facecolors": "black", "edgecolors": "white", "linewidths": 0.3}),
    Mark.PARTIAL: (r"$\sim$", 0.4, {"c": "#55555c", "linewidths": 0.0}),
    Mark.DIVERGED: ("x", 0.36, {"c": "#55555c", "linewidths": 0.8}),
    Mark.FAILED: ("_", 0.36, {"c": "#55555c", "linewidths": 0.8}),
    Mark.MISSING: (".", 0.2, {"c": "#55555c", "linewidths": 0.0}),
}
_MEANINGS = {
    Mark.BEST: "best",
    Mark.TOP: "ten best",
    Mark.PARTIAL: "some seeds missing",
    Mark.DIVERGED: "diverged",
    Mark.FAILED: "failed",
    Mark.MISSING: "missing",
}


def _runs(ridge: Sequence[tuple[int, float]]) -> Iterator[list[tuple[int, float]]]:
    """Rows of the ridge in runs of neighbours."""
    if not ridge:
        return
    run = [ridge[0]]
    for before, here in pairwise(ridge):
        if here[0] != before[0] + 1:
            yield run
            run = []
        run.append(here)
    yield run


def legend_handles(results: Sequence[Result]) -> list[Artist]:
    """The marks that occur, each with its meaning."""
    from matplotlib.lines import Line2D

    found = {
        tile.mark
        for result in results
        for row in Tiles.of(result.surface, result.separability).rows
        for tile in row
    }
    handles: list[Artist] = []
    for mark, meaning in _MEANINGS.items():
        if mark in found:
            shape, of_cell, style = _MARKS[mark]
            face = style.get("facecolors", "none")
            edge = style.get("edgecolors", style.get("c"))
            handles.append(
                Line2D(
                    [], [], linestyle="", marker=shape, markersize=4 + 5 * of_cell, label=meaning,
                    markerfacecolor=face, markeredgecolor=edge,  # type: ignore[arg-type]
                )
            )  # fmt: skip
    if any(result.separability.ridge for result in results):
        handles.append(Line2D([], [], color=_RIDGE, linewidth=1.3, label=r"ridge: best $\lambda$ of a row"))
    return handles
