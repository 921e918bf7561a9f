"""Learning curves as charts: of a study's best cell and of what shares its α or λ, or of several studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.chart import Chart, Series
from lrwd_sweep.report.view.fields import title
from lrwd_sweep.report.view.notation import UNICODE, axis_labels
from lrwd_sweep.report.view.quantity import Quantity
from lrwd_sweep.science.surface import Float

_OTHERS = 4  # curves beside that of the best cell

Place = tuple[int, int]  # (row, column) of a surface


def curves(results: Sequence[Result], quantity: Quantity) -> Chart | None:
    """Seed means by epoch of every study's best cell; for a lone study also where its α or its λ is another.

    The best cell is that of the metric that chooses. None without a curve.
    """
    series = []
    for result in results:
        known = quantity.curves(result)
        best = result.surface.best()
        if best not in known or best is None:
            continue
        if len(results) > 1:
            series.append(_series(f"{title(result, results)}, best: {_cell(result, best)}", known[best]))
            continue
        series.append(_series(f"best cell: {_cell(result, best)}", known[best]))
        series += [_series(_beside(result, best, place), known[place]) for place in _cross(best, known)]
    seeds = " / ".join(dict.fromkeys(_seeds(result) for result in results))
    return Chart.of(seeds, quantity.name, "epoch", series, joined=True)


def _series(about: str, curve: Float) -> Series:
    return Series(about, np.arange(1.0, len(curve) + 1), curve)


def _seeds(result: Result) -> str:
    count = len(result.surface.seeds)
    return "one seed" if count == 1 else f"mean of {count} seeds"


def _cross(best: Place, known: Mapping[Place, Float]) -> list[Place]:
    """The ends of the best cell's row and of its column; where there is one axis, more along that."""
    row = sorted(place for place in known if place[0] == best[0] and place != best)
    column = sorted(place for place in known if place[1] == best[1] and place != best)
    share = _OTHERS // 2 if row and column else _OTHERS
    return [*_thinned(row, share), *_thinned(column, share)]


def _thinned(places: Sequence[Place], count: int) -> list[Place]:
    """About `count` of them, both ends among them."""
    kept = np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int)
    return [places[k] for k in kept]


def _beside(result: Result, best: Place, place: Place) -> str:
    """Where a cell of the best cell's row or column lies."""
    alpha, decay = _cell(result, place).split(", ")
    return f"same α, {decay}" if place[0] == best[0] else f"{alpha}, same {decay.split()[0]}"


def _cell(result: Result, place: Place) -> str:
    surface = result.surface
    lr, decay = (
        axis_labels([float(v)], UNICODE)[0] for v in (surface.lr[place[0]], surface.weight_decay[place[1]])
    )
    return f"α {lr}, {surface.symbol} {decay}"
