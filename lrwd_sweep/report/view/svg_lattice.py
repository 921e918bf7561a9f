"""The lattice as SVG: places of squares, labels and ridge in pixels, texts of cells, and the legend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrwd_sweep.report.result import Candidate, Result, at_cap
from lrwd_sweep.report.view.fields import lattice_value, with_error
from lrwd_sweep.report.view.notation import UNICODE, axis_labels, plain, short_decimal
from lrwd_sweep.report.view.scale import Numbers, Rgb, Scale, colour, dimmed, text_on
from lrwd_sweep.report.view.tiles import Mark, Ridge, Tile, Tiles, ridge_runs, runs_of, seeds_of
from lrwd_sweep.science.surface import Float
from lrwd_sweep.science.trial import Direction

_MOST_NUMBERED = 16  # columns; with more, squares are too small for a number
_NUMBERED = (44, 28)  # width and height of a square with a number in it
_WIDEST = 560  # of all squares without numbers together
_SMALLEST, _LARGEST = 6, 24  # side of a square without a number
_GAP = 8  # sets the baseline column λ = 0 apart
_TOP = 4  # above the first row
_LETTER, _LINE = 6.6, 14  # size of a label's letter
_RAMP = 17  # colours along the legend's ramp

_GLYPHS = {Mark.DIVERGED: UNICODE.diverged, Mark.FAILED: UNICODE.failed, Mark.MISSING: UNICODE.missing}
_NOTES: dict[object, str] = {
    Mark.BEST: "the best cell",
    Mark.TOP: "one of the ten best",
    Ridge.CARRIES: "best of its row",
    Ridge.APART: "best of its row, not in the slope",
}


@dataclass(frozen=True, slots=True)
class Square:
    """One cell: `text` is its number or glyph, `reading` everything that is known about it."""

    row: int  # indices of the surface, not of the drawing
    column: int
    x: float
    y: float
    colour: str  # "" without a value
    light_ink: bool
    text: str
    value: str  # the same, but never empty because the square is too small for a number
    mark: str
    best_of_row: bool
    reading: str


Label = tuple[float, float, str]  # x, y and text of an axis value


@dataclass(frozen=True, eq=False)
class SvgLattice:
    """One lattice, to be written as SVG; α grows upward, λ to the right.

    Cells are marked and the ridge is drawn only if values are `ranked`, that is, one end is better.
    """

    result: Result
    title: str
    scale: Scale | None  # may be shared with other lattices
    ranked: bool = True

    @cached_property
    def row_names(self) -> list[str]:
        """Every α, ascending."""
        return _names(self.result.surface.lr)

    @cached_property
    def column_names(self) -> list[str]:
        """Every λ, ascending."""
        return _names(self.result.surface.weight_decay)

    @property
    def symbol(self) -> str:
        """The letter of the decay."""
        return self.result.spec.optimizer.symbol

    @property
    def numbered(self) -> bool:
        """Whether squares hold numbers."""
        return len(self.column_names) <= _MOST_NUMBERED

    @cached_property
    def size(self) -> tuple[float, float]:
        """Width and height of a square."""
        side = float(min(max(_WIDEST // len(self.column_names), _SMALLEST), _LARGEST))
        return _NUMBERED if self.numbered else (side, side)

    @cached_property
    def left(self) -> float:
        """Where the squares begin."""
        return max(map(len, self.row_names)) * _LETTER + 28

    @property
    def bottom(self) -> float:
        """Where the squares end."""
        return _TOP + len(self.row_names) * self.size[1]

    @property
    def width(self) -> float:
        """Width of the drawing."""
        return self.x(len(self.column_names) - 1) + self.size[0] + 4

    @property
    def height(self) -> float:
        """Height of the drawing."""
        return self.bottom + 2 * _LINE + 10

    @property
    def _zeros(self) -> int:
        return int(self.result.surface.weight_decay[0] == 0)

    def x(self, j: int) -> float:
        """Return the left side of column j."""
        return self.left + j * self.size[0] + (_GAP * self._zeros if j else 0)

    def y(self, i: int) -> float:
        """Return the upper side of row i."""
        return _TOP + (len(self.row_names) - 1 - i) * self.size[1]

    @property
    def row_labels(self) -> list[Label]:
        """The α labels that fit above each other."""
        height = self.size[1]
        rows = range(0, len(self.row_names), math.ceil(_LINE / height))
        return [(self.left - 6, self.y(i) + height / 2 + 4, self.row_names[i]) for i in rows]

    @property
    def column_labels(self) -> list[Label]:
        """The λ labels that fit side by side; always that of λ = 0."""
        labels, width = self.column_names, self.size[0]
        stride = math.ceil((max(map(len, labels)) * _LETTER + 4) / width)
        columns = [*range(self._zeros), *range(self._zeros * stride, len(labels), stride)]
        return [(self.x(j) + width / 2, self.bottom + _LINE, labels[j]) for j in columns]

    @cached_property
    def squares(self) -> list[Square]:
        """All cells, the largest α first."""
        tiles = Tiles.of(self.result.surface, self.result.separability, ranked=self.ranked)
        count = len(tiles.rows)
        return [
            self._square(count - 1 - k, j, tile)
            for k, row in enumerate(tiles.rows)
            for j, tile in enumerate(row)
        ]

    def _square(self, i: int, j: int, tile: Tile) -> Square:
        rgb = None if tile.value is None or self.scale is None else colour(self.scale.goodness(tile.value))
        if rgb is not None and tile.mark is Mark.PARTIAL:
            rgb = dimmed(rgb)
        numbers = numbers_of(self.scale)
        if tile.value is None:
            value = _GLYPHS[tile.mark]
        else:
            value = (
                numbers.text(tile.value) + UNICODE.partial * (tile.mark is Mark.PARTIAL) if numbers else ""
            )
        return Square(
            row=i,
            column=j,
            x=self.x(j),
            y=self.y(i),
            colour="" if rgb is None else hexadecimal(rgb),
            light_ink=rgb is not None and text_on(rgb) != (0, 0, 0),
            text=value if self.numbered or tile.value is None else "",
            value=value,
            mark=tile.mark.name.lower(),
            best_of_row=tile.best_of_row,
            reading=reading(self.result, i, j, tile),
        )

    @property
    def ridge(self) -> Iterator[str]:
        """Polylines through (λ*, α), broken at rows that do not carry the slope; a single row is a bar."""
        if not self.ranked:
            return
        first, (width, height) = self._zeros, self.size
        centres = [self.x(j) + width / 2 for j in range(first, len(self.column_names))]
        log_decay = np.log2(self.result.surface.weight_decay[first:])
        for run in ridge_runs(self.result.separability.ridge):
            places = [
                (float(np.interp(minimum, log_decay, centres)), self.y(i) + height / 2) for i, minimum in run
            ]
            if len(places) == 1:
                ((x, y),) = places
                places = [(x, y + height / 2), (x, y - height / 2)]
            yield " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _names(axis: Float) -> list[str]:
    return axis_labels([float(value) for value in axis], UNICODE)


def hexadecimal(rgb: Rgb) -> str:
    """Write a colour for CSS and SVG."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def reading(result: Result, i: int, j: int, tile: Tile) -> str:
    """Write all that is known about a cell in three lines: place, value with marks, every seed."""
    surface = result.surface
    cell = surface.cell(i, j)
    if tile.value is None:
        value = str(surface.status(i, j))
    else:
        sem = float(surface.sem[i, j])
        written = with_error(Candidate(cell, tile.value, sem if math.isfinite(sem) else None, None))
        value = f"{plain(surface.metric)} {written}"
    notes = [
        _NOTES.get(tile.mark, ""),
        _NOTES.get(tile.ridge, ""),
        f"does not count: {at_cap(result, surface)}" if tile.value is not None and surface.out[i, j] else "",
        "some seeds are missing" if tile.mark is Mark.PARTIAL else "",
    ]
    seeds = ", ".join(
        f"{seed}: {short_decimal(float(value), 4) if math.isfinite(value) else lane}"
        for seed, value, lane in zip(surface.seeds, surface.values[i, j], surface.lanes[i, j], strict=True)
    )
    return "\n".join(
        [
            f"α {lattice_value(cell.lr)}, {result.spec.optimizer.symbol} {lattice_value(cell.weight_decay)}",
            ", ".join(filter(None, [value, *notes])),
            f"seed {seeds}",
        ]
    )


def numbers_of(scale: Scale | None) -> Numbers | None:
    """Choose the number format of a scale."""
    return None if scale is None else Numbers.absolute(scale) or Numbers.relative(scale)


@dataclass(frozen=True, slots=True)
class SvgLegend:
    """The meaning of colours and numbers for the studies of one metric."""

    metric: str
    seeds: str
    colours: list[str]  # from the best to the dark end
    ends: tuple[str, str]  # labels of the bright and the dark end
    numbers: str
    partial: str  # how many of the runs are done, if some cells lack seeds

    @classmethod
    def of(cls, results: Sequence[Result], scale: Scale | None, *, ranked: bool = True) -> SvgLegend:
        """Describe the scale of results in one metric."""
        surfaces = [result.surface for result in results]
        metric, numbers = surfaces[0].metric, numbers_of(scale)
        higher = ranked and surfaces[0].direction is Direction.MAXIMIZE
        return cls(
            metric,
            seeds_of(surfaces) + ", higher is better" * higher,
            [hexadecimal(colour(1 - k / (_RAMP - 1))) for k in range(_RAMP)] if scale else [],
            scale.ends if scale else ("", ""),
            numbers.meaning(metric, scale, UNICODE)
            if scale and numbers
            else f"{metric}: no cell has a value",
            runs_of(surfaces) if any(surface.partial.any() for surface in surfaces) else "",
        )


def lay_out(
    results: Sequence[Result], titles: Sequence[str], *, ranked: bool = True
) -> tuple[list[SvgLegend], list[SvgLattice]]:
    """Lay out lattices, those of one metric on one scale with one legend."""
    scales: dict[str, Scale | None] = {}
    legends = []
    for metric in dict.fromkeys(result.surface.metric for result in results):
        alike = [result for result in results if result.surface.metric == metric]
        scales[metric] = Scale.of([result.surface for result in alike], ranked=ranked)
        legends.append(SvgLegend.of(alike, scales[metric], ranked=ranked))
    return legends, [
        SvgLattice(result, title, scales[result.surface.metric], ranked)
        for result, title in zip(results, titles, strict=True)
    ]
