"""The lattice as vector graphics: where every square, label and line of the drawing lies, in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lrwd_sweep.report.result import Candidate, Result, at_cap
from lrwd_sweep.report.view.fields import lattice_value, with_error
from lrwd_sweep.report.view.notation import UNICODE, axis_labels, short_decimal
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.report.view.ramp import Rgb, colour, dimmed, text_on
from lrwd_sweep.report.view.scale import Numbers, Scale
from lrwd_sweep.report.view.tiles import Mark, Ridge, Tile, Tiles
from lrwd_sweep.science.surface import Float, Surface

_MOST_NUMBERED = 16  # columns; in more, squares are too small for a number
_NUMBERED = (44, 28)  # width and height of a square with a number in it
_WIDEST = 560  # of all squares without numbers together
_SMALLEST, _LARGEST = 6, 24  # side of a square without a number
_GAP = 8  # sets the baseline column λ = 0 apart
_LETTER, _LINE = 6.6, 14  # room that a label takes

_MARKS = {
    Mark.BEST: "best",
    Mark.TOP: "top",
    Mark.PARTIAL: "partial",
    Mark.DIVERGED: "diverged",
    Mark.FAILED: "failed",
    Mark.MISSING: "missing",
}
_GLYPHS = {Mark.DIVERGED: UNICODE.diverged, Mark.FAILED: UNICODE.failed, Mark.MISSING: UNICODE.missing}


@dataclass(frozen=True, slots=True)
class Square:
    """One cell: `text` is its number or glyph, `reading` everything that is known of it."""

    row: int  # indices of the surface, not of the drawing
    column: int
    x: float
    y: float
    colour: str  # "" without a value
    light_ink: bool
    text: str
    value: str  # the same where squares are too small for a number
    mark: str
    best_of_row: bool
    reading: str


@dataclass(frozen=True, slots=True)
class Label:
    """An axis value at its place."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """One lattice, ready to be written as SVG; α grows upwards, λ to the right."""

    width: float
    height: float
    left: float  # where squares begin
    bottom: float  # where they end
    square_width: float
    square_height: float
    numbered: bool
    squares: tuple[Square, ...]
    row_labels: tuple[Label, ...]
    column_labels: tuple[Label, ...]
    row_names: tuple[str, ...]  # every α, ascending, in words of the labels
    column_names: tuple[str, ...]
    ridge: tuple[str, ...]  # polylines through λ* of neighbouring rows that carry the ridge slope
    symbol: str
    rule: str

    @classmethod
    def of(
        cls, result: Result, scale: Scale | None, numbers: Numbers | None, *, ranked: bool = True
    ) -> Drawing:
        """Lay out a result's lattice on a colour scale that it may share with others.

        Unless values are `ranked`, one end being better, no cell is marked and there is no ridge.
        """
        surface = result.surface
        grid = _Grid.of(surface)
        rows, columns = (_names(axis) for axis in (surface.lr, surface.weight_decay))
        return cls(
            width=grid.right + 4,
            height=grid.bottom + 2 * _LINE + 10,
            left=grid.left,
            bottom=grid.bottom,
            square_width=grid.width,
            square_height=grid.height,
            numbered=grid.numbered,
            squares=tuple(_squares(result, grid, scale, numbers, ranked)),
            row_labels=tuple(
                Label(grid.left - 6, grid.y(i) + grid.height / 2 + 4, rows[i])
                for i in range(0, grid.rows, math.ceil(_LINE / grid.height))
            ),
            column_labels=tuple(_column_labels(columns, grid)),
            row_names=rows,
            column_names=columns,
            ridge=tuple(_ridge(result, grid)) if ranked else (),
            symbol=result.spec.optimizer.symbol,
            rule=str(result.spec.optimizer.rule),
        )


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where rows and columns lie."""

    rows: int
    columns: int
    left: float
    top: float
    width: float  # of a square
    height: float
    gap: float  # after the first column
    numbered: bool

    @classmethod
    def of(cls, surface: Surface) -> _Grid:
        rows, columns = len(surface.lr), len(surface.weight_decay)
        longest = max(map(len, _names(surface.lr)))
        numbered = columns <= _MOST_NUMBERED
        side = float(min(max(_WIDEST // columns, _SMALLEST), _LARGEST))
        width, height = _NUMBERED if numbered else (side, side)
        gap = _GAP if surface.weight_decay[0] == 0 else 0
        return cls(rows, columns, longest * _LETTER + 28, 4, width, height, gap, numbered)

    def x(self, j: int) -> float:
        return self.left + j * self.width + (self.gap if j else 0)

    def y(self, i: int) -> float:
        return self.top + (self.rows - 1 - i) * self.height

    @property
    def right(self) -> float:
        return self.x(self.columns - 1) + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.rows * self.height


def _names(axis: Float) -> tuple[str, ...]:
    return tuple(axis_labels([float(value) for value in axis], UNICODE))


def hexadecimal(rgb: Rgb) -> str:
    """A colour as CSS and SVG write it."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _squares(
    result: Result, grid: _Grid, scale: Scale | None, numbers: Numbers | None, ranked: bool
) -> Iterator[Square]:
    tiles = Tiles.of(result.surface, result.separability, ranked=ranked)
    for place, row in enumerate(tiles.rows):
        i = grid.rows - 1 - place
        for j, tile in enumerate(row):
            rgb = None if tile.value is None or scale is None else colour(scale.goodness(tile.value))
            if rgb is not None and tile.mark is Mark.PARTIAL:
                rgb = dimmed(rgb)
            yield Square(
                row=i,
                column=j,
                x=grid.x(j),
                y=grid.y(i),
                colour="" if rgb is None else hexadecimal(rgb),
                light_ink=rgb is not None and text_on(rgb) != (0, 0, 0),
                text=_value(tile, numbers) if grid.numbered or tile.value is None else "",
                value=_value(tile, numbers),
                mark=_MARKS.get(tile.mark, ""),
                best_of_row=tile.ridge.marked,
                reading=reading(result, i, j, tile),
            )


def _value(tile: Tile, numbers: Numbers | None) -> str:
    if tile.value is None:
        return _GLYPHS[tile.mark]
    return numbers.text(tile.value) + UNICODE.partial * (tile.mark is Mark.PARTIAL) if numbers else ""


def reading(result: Result, i: int, j: int, tile: Tile) -> str:
    """All that is known of a cell, in lines: where it is, its value, what stands out, and every seed."""
    surface = result.surface
    cell = surface.cell(i, j)
    symbol = result.spec.optimizer.symbol
    notes = [
        {Mark.BEST: "the best cell", Mark.TOP: "one of the ten best"}.get(tile.mark, ""),
        {Ridge.CARRIES: "best of its row", Ridge.APART: "best of its row, not in the slope"}.get(
            tile.ridge, ""
        ),
        f"does not count: {at_cap(result, surface)}" if tile.value is not None and surface.out[i, j] else "",
        "some seeds are missing" if tile.mark is Mark.PARTIAL else "",
    ]
    if tile.value is None:
        value = str(surface.status(i, j))
    else:
        sem = float(surface.sem[i, j])
        written = with_error(Candidate(cell, tile.value, sem if math.isfinite(sem) else None, None))
        value = f"{plain(surface.metric)} {written}"
    seeds = ", ".join(
        f"{seed}: {short_decimal(float(value), 4) if math.isfinite(value) else lane}"
        for seed, value, lane in zip(surface.seeds, surface.values[i, j], surface.lanes[i, j], strict=True)
    )
    return "\n".join(
        [
            f"α {lattice_value(cell.lr)}, {symbol} {lattice_value(cell.weight_decay)}",
            ", ".join(filter(None, [value, *notes])),
            f"seed {seeds}",
        ]
    )


def _column_labels(labels: Sequence[str], grid: _Grid) -> Iterator[Label]:
    """The λ labels, as many as fit side by side; that of λ = 0 always."""
    first = int(grid.gap > 0)
    stride = math.ceil((max(map(len, labels)) * _LETTER + 4) / grid.width)
    for j in [*range(first), *range(first * stride, len(labels), stride)]:
        yield Label(grid.x(j) + grid.width / 2, grid.bottom + _LINE, labels[j])


def _ridge(result: Result, grid: _Grid) -> Iterator[str]:
    """Polylines through (λ*, α), broken where a row between does not carry the slope."""
    surface = result.surface
    first = int(surface.weight_decay[0] == 0)
    centres = [grid.x(j) + grid.width / 2 for j in range(first, grid.columns)]
    log_decay = np.log2(surface.weight_decay[first:])
    runs: list[list[tuple[int, float]]] = []
    for i, minimum in result.separability.ridge:
        place = (i, float(np.interp(minimum, log_decay, centres)))
        if runs and runs[-1][-1][0] == i - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    for run in runs:
        yield _points([(x, grid.y(i) + grid.height / 2) for i, x in run], grid.height / 2)


def _points(places: Sequence[tuple[float, float]], reach: float) -> str:
    """A polyline's points; one row alone is a line as tall as the row."""
    if len(places) == 1:
        x, y = places[0]
        places = [(x, y + reach), (x, y - reach)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
