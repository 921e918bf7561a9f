"""Learning curves as vector graphics: every lane's curve in whole thousandths of its panel.

The script only joins the points that are written here, so that a curve drawn on a click and one drawn in
the file cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.fields import lattice_value
from lrwd_sweep.report.view.range import SIZE, Range, even_ticks
from lrwd_sweep.science.surface import Float
from lrwd_sweep.science.trial import Status

_POINTS = 400_000  # of all curves of a report together, some 4 bytes each
_FEWEST = 12  # points of a curve that still has a shape

Lane = Mapping[str, Float]  # one training run's curves by name, cut where the first is not finite
Place = tuple[int, int]  # (row, column) of a surface


@dataclass(frozen=True, slots=True)
class Series:
    """The curves of a cell that every reader sees, without a click."""

    name: str  # "best", "centre", "worst"
    about: str
    curves: tuple[tuple[str, ...], ...]  # by panel and lane, as the points of a polyline


@dataclass(frozen=True, slots=True)
class Curves:
    """One study's learning curves."""

    epochs: int
    panels: tuple[tuple[str, list[tuple[int, str]]], ...]  # each panel's curve, and its ticks
    series: tuple[Series, ...]
    data: dict[str, object]  # for the script: x, and y by cell, panel and lane

    @property
    def epoch_ticks(self) -> list[tuple[int, str]]:
        """Places and labels along the panels."""
        every = [round(tick) for tick in even_ticks(0, self.epochs) if tick == round(tick)]
        return [(round(SIZE * tick / self.epochs), str(tick)) for tick in every]


@dataclass(frozen=True, slots=True, eq=False)
class _Lanes:
    """One study's curves as they were stored."""

    by_cell: dict[Place, list[Lane]]  # of the lattice: the cell that a lane is nearest to
    names: tuple[str, ...]  # of the curves to draw: the metric that chooses, and the training loss
    epochs: int  # of a lane that did not break off

    @classmethod
    def of(cls, result: Result) -> _Lanes:
        surface = result.surface
        names = dict.fromkeys((surface.metric, "train_loss"))
        found: dict[Place, list[Lane]] = {}
        epochs = 0
        known: set[str] = set()
        for trial in result.trials:
            arrays = {name: np.array(trial.curves[name]) for name in names if name in trial.curves}
            if not arrays or trial.status is Status.FAILED:
                continue
            end = min(map(_first_not_finite, arrays.values()))
            cell = trial.cell
            place = (_nearest(cell.lr, surface.lr), _nearest(cell.weight_decay, surface.weight_decay))
            found.setdefault(place, []).append({name: values[:end] for name, values in arrays.items()})
            epochs, known = max(epochs, end), known | arrays.keys()
        return cls(found, tuple(name for name in names if name in known), epochs)

    @property
    def count(self) -> int:
        """How many curves there are to draw."""
        return len(self.names) * sum(map(len, self.by_cell.values()))

    def whole(self, name: str) -> Iterator[Float]:
        """The curves of this name that did not break off."""
        for several in self.by_cell.values():
            yield from (lane[name] for lane in several if len(lane.get(name, ())) == self.epochs)


def curves(results: Sequence[Result]) -> list[Curves | None]:
    """The curves of each result, on the same ranges; None for a study that was loaded without."""
    found = [_Lanes.of(result) for result in results]
    names = dict.fromkeys(name for lanes in found for name in lanes.names)
    ranges = {name: Range.of([curve for lanes in found for curve in lanes.whole(name)]) for name in names}
    points = _POINTS // max(sum(lanes.count for lanes in found), 1)
    return [
        _curves(result, lanes, {name: scale for name in lanes.names if (scale := ranges[name])}, points)
        for result, lanes in zip(results, found, strict=True)
    ]


def _first_not_finite(values: Float) -> int:
    """Where a curve breaks off: its length, if it does not."""
    finite = np.isfinite(values)
    return len(values) if finite.all() else int(np.argmin(finite))


def _nearest(value: float, axis: Float) -> int:
    """The place of `value` on an axis, by log distance; 0 is near to 0 alone."""
    if value <= 0:
        return 0
    distance = np.abs(np.log(np.where(axis > 0, axis, np.inf) / value))
    return int(np.argmin(distance))


def _curves(result: Result, lanes: _Lanes, ranges: Mapping[str, Range], points: int) -> Curves | None:
    """Curves thinned to `points` each; where that is too few, those of the chosen cells alone."""
    if not lanes.epochs or not ranges:
        return None
    by_cell = lanes.by_cell
    chosen = {place: name for name, place in _chosen(result) if place in by_cell}
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
    return Curves(
        lanes.epochs,
        tuple((name, scale.ticks()) for name, scale in ranges.items()),
        tuple(_series(result, name, place, x, heights[place]) for place, name in chosen.items()),
        {"x": x, "cells": {f"{i}-{j}": panels for (i, j), panels in heights.items()}},
    )


def _chosen(result: Result) -> Iterator[tuple[str, Place]]:
    """The centre of the λ > 0 lattice, the worst cell that counts, the best; of two names the last stays."""
    surface = result.surface
    first = int(surface.weight_decay[0] == 0)
    yield "centre", (len(surface.lr) // 2, first + (len(surface.weight_decay) - first) // 2)
    best = surface.best()
    if best is not None:
        worst = int(np.argmax(np.where(surface.inside, surface.minimized().mean, -np.inf)))
        yield "worst", divmod(worst, len(surface.weight_decay))
        yield "best", best


def _series(
    result: Result, name: str, place: Place, x: Sequence[int], panels: Sequence[Sequence[Sequence[int]]]
) -> Series:
    cell = result.surface.cell(*place)
    words = {"best": "best cell", "worst": "worst cell that counts", "centre": "centre of the lattice"}
    symbol = result.spec.optimizer.symbol
    return Series(
        name,
        f"{words[name]}: α {lattice_value(cell.lr)}, {symbol} {lattice_value(cell.weight_decay)}",
        tuple(
            tuple(" ".join(f"{a},{b}" for a, b in zip(x, lane, strict=False)) for lane in panel)
            for panel in panels
        ),
    )
