"""Pictures by name, besides those of every report: quantities as heatmaps and curves, and the scatter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.chart import Chart
from lrwd_sweep.report.view.curves import curves
from lrwd_sweep.report.view.fields import title
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.notation import to_ascii
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.report.view.quantity import CURVES, ERROR, LOSS, SCATTER, Quantity, X, Y, resolved
from lrwd_sweep.report.view.range import usual
from lrwd_sweep.report.view.scatter import scatter
from lrwd_sweep.science.separability import analyse
from lrwd_sweep.science.surface import Surface
from lrwd_sweep.spec.catalog import DIAGNOSTICS, METRICS

_WIDE = 100  # from this ratio of largest to smallest on, a diagnostic is drawn by its logarithm

HEATMAP = "heatmap"
_PICTURES = {
    CURVES: "error on the validation split and training loss, by epoch",
    SCATTER: "error on the test split against training loss, at the end",
}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What `--show` draws for one name."""

    name: str
    about: str
    heatmaps: tuple[tuple[Result, Heatmap], ...]
    charts: tuple[Chart, ...]
    notes: tuple[str, ...]  # what there is not, and why

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = options.ascii_only
        heading = f"{self.name}: {self.about}" if self.about else self.name
        yield Text()
        yield Text(_written(heading, ascii_only), style="bold")
        if self.heatmaps:
            yield Gallery([heatmap for _, heatmap in self.heatmaps])
        for chart in self.charts:
            yield Text()
            yield chart
        for note in self.notes:
            yield Text(_written(note, ascii_only))


def pictures(results: Sequence[Result], names: Sequence[str]) -> list[Picture]:
    """A picture for every name. Raises UnknownName."""
    return [_picture(results, name) for name in resolved(names, results)]


def show_renderables(results: Sequence[Result], names: Sequence[str]) -> list[RenderableType]:
    """The same for a console; "heatmap", which a preset may name, is what every report shows anyway."""
    return list(pictures(results, [name for name in names if name != HEATMAP]))


def _picture(results: Sequence[Result], name: str) -> Picture:
    if name == SCATTER:
        return _of_charts(results, name, [scatter(results)], (X, Y))
    if name == CURVES:
        charts = [curves(results, Quantity(part)) for part in (ERROR, LOSS)]
        return _of_charts(results, name, charts, (ERROR, LOSS))
    quantity = Quantity(name)
    surfaces = {result: surface for result in results if (surface := quantity.surface(result)) is not None}
    return Picture(
        name,
        ({} | METRICS | DIAGNOSTICS).get(name, ""),
        tuple(_heatmaps(surfaces, quantity, results)),
        tuple(filter(None, [curves(results, quantity)])),
        tuple(_notes(results, [quantity])),
    )


def _of_charts(
    results: Sequence[Result], name: str, charts: Sequence[Chart | None], parts: Sequence[str]
) -> Picture:
    notes = _notes(results, [Quantity(part) for part in parts])
    return Picture(name, _PICTURES[name], (), tuple(filter(None, charts)), tuple(notes))


def _heatmaps(
    surfaces: dict[Result, Surface], quantity: Quantity, among: Sequence[Result]
) -> Iterator[tuple[Result, Heatmap]]:
    """One per study that has the quantity; a diagnostic has no best cell and no ridge."""
    logarithmic = not quantity.ranked and _spans_decades(list(surfaces.values()))
    for result, surface in surfaces.items():
        drawn = _by_logarithm(surface) if logarithmic else surface
        separability = analyse(surface) if quantity.ranked else None
        name, formula = title(result, among), result.spec.formula
        yield result, Heatmap(drawn, name, formula, separability, ranked=quantity.ranked)


def _spans_decades(surfaces: Sequence[Surface]) -> bool:
    """Whether everything is above 0 and the largest value a hundred times the smallest."""
    values = np.concatenate([np.empty(0), *(surface.values.ravel() for surface in surfaces)])
    values = values[np.isfinite(values)]
    if not values.size:
        return False
    low, high = usual(values)
    return bool(values.min() > 0 and high > _WIDE * low)


def _by_logarithm(surface: Surface) -> Surface:
    return replace(surface, values=np.log10(surface.values), metric=f"log10 of {surface.metric}")


def _notes(results: Sequence[Result], parts: Sequence[Quantity]) -> Iterator[str]:
    """One line for all the studies that lack something for the same reason."""
    missing: dict[str, list[str]] = {}
    for result in results:
        for part in parts:
            if part.surface(result) is None:
                missing.setdefault(part.absence(result), []).append(title(result, results))
    for reason, titles in missing.items():
        yield f"{', '.join(titles)}: {reason}"


def _written(text: str, ascii_only: bool) -> str:
    harmless = plain(text)
    return to_ascii(harmless) if ascii_only else harmless
