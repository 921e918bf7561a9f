"""Lattices and learning curves as SVG: places in pixels or thousandths of a panel, texts and legends.

The script only joins the points that are written here, so a curve drawn on a click and one drawn in the file
cannot differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrwd_sweep.report.result import Candidate, Result, at_cap
from lrwd_sweep.report.view.fields import LEFT, place_text, with_error
from lrwd_sweep.report.view.line_chart import SIZE, Range, even_ticks, interpolated
from lrwd_sweep.report.view.notation import (
    FEWER,
    NEVER,
    UNICODE,
    axis_labels,
    decay_labels,
    decay_symbol,
    plain,
    short_decimal,
)
from lrwd_sweep.report.view.tiles import (
    Mark,
    Rgb,
    Ridge,
    Scale,
    Tile,
    Tiles,
    colour,
    ridge_runs,
    runs_of,
    seeds_of,
    text_on,
)
from lrwd_sweep.science.surface import Float, Surface, nearest
from lrwd_sweep.science.trial import Status

_MOST_NUMBERED = 16  # columns; with more, squares are too small for a number
_NUMBERED = (44, 28)  # width and height of a square with a number in it
_WIDEST = 560  # of all squares without numbers together
_SMALLEST, _LARGEST = 6, 24  # side of a square without a number
_GAP = 8  # sets the baseline column λ = 0 apart
_TOP = 4  # above the first row
_LETTER, _LINE = 6.6, 14  # size of a label's letter
_RAMP = 17  # colours along the legend's ramp
_POINTS = 400_000  # of all curves of a report together, some 4 bytes each
_FEWEST = 12  # points of a curve that still has a shape
_WORDS = {"best": "best cell", "worst": "worst cell that counts", "centre": "centre of the lattice"}

_NOTES: dict[Mark | Ridge, str] = {
    Mark.BEST: "the best cell",
    Mark.TOP: "one of the ten best",
    Ridge.CARRIES: "best of its row",
    Ridge.APART: "best of its row, not in the slope",
}

Place = tuple[int, int]  # (row, column) of a surface
Lane = Mapping[str, Float]  # one training run's curves by name, cut at the first that is not finite
Label = tuple[float, float, str]  # x, y and text of an axis value


@dataclass(frozen=True, slots=True)
class Square:
    """One cell: `text` is its number or sign, `reading` everything that is known about it."""

    row: int  # indices of the surface, not of the drawing
    column: int
    x: float
    y: float
    colour: str  # "" without a value
    light_ink: bool
    text: str
    value: str  # the same, but never empty because the square is too small for a number
    mark: Mark
    best_of_row: bool
    reading: str


@dataclass(frozen=True, eq=False)
class SvgLattice:
    """The places of one lattice, in pixels; α grows upward, λ to the right."""

    result: Result
    title: str
    symbol: str  # of the decay
    row_names: list[str]  # ascending
    column_names: list[str]
    numbered: bool  # squares hold numbers
    size: tuple[float, float]  # of a square: width, height
    left: float  # edges of the squares
    bottom: float
    width: float  # of the drawing
    height: float
    row_labels: list[Label]  # that fit above each other
    column_labels: list[Label]  # that fit side by side; λ = 0 always
    squares: list[Square]  # the largest α first
    ridge: list[str]  # polylines through (λ*, α)


def svg_lattice(
    result: Result, title: str, scale: Scale | None, *, ranked: bool = True, numbered: bool = True
) -> SvgLattice:
    """Lay out one lattice on a scale that others may share.

    Squares hold numbers if `numbered`, and if they are large enough. Cells are marked and the ridge is drawn
    only if values are `ranked`, that is, one end is better.
    """
    surface = result.surface
    rows = axis_labels([float(value) for value in surface.lr], UNICODE)
    columns = decay_labels(surface, [float(value) for value in surface.weight_decay], UNICODE)
    zeros, numbered = int(surface.weight_decay[0] == 0), numbered and len(columns) <= _MOST_NUMBERED
    side = float(min(max(_WIDEST // len(columns), _SMALLEST), _LARGEST))
    width, height = _NUMBERED if numbered else (side, side)
    left, bottom = max(map(len, rows)) * _LETTER + 28, _TOP + len(rows) * height
    x = [left + j * width + (_GAP * zeros if j else 0) for j in range(len(columns))]
    y = [_TOP + (len(rows) - 1 - i) * height for i in range(len(rows))]
    stride = math.ceil((max(map(len, columns)) * _LETTER + 4) / width)
    labelled = [*range(zeros), *range(zeros * stride, len(columns), stride)]
    tiles = Tiles.of(surface, result.separability, ranked=ranked)
    return SvgLattice(
        result,
        title,
        decay_symbol(surface),
        rows,
        columns,
        numbered,
        (width, height),
        left,
        bottom,
        width=x[-1] + width + 4,
        height=bottom + 2 * _LINE + 10,
        row_labels=[
            (left - 6, y[i] + height / 2 + 4, rows[i]) for i in range(0, len(rows), math.ceil(_LINE / height))
        ],
        column_labels=[(x[j] + width / 2, bottom + _LINE, columns[j]) for j in labelled],
        squares=[
            _square(result, (i, j), (x[j], y[i]), tile, scale, numbered)
            for i, row in zip(reversed(range(len(rows))), tiles.rows, strict=True)
            for j, tile in enumerate(row)
        ],
        ridge=list(_ridge(result, [left + width / 2 for left in x[zeros:]], y, height)) if ranked else [],
    )


def _square(
    result: Result,
    cell: Place,
    corner: tuple[float, float],
    tile: Tile,
    scale: Scale | None,
    numbered: bool,
) -> Square:
    rgb = tile.colour(scale)
    if tile.value is None:
        value = UNICODE.sign(tile.mark)
    else:
        value = scale.numbers.text(tile.value) if scale else ""
        value += UNICODE.partial * (tile.mark is Mark.PARTIAL)
    return Square(
        *cell,
        *corner,
        colour="" if rgb is None else hexadecimal(rgb),
        light_ink=rgb is not None and text_on(rgb) != (0, 0, 0),
        text=value if numbered or tile.value is None else "",
        value=value,
        mark=tile.mark,
        best_of_row=tile.best_of_row,
        reading=reading(result, *cell, tile),
    )


def _ridge(result: Result, x: Sequence[float], y: Sequence[float], height: float) -> Iterator[str]:
    """Yield polylines through (λ*, α), broken at rows that do not carry the slope; a single row is a bar.

    The places are those of the columns' centres and of the rows' upper sides.
    """
    log_decay = np.log2(result.surface.weight_decay[-len(x) :])
    for run in ridge_runs(result.separability.ridge):
        places = [(float(np.interp(minimum, log_decay, x)), y[i] + height / 2) for i, minimum in run]
        if len(places) == 1:
            ((at, middle),) = places
            places = [(at, middle + height / 2), (at, middle - height / 2)]
        yield " ".join(f"{a:.1f},{b:.1f}" for a, b in places)


def hexadecimal(rgb: Rgb) -> str:
    """Write a colour for CSS and SVG."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def reading(result: Result, i: int, j: int, tile: Tile) -> str:
    """Write all that is known about a cell in three lines: place, value with marks, every seed."""
    surface = result.surface
    cell = surface.cell(i, j)
    why = None if result.refinement is None else result.refinement.left.get((i, j))
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
        (FEWER if surface.is_refined else "some seeds are missing") if tile.mark is Mark.PARTIAL else "",
        "" if why is None else f"{NEVER}: {LEFT[why]}",
    ]
    seeds = ", ".join(
        f"{seed}: {short_decimal(float(value), 4) if math.isfinite(value) else lane}"
        for seed, value, lane in zip(surface.seeds, surface.values[i, j], surface.lanes[i, j], strict=True)
    )
    return "\n".join(
        [
            place_text(result, cell),
            ", ".join(filter(None, [value, *notes])),
            f"seed {seeds}",
        ]
    )


@dataclass(frozen=True, slots=True)
class SvgLegend:
    """The meaning of colours and numbers for the studies of one metric."""

    metric: str
    seeds: str
    colours: list[str]  # from the best to the dark end
    ends: tuple[str, str]  # labels of the bright and the dark end
    numbers: str
    partial: str  # what it means that some cells lack seeds; empty if none does

    @classmethod
    def of(cls, results: Sequence[Result], scale: Scale | None) -> SvgLegend:
        """Describe the scale of results in one metric."""
        surfaces = [result.surface for result in results]
        metric = surfaces[0].metric
        return cls(
            metric,
            seeds_of(surfaces),
            [hexadecimal(colour(1 - k / (_RAMP - 1))) for k in range(_RAMP)] if scale else [],
            scale.ends if scale else ("", ""),
            scale.numbers.meaning(metric, scale, UNICODE) if scale else f"{metric}: no cell has a value",
            _partial(surfaces),
        )


def _partial(surfaces: Sequence[Surface]) -> str:
    """Say that some cells lack seeds; empty if none does."""
    if not any(surface.partial.any() for surface in surfaces):
        return ""
    refined = any(surface.is_refined for surface in surfaces)
    return FEWER if refined else f"some seeds are missing ({runs_of(surfaces)})"


def lay_out(
    results: Sequence[Result], titles: Sequence[str], *, ranked: bool = True, numbered: bool = True
) -> tuple[list[SvgLegend], list[SvgLattice]]:
    """Lay out lattices, those of one metric on one scale with one legend."""
    scales: dict[str, Scale | None] = {}
    legends = []
    for metric in dict.fromkeys(result.surface.metric for result in results):
        alike = [result for result in results if result.surface.metric == metric]
        scales[metric] = Scale.of([result.surface for result in alike], ranked=ranked)
        legends.append(SvgLegend.of(alike, scales[metric]))
    return legends, [
        svg_lattice(result, title, scales[result.surface.metric], ranked=ranked, numbered=numbered)
        for result, title in zip(results, titles, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class SvgCurves:
    """One study's learning curves."""

    panels: list[tuple[str, list[tuple[int, str]]]]  # each panel's curve, and its ticks
    epoch_ticks: list[tuple[int, str]]  # places and labels along the panels
    series: list[
        tuple[str, str, list[list[str]]]
    ]  # of each chosen cell: name, text, polylines by panel, lane
    data: str  # JSON for the script: x, and y by cell, panel and lane; only digits and punctuation


@dataclass(frozen=True, slots=True, eq=False)
class _Lanes:
    """One study's curves as stored."""

    by_cell: dict[Place, list[Lane]]  # by the lattice cell nearest to the lane
    names: list[str]  # of the curves to draw: the metric that ranks, and the training loss
    epochs: int  # of a lane that ran to its end

    @classmethod
    def of(cls, result: Result) -> _Lanes:
        lattice = result.spec.lattice
        names = dict.fromkeys((result.surface.metric, "train_loss"))
        found: dict[Place, list[Lane]] = {}
        epochs = 0
        known: set[str] = set()
        for trial in sorted(result.trials, key=lambda trial: trial.seed):  # not as they were stored
            arrays = {name: interpolated(trial.curves[name]) for name in names if name in trial.curves}
            if not arrays or trial.status is Status.FAILED:
                continue
            end = min(map(_first_not_finite, arrays.values()))
            cell = nearest(trial.cell, lattice)
            place = lattice.lr.index(cell.lr), lattice.weight_decay.index(cell.weight_decay)
            found.setdefault(place, []).append({name: values[:end] for name, values in arrays.items()})
            epochs, known = max(epochs, end), known | arrays.keys()
        return cls(found, [name for name in names if name in known], epochs)

    def whole(self, name: str) -> Iterator[Float]:
        """Yield the curves of this name that ran to their end."""
        for several in self.by_cell.values():
            yield from (lane[name] for lane in several if len(lane.get(name, ())) == self.epochs)


def svg_curves(results: Sequence[Result]) -> list[SvgCurves | None]:
    """Lay out the curves of each result, on common ranges; None for a study loaded without curves."""
    found = [_Lanes.of(result) for result in results]
    names = dict.fromkeys(name for lanes in found for name in lanes.names)
    ranges = {name: Range.of([curve for lanes in found for curve in lanes.whole(name)]) for name in names}
    count = sum(len(lanes.names) * sum(map(len, lanes.by_cell.values())) for lanes in found)
    points = _POINTS // max(count, 1)
    return [
        _curves(result, lanes, {name: scale for name in lanes.names if (scale := ranges[name])}, points)
        for result, lanes in zip(results, found, strict=True)
    ]


def _first_not_finite(values: Float) -> int:
    """Return the index at which a curve breaks off: its length if it does not."""
    finite = np.isfinite(values)
    return len(values) if finite.all() else int(np.argmin(finite))


def _curves(result: Result, lanes: _Lanes, ranges: Mapping[str, Range], points: int) -> SvgCurves | None:
    """Thin curves to `points` each; if that is too few, keep only those of the chosen cells."""
    if not lanes.epochs or not ranges:
        return None
    by_cell = lanes.by_cell
    chosen = {place: name for name, place in chosen_cells(result) if place in by_cell}
    if points < _FEWEST:
        by_cell = {place: by_cell[place] for place in chosen}
    count = min(lanes.epochs, max(points, _FEWEST))
    kept = np.unique(np.linspace(0, lanes.epochs - 1, count).round().astype(int))
    x = [round(SIZE * (int(epoch) + 1) / lanes.epochs) for epoch in kept]
    heights = {
        place: [
            [scale.heights(lane[name][kept[kept < len(lane[name])]]) for lane in several if name in lane]
            for name, scale in ranges.items()
        ]
        for place, several in sorted(by_cell.items())
    }
    series = []
    for at, name in chosen.items():
        text = f"{_WORDS[name]}: {place_text(result, result.surface.cell(*at))}"
        polylines = [
            [" ".join(f"{a},{b}" for a, b in zip(x, lane, strict=False)) for lane in panel]
            for panel in heights[at]
        ]
        series.append((name, text, polylines))
    epochs = [round(tick) for tick in even_ticks(0, lanes.epochs) if tick == round(tick)]
    cells = {f"{i}-{j}": panels for (i, j), panels in heights.items()}
    return SvgCurves(
        [(name, scale.ticks()) for name, scale in ranges.items()],
        [(round(SIZE * epoch / lanes.epochs), str(epoch)) for epoch in epochs],
        series,
        json.dumps({"x": x, "cells": cells}, separators=(",", ":")),
    )


def chosen_cells(result: Result) -> Iterator[tuple[str, Place]]:
    """Yield the cells shown without a click: centre of the λ > 0 lattice, worst that counts, best.

    If two are the same cell, the last name applies.
    """
    surface = result.surface
    first = int(surface.weight_decay[0] == 0)
    yield "centre", (len(surface.lr) // 2, first + (len(surface.weight_decay) - first) // 2)
    best = surface.best()
    if best is not None:
        worst = int(np.argmax(np.where(surface.inside, surface.minimized().mean, -np.inf)))
        yield "worst", divmod(worst, len(surface.weight_decay))
        yield "best", best
