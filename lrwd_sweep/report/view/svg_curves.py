"""Learning curves as SVG: every lane's curve in whole thousandths of its panel.

The script only joins the points that are written here, so that a curve drawn on a click and one drawn in
the file cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrwd_sweep.report.result import Result, nearest
from lrwd_sweep.report.view.chart import SIZE, Range, even_ticks
from lrwd_sweep.report.view.fields import lattice_value
from lrwd_sweep.science.surface import Float
from lrwd_sweep.science.trial import Status

_POINTS = 400_000  # of all curves of a report together, some 4 bytes each
_FEWEST = 12  # points of a curve that still has a shape
_WORDS = {"best": "best cell", "worst": "worst cell that counts", "centre": "centre of the lattice"}

Lane = Mapping[str, Float]  # one training run's curves by name, cut at the first that is not finite
Place = tuple[int, int]  # (row, column) of a surface


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
        for trial in result.trials:
            arrays = {name: np.array(trial.curves[name]) for name in names if name in trial.curves}
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
    for place, name in chosen.items():
        cell = result.surface.cell(*place)
        at = f"α {lattice_value(cell.lr)}, {result.spec.optimizer.symbol} {lattice_value(cell.weight_decay)}"
        polylines = [
            [" ".join(f"{a},{b}" for a, b in zip(x, lane, strict=False)) for lane in panel]
            for panel in heights[place]
        ]
        series.append((name, f"{_WORDS[name]}: {at}", polylines))
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
