"""The pages of presets: the list by paper; one preset's studies, how long they take, and its schedules."""

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.view.notation import ASCII, UNICODE, counted, styled, written
from lrwd_sweep.science.lattice import Lattice, format_axis
from lrwd_sweep.science.optimizer import WD_RATIO
from lrwd_sweep.science.schedule import Schedule, Timetable
from lrwd_sweep.spec.catalog import FLOAT32
from lrwd_sweep.spec.over import Over
from lrwd_sweep.spec.preset import Preset
from lrwd_sweep.spec.study import StudySpec, labels
from lrwd_sweep.spec.task import Task

_UNITS = (  # of time: its seconds, and the duration from which a larger unit is used
    ("second", 1, 100),
    ("minute", 60, 100 * 60),
    ("hour", 3600, 48 * 3600),
    ("day", 86_400, 700 * 86_400),
)
_YEAR = 365.25 * 86_400
_PART, _AXIS = 12, 12  # least characters for the restated part of a paper, and for an axis
_HEIGHT, _WIDEST = 6, 80  # of a schedule's chart: lines, characters
_LABEL = 4  # characters left of the chart's axis
_NAMED = 6  # snapshots in a caption before the last
_BLOCKS, _HASHES = " ▁▂▃▄▅▆▇█", " .:|#"  # from nothing to a whole character
_MARK, _ASCII_MARK = "▲", "^"  # of a snapshot


@dataclass(frozen=True, slots=True, eq=False)
class PresetList:
    """Presets in one table per paper: name, restated part of the paper, description."""

    presets: Sequence[Preset]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        papers: dict[str, list[tuple[str, ...]]] = {}
        for preset in self.presets:
            part, _, paper = preset.restates.partition(" of ")
            papers.setdefault(paper, []).append((preset.name, part, preset.about))
        width = max((len(preset.name) for preset in self.presets), default=0)
        for paper in sorted(papers):
            if paper:
                yield Text()
                yield styled(f"of {paper}", options.ascii_only, "bold")
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(width=width)
            table.add_column(min_width=_PART, overflow="fold")
            table.add_column(overflow="fold")
            for row in papers[paper]:
                table.add_row(*(styled(cell, options.ascii_only) for cell in row))
            yield table


@dataclass(frozen=True, slots=True, eq=False)
class PresetPage:
    """One preset with the studies of its variants, and how long they take if that was measured."""

    preset: Preset
    asked: str  # its name or file, as given on the command line
    specs: Sequence[StudySpec]
    time: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = options.ascii_only
        about = f": {self.preset.about}" if self.preset.about else ""
        yield styled(f"{self.preset.name}{about}", ascii_only, "bold")
        yield _grid(self._facts(), ascii_only)
        if self.specs:
            rows = [
                (name, spec.lattice, len(spec.lattice) * len(spec.seeds), _task(spec))
                for name, spec in zip(labels(self.specs), self.specs, strict=True)
            ]
            yield _studies("compares", rows, ascii_only)
            yield _grid(self._sums(), ascii_only)
            yield Text()
            yield _formulas(self.specs, ascii_only)
        yield from self._further_axes(ascii_only)
        for timetable in dict.fromkeys(_task(spec).timetable for spec in self.specs):
            yield Text()
            yield styled(caption(timetable, ascii_only=ascii_only), ascii_only)
            yield SchedulePlot(timetable)

    def _facts(self) -> Iterator[tuple[str, str]]:
        preset, t = self.preset, self.preset.task
        sizes = t.data_set
        if preset.restates:
            yield "restates", preset.restates
        if preset.claim:
            yield "claim", preset.claim
        yield (
            "task",
            f"{t.data} ({sizes.train:,} train, {sizes.validation:,} validation, {sizes.test:,} test), "
            f"{t.net}, {counted(t.epochs, 'epoch')} of {t.steps_per_epoch:,} batches of {t.batch_size}, "
            f"{t.schedule} schedule"
            + (f", augmented by {t.augment}" if t.augment != "none" else "")
            + (f", computed in {t.precision}" if t.precision != FLOAT32 else ""),
        )
        yield "seeds", f"{preset.seeds} per cell; metric {preset.metric}; shown as {', '.join(preset.show)}"

    def _sums(self) -> Iterator[tuple[str, str]]:
        lanes = [len(spec.lattice) * len(spec.seeds) for spec in self.specs]
        steps = sum(n * _task(spec).steps for n, spec in zip(lanes, self.specs, strict=True))
        yield "in all", f"{sum(lanes):,} lanes, {steps:,} lane-steps"
        if self.time:
            yield "time", self.time
        command = "compare" if Over.of_preset(self.preset) is None else "transfer"
        yield "run", f"lrwd-sweep {command} --preset {shlex.quote(self.asked)}"

    def _further_axes(self, ascii_only: bool) -> Iterator[Table]:
        """List axes of optimizers that are not a variant, for `grid --optimizer`; none for a figure."""
        if self.preset.restates:
            return
        t, known = self.preset.task, {str(spec.optimizer) for spec in self.specs}
        rows = [
            (name, lattice, len(lattice) * self.preset.seeds, t)
            for name, lattice in self.preset.axes.items()
            if name not in known
        ]
        if rows:
            yield _studies("also has axes for", rows, ascii_only)


def duration(seconds: float) -> str:
    """Write a duration in its natural unit.

    >>> duration(0.2), duration(61), duration(7300), duration(1e9)
    ('1 second', '61 seconds', '2 hours', '32 years')
    """
    for name, length, end in _UNITS:
        if seconds < end:
            return counted(max(round(seconds / length), 1), name)
    return f"{round(seconds / _YEAR):,} years"


def _task(spec: StudySpec) -> Task:
    assert spec.task is not None, "a preset's variants are trained here"
    return spec.task


def _studies(heading: str, rows: Iterable[tuple[str, Lattice, int, Task]], ascii_only: bool) -> Table:
    """List studies, one a line: the axes as options, and how much each trains."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(heading, overflow="fold")
    for name in ("--lr", "--wd"):
        table.add_column(name, overflow="fold", min_width=_AXIS)
    for name in ("lanes", "lane-steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, lattice, lanes, task in rows:
        axes = map(format_axis, (lattice.lr, lattice.weight_decay))
        counts = (f"{lanes:,}", f"{lanes * task.steps:,}")
        table.add_row(*(styled(entry, ascii_only) for entry in (name, *axes, *counts)))
    return table


def _formulas(specs: Sequence[StudySpec], ascii_only: bool) -> Table:
    """List the update rule of each optimizer, and the value of κ in it."""
    glyphs = ASCII if ascii_only else UNICODE
    rows = {spec.title: written(spec.formula, glyphs) for spec in specs}
    if any("κ" in spec.formula for spec in specs):
        rows["κ"] = f"{WD_RATIO} where Π acts, else 1"
    return _grid(rows.items(), ascii_only)


def _grid(rows: Iterable[tuple[str, str]], ascii_only: bool) -> Table:
    """Set text that wraps beside its labels."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(styled(label, ascii_only), styled(text, ascii_only))
    return grid


@dataclass(frozen=True, slots=True)
class SchedulePlot:
    """A chart of η_t over the epochs, with restarts, warm-up and snapshots."""

    timetable: Timetable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = options.ascii_only
        columns = max(min(options.max_width, _WIDEST) - _LABEL - 1, 1)
        for line in [*self._chart(columns, ascii_only), *self._axis(columns, ascii_only)]:
            yield Text(line.rstrip(), no_wrap=True, overflow="crop")

    def heights(self, columns: int) -> list[float]:
        """Return η at the middle of each column's share of the run; the highest of narrower cycles."""
        t = self.timetable
        steps = t.epochs * t.steps_per_epoch
        bounds = [steps * k // columns for k in range(columns + 1)]
        starts = [epoch * t.steps_per_epoch for epoch in (t.warmup, *t.snapshots) if epoch < t.epochs]
        found = []
        for low, high in pairwise(bounds):
            begun = [t.eta(start) for start in starts if low < start < high]
            found.append(max([t.eta(min((low + high) // 2, steps - 1)), *begun]))
        return found

    def _chart(self, columns: int, ascii_only: bool) -> list[str]:
        ladder, rule = (_HASHES, "|") if ascii_only else (_BLOCKS, "┤")
        parts = len(ladder) - 1
        heights = [max(1, round(eta * parts * _HEIGHT)) if eta > 0 else 0 for eta in self.heights(columns)]
        labels = {_HEIGHT - 1: "1", _HEIGHT // 2: "eta" if ascii_only else "η", 0: "0"}
        lines = []
        for row in reversed(range(_HEIGHT)):
            body = "".join(ladder[max(0, min(height - parts * row, parts))] for height in heights)
            lines.append(f"{labels.get(row, ''):>{_LABEL - 1}} {rule}{body}")
        return lines

    def _axis(self, columns: int, ascii_only: bool) -> list[str]:
        """Draw marks under the epochs of snapshots, and as many labels as there is room for."""
        t, margin = self.timetable, " " * (_LABEL + 1)
        mark = _ASCII_MARK if ascii_only else _MARK
        places = {
            epoch: min(max(math.ceil(columns * epoch / t.epochs) - 1, 0), columns - 1)
            for epoch in (0, *t.snapshots, t.epochs)
        }
        marks = [mark if k in {places[epoch] for epoch in t.snapshots} else " " for k in range(columns)]
        return [f"{margin}{''.join(marks)}"] * bool(t.snapshots) + [f"{margin}{_spread(places, columns)}"]


def _spread(places: dict[int, int], columns: int) -> str:
    """Write epochs at their places, the first and the last before the others."""
    first, *middle, last = places
    taken = [" "] * columns
    for epoch in (last, first, *reversed(middle)):
        text = str(epoch)
        start = min(max(places[epoch] - (len(text) - 1 if epoch == last else len(text) // 2), 0), columns)
        around = taken[max(start - 1, 0) : start + len(text) + 1]
        if start + len(text) <= columns and not "".join(around).strip():
            taken[start : start + len(text)] = text
    return "".join(taken)


def caption(timetable: Timetable, *, ascii_only: bool = False) -> str:
    """Describe the schedule in words."""
    t, mark = timetable, _ASCII_MARK if ascii_only else _MARK
    parts = [f"{t.schedule} over {counted(t.epochs, 'epoch')}"]
    if t.warmup:
        parts.append(f"{t.warmup} of them warm-up")
    if t.schedule is Schedule.RESTARTS:
        parts.append(f"T_0 = {t.t_0}, T_mult = {t.t_mult}")
    if t.eta_min:
        parts.append(f"down to {t.eta_min:g}")
    if t.snapshots:
        *first, last = map(str, t.snapshots)
        shown = [*first[:_NAMED], *["…"] * (len(first) > _NAMED), last]
        parts.append(f"{mark} snapshots after {', '.join(shown)}")
    return ", ".join(parts)
