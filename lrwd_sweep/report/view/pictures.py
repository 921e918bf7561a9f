"""The pictures of `--show`: heatmaps, curves and a scatter of two metrics; the learning curves of HTML."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.line_chart import SIZE, Chart, Range, Series, even_ticks, interpolated, usual
from lrwd_sweep.report.view.notation import UNICODE, axis_labels, styled
from lrwd_sweep.report.view.tables import place_text, title
from lrwd_sweep.science.separability import analyse
from lrwd_sweep.science.surface import Float, Surface, nearest, on_lattice
from lrwd_sweep.science.trial import Direction, Status, Trial, says_higher
from lrwd_sweep.spec.catalog import DIAGNOSTICS, METRICS, chance_level
from lrwd_sweep.spec.user_command import STEPS

HEATMAP, SCATTER, CURVES = "heatmap", "scatter", "curves"  # pictures that are not one quantity
_X, _Y = "train_loss", "test_error"  # of the scatter
_DRAWN_FROM = {SCATTER: (_X, _Y), CURVES: ("val_error", "train_loss")}
_ABOUT = {
    CURVES: "error on the validation split and training loss, by epoch",
    SCATTER: "error on the test split against training loss, at the end",
}
_AT_THE_END = "norm"  # shown at the last epoch; other diagnostics fall with η to nothing: shown as a mean
_WIDE = 100  # ratio of largest to smallest from which a diagnostic is drawn by its logarithm
_OTHERS = 4  # curves beside that of the best cell
_POINTS = 400_000  # of all curves of a page together, some 4 bytes each
_FEWEST = 12  # points of a curve that still has a shape
_WORDS = {"best": "best cell", "worst": "worst cell that counts", "centre": "centre of the lattice"}

Place = tuple[int, int]  # (row, column) of a surface


@dataclass(frozen=True, slots=True)
class Quantity:
    """A metric or a diagnostic, measured in every lane."""

    name: str

    @property
    def ranked(self) -> bool:
        """True if one end is better."""
        return self.name not in DIAGNOSTICS

    @property
    def label(self) -> str:
        """The name, and how one value represents a whole run."""
        return self.name if self.ranked or self.name == _AT_THE_END else f"{self.name}, mean over the epochs"

    def surface(self, result: Result) -> Surface | None:
        """Lay out one value per lane: a metric's last, a diagnostic's last or mean; None without any."""
        trials = [replace(trial, metrics=self._metrics(trial)) for trial in result.trials]
        if not any(trial.metrics for trial in trials):
            return None
        spec = result.spec
        if spec.is_search:
            trials = on_lattice(trials, spec.lattice, self.label)
        direction, cap = Direction.MINIMIZE, None
        if self.name == spec.metric:
            direction, cap = spec.direction, spec.cap
        elif self.ranked and says_higher(self.name):
            direction = Direction.MAXIMIZE
        elif self.name.endswith("_error") and spec.task is not None and self.ranked:
            cap = chance_level(self.name, spec.task.data_set.classes)
        return Surface.from_trials(
            trials,
            spec.lattice,
            spec.seeds,
            metric=self.label,
            rule=spec.optimizer.rule,
            cap=cap,
            normalized=spec.optimizer.normalized,
            direction=direction,
            tau_of_one=spec.tau_of_one,
        )

    def _metrics(self, trial: Trial) -> Mapping[str, float]:
        if trial.status is not Status.COMPLETE:
            return {}
        if self.ranked:
            found = trial.metrics.get(self.name, np.nan)
        else:
            curve = np.array(trial.curves.get(self.name, (np.nan,)))
            found = float(curve[-1] if self.name == _AT_THE_END else curve.mean())
        return {self.label: found} if np.isfinite(found) else {}

    def curves(self, result: Result) -> dict[Place, Float]:
        """Return the seed mean (E,) by lattice cell (i, j), of cells with every seed complete."""
        found = {}
        for place, trials in _by_place(result).items():
            whole = [t for t in trials if t.status is Status.COMPLETE and self.name in t.curves]
            if {trial.seed for trial in whole}.issuperset(result.spec.seeds):
                found[place] = np.array([interpolated(t.curves[self.name]) for t in whole]).mean(axis=0)
        return found

    def absence(self, result: Result) -> str:
        """Explain why a study lacks it."""
        family = result.spec.optimizer.family
        if self.name == "projection" and not (family and family.projected):
            return "no projection: only adamp and sgdp have one"
        if self.ranked:
            return f"no {self.name} in the store"
        if any(trial.curves for trial in result.trials):
            return f"no {self.name}: its network has no scale-invariant tensors, or it was trained without"
        return f"no {self.name}: the study has no learning curves"


def _by_place(result: Result) -> dict[Place, list[Trial]]:
    """Group the trials by their nearest lattice cell, in the order of seeds, not as they were stored."""
    lattice, found = result.spec.lattice, dict[Place, list[Trial]]()
    for trial in sorted(result.trials, key=lambda trial: trial.seed):
        cell = nearest(trial.cell, lattice)
        place = lattice.lr.index(cell.lr), lattice.weight_decay.index(cell.weight_decay)
        found.setdefault(place, []).append(trial)
    return found


def quantities(names: Iterable[str]) -> list[Quantity]:
    """Return the quantities that the named pictures show, each once."""
    every = [part for name in names for part in _DRAWN_FROM.get(name, (name,))]
    return [Quantity(name) for name in dict.fromkeys(every)]


def resolved(names: Iterable[str], results: Sequence[Result]) -> list[str]:
    """Return the known names of pictures and quantities, each once; `effective-lr` is `effective_lr`.

    Raises UnknownName for a name that is neither a picture nor measured in any of the results.
    """
    trials = [trial for result in results for trial in result.trials]
    known = {SCATTER, CURVES, *DIAGNOSTICS, *(name for trial in trials for name in trial.metrics)}
    known |= {name for trial in trials for name in trial.curves}
    known |= {part for parts in _DRAWN_FROM.values() for part in parts}  # if all diverged, none is measured
    found = [name if name in known else name.replace("-", "_") for name in names]
    for name in found:
        if name not in known:
            raise UnknownName("name for --show", name, known)
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The drawings of one name."""

    name: str
    about: str
    heatmaps: tuple[tuple[Result, Heatmap], ...]
    charts: tuple[Chart, ...]
    notes: tuple[str, ...]  # absent pictures, with reasons

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text()
        yield styled(f"{self.name}: {self.about}" if self.about else self.name, options.ascii_only, "bold")
        if self.heatmaps:
            yield Gallery([heatmap for _, heatmap in self.heatmaps])
        for chart in self.charts:
            yield Text()
            yield chart
        for note in self.notes:
            yield styled(note, options.ascii_only)


def pictures(results: Sequence[Result], names: Sequence[str]) -> list[Picture]:
    """Draw a picture for every name, as `resolved` returns them."""
    return [_picture(results, name) for name in names]


def show_renderables(results: Sequence[Result], names: Sequence[str]) -> list[RenderableType]:
    """Draw names that a preset shows, except "heatmap", which every report shows. Raises UnknownName."""
    return list(pictures(results, resolved([name for name in names if name != HEATMAP], results)))


def _picture(results: Sequence[Result], name: str) -> Picture:
    parts, ours = quantities([name]), any(result.spec.task is not None for result in results)
    if name == CURVES and not ours:  # metrics of a user's script
        known = {curve for result in results for trial in result.trials for curve in trial.curves}
        metrics = [*(result.surface.metric for result in results), *({"train_loss", "loss"} & known)]
        parts = [Quantity(metric) for metric in dict.fromkeys(metrics)]
    notes = tuple(_notes(results, parts))
    if name == SCATTER:
        return Picture(name, _ABOUT[name], (), tuple(filter(None, [scatter(results)])), notes)
    charts = tuple(filter(None, [curves(results, part) for part in parts]))
    if name == CURVES:
        return Picture(name, _ABOUT[name] if ours else "", (), charts, notes)
    about = ({} | METRICS | DIAGNOSTICS).get(name, "") if ours else ""
    return Picture(name, about, tuple(_heatmaps(results, parts[0])), charts, notes)


def _heatmaps(results: Sequence[Result], quantity: Quantity) -> Iterator[tuple[Result, Heatmap]]:
    """Draw one per study that has the quantity; a diagnostic has no best cell and no ridge."""
    found = {result: surface for result in results if (surface := quantity.surface(result)) is not None}
    logarithmic = not quantity.ranked and _spans_decades(list(found.values()))
    for result, surface in found.items():
        drawn = surface
        if logarithmic:
            drawn = replace(surface, values=np.log10(surface.values), metric=f"log10 of {surface.metric}")
        separability = analyse(surface) if quantity.ranked else None
        name, formula = title(result, results), result.spec.formula
        yield result, Heatmap(drawn, name, formula, separability, ranked=quantity.ranked)


def _spans_decades(surfaces: Sequence[Surface]) -> bool:
    """Test whether all values are above 0 and the largest is a hundred times the smallest."""
    values = np.concatenate([np.empty(0), *(surface.values.ravel() for surface in surfaces)])
    values = values[np.isfinite(values)]
    if not values.size:
        return False
    low, high = usual(values)
    return bool(values.min() > 0 and high > _WIDE * low)


def _notes(results: Sequence[Result], parts: Sequence[Quantity]) -> Iterator[str]:
    """Yield one line for all studies that lack a quantity for the same reason."""
    missing: dict[str, list[str]] = {}
    for result in results:
        for part in parts:
            if part.surface(result) is None:
                missing.setdefault(part.absence(result), []).append(title(result, results))
    for reason, titles in missing.items():
        yield f"{', '.join(titles)}: {reason}"


def scatter(results: Sequence[Result]) -> Chart | None:
    """Plot test error against training loss, a point per cell with every seed complete, a mark per study.

    Values are seed means (Loshchilov and Hutter, Figures 3 and 4, bottom right). Returns None if no study has
    both metrics.
    """
    series = []
    for result in results:
        x, y = Quantity(_X).surface(result), Quantity(_Y).surface(result)
        if x is not None and y is not None:
            series.append(Series(title(result, results), x.mean.ravel(), y.mean.ravel()))
    return Chart.of("every point a cell", _Y, _X, series, joined=False)


def curves(results: Sequence[Result], quantity: Quantity) -> Chart | None:
    """Plot seed means by epoch of every study's best cell; of a single study also other α and other λ.

    The ranking metric decides the best cell. Returns None without a curve.
    """
    series: list[Series] = []
    units = {unit for result in results for unit, _ in [steps(result)]}

    def add(about: str, curve: Float) -> None:
        at = steps(result)[1] if len(units) == 1 else ()
        x = np.array(at[: len(curve)]) if len(at) >= len(curve) else np.arange(1.0, len(curve) + 1)
        series.append(Series(about, x, curve))

    for result in results:
        known = quantity.curves(result)
        best = result.surface.best()
        if best is None or best not in known:
            continue
        alpha, decay = _cell(result, best)
        if len(results) > 1:
            add(f"{title(result, results)}, best: {alpha}, {decay}", known[best])
            continue
        add(f"best cell: {alpha}, {decay}", known[best])
        for place in _cross(best, known):
            alpha, decay = _cell(result, place)
            same_row = place[0] == best[0]
            add(f"same α, {decay}" if same_row else f"{alpha}, same {decay.split()[0]}", known[place])
    counts = dict.fromkeys(len(result.surface.seeds) for result in results)
    seeds = " / ".join("one seed" if n == 1 else f"mean of {n} seeds" for n in counts)
    unit = units.pop() if len(units) == 1 else "point"
    return Chart.of(seeds, quantity.name, unit, series, joined=True)


def steps(result: Result) -> tuple[str, tuple[float, ...]]:
    """Return the unit of a study's curves and their steps; empty if a point is an epoch, from 1 on."""
    if result.spec.task is not None:
        return "epoch", ()
    known = [(unit, trial.curves[unit]) for trial in result.trials for unit in STEPS if unit in trial.curves]
    return max(known, key=lambda found: len(found[1]), default=("point", ()))


def _cell(result: Result, place: Place) -> tuple[str, str]:
    cell = result.surface.cell(*place)
    lr, decay = (axis_labels([value], UNICODE)[0] for value in (cell.lr, cell.weight_decay))
    return f"α {lr}", f"{result.surface.symbol} {decay}"


def _cross(best: Place, known: Mapping[Place, Float]) -> list[Place]:
    """Return the ends of the best cell's row and of its column; with one axis, more along that."""
    lines = [sorted(at for at in known if at[axis] == best[axis] and at != best) for axis in (0, 1)]
    share = _OTHERS // 2 if all(lines) else _OTHERS
    return [
        line[k]
        for line in lines
        for k in np.linspace(0, len(line) - 1, min(share, len(line))).round().astype(int)
    ]


Lane = dict[str, Float]  # one training run's curves by name, cut at the first value that is not finite


def learning_curves(results: Sequence[Result]) -> list[dict[str, Any] | None]:
    """Lay out the curves of every lane for HTML, on common ranges; None for a study loaded without curves.

    The script only joins the points that are written here, so a curve drawn on a click and one drawn in the
    file cannot differ.
    """
    found, count = [_lanes(result) for result in results], 0
    whole: dict[str, list[Float]] = {}
    for lanes in found:
        every, epochs, names = _summary(lanes)
        count += len(names) * len(every)
        for name in names:
            curves = (lane[name] for lane in every if name in lane)
            whole.setdefault(name, []).extend(curve for curve in curves if len(curve) == epochs)
    ranges = {name: Range.of(curves) for name, curves in whole.items()}
    return [
        _panels(result, lanes, ranges, _POINTS // max(count, 1))
        for result, lanes in zip(results, found, strict=True)
    ]


def _lanes(result: Result) -> dict[Place, list[Lane]]:
    """Return the metric that ranks and the training loss of every lane that did not fail, by lattice cell."""
    found: dict[Place, list[Lane]] = {}
    for place, trials in _by_place(result).items():
        for trial in trials:
            names = [name for name in (result.surface.metric, "train_loss") if name in trial.curves]
            if names and trial.status is not Status.FAILED:
                curves = {name: interpolated(trial.curves[name]) for name in names}
                end = min(int(np.argmin(np.append(np.isfinite(each), False))) for each in curves.values())
                found.setdefault(place, []).append({name: each[:end] for name, each in curves.items()})
    return found


def _summary(lanes: Mapping[Place, Sequence[Lane]]) -> tuple[list[Lane], int, set[str]]:
    """Return all lanes, the epochs of one that ran to its end, and the names of their curves."""
    every = [lane for several in lanes.values() for lane in several]
    epochs = max((len(curve) for lane in every for curve in lane.values()), default=0)
    return every, epochs, {name for lane in every for name in lane}


def _panels(
    result: Result, lanes: Mapping[Place, Sequence[Lane]], ranges: Mapping[str, Range | None], points: int
) -> dict[str, Any] | None:
    """Thin curves to `points` each; if that is too few, keep only those of the chosen cells."""
    _, epochs, names = _summary(lanes)
    drawn = [name for name in dict.fromkeys((result.surface.metric, "train_loss")) if name in names]
    scales = {name: scale for name in drawn if (scale := ranges[name])}
    if not epochs or not scales:
        return None
    chosen = {place: name for name, place in chosen_cells(result) if place in lanes}
    if points < _FEWEST:
        lanes = {place: lanes[place] for place in chosen}
    count = min(epochs, max(points, _FEWEST))
    kept = np.unique(np.linspace(0, epochs - 1, count).round().astype(int))
    x = [round(SIZE * (int(epoch) + 1) / epochs) for epoch in kept]
    heights = {
        place: [
            [scale.heights(lane[name][kept[kept < len(lane[name])]]) for lane in several if name in lane]
            for name, scale in scales.items()
        ]
        for place, several in sorted(lanes.items())
    }
    series = []
    for at, name in chosen.items():
        polylines = [
            [" ".join(f"{a},{b}" for a, b in zip(x, lane, strict=False)) for lane in panel]
            for panel in heights[at]
        ]
        text = f"{_WORDS[name]}: {place_text(result, result.surface.cell(*at))}"
        series.append((name, text, polylines))
    ticks = [round(tick) for tick in even_ticks(0, epochs) if tick == round(tick)]
    cells = {f"{i}-{j}": panels for (i, j), panels in heights.items()}
    return {
        "panels": [(name, scale.ticks()) for name, scale in scales.items()],
        "epoch_ticks": [(round(SIZE * epoch / epochs), str(epoch)) for epoch in ticks],
        "series": series,  # of each chosen cell: name, text, polylines by panel and lane
        "data": json.dumps({"x": x, "cells": cells}, separators=(",", ":")),  # y by cell, panel and lane
    }


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
