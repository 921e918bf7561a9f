"""A preset on a page: what it restates, all that it would train, how long that takes, and its schedules."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.view.notation import ASCII, UNICODE, counted, to_ascii, written
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.report.view.schedule_plot import SchedulePlot, caption
from lrwd_sweep.science.decay import WD_RATIO
from lrwd_sweep.science.lattice import Lattice, format_axis
from lrwd_sweep.spec.catalog import FLOAT32
from lrwd_sweep.spec.preset import Preset
from lrwd_sweep.spec.study import StudySpec, labels
from lrwd_sweep.spec.task import Task

_UNITS = (  # of time: seconds in it, and what is too long for it
    ("second", 1, 100),
    ("minute", 60, 100 * 60),
    ("hour", 3600, 48 * 3600),
    ("day", 86_400, 700 * 86_400),
)
_YEAR = 365.25 * 86_400
_AXIS = 12  # characters at least for an axis


@dataclass(frozen=True, slots=True, eq=False)
class PresetPage:
    """A preset with the studies of its variants, and how long they take where that was measured."""

    preset: Preset
    asked: str  # its name, or its file, as it was asked for
    specs: Sequence[StudySpec]
    time: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = options.ascii_only
        about = f": {self.preset.about}" if self.preset.about else ""
        yield _text(f"{self.preset.name}{about}", ascii_only, "bold")
        yield _grid(self._facts(), ascii_only)
        if self.specs:
            rows = [
                (name, spec.lattice, len(spec.lattice) * len(spec.seeds), _training(spec))
                for name, spec in zip(labels(self.specs), self.specs, strict=True)
            ]
            yield _studies("compares", rows, ascii_only)
            yield _grid(self._sums(), ascii_only)
            yield Text()
            yield _formulas(self.specs, ascii_only)
        yield from self._further_axes(ascii_only)
        for timetable in dict.fromkeys(_training(spec).timetable for spec in self.specs):
            yield Text()
            yield _text(caption(timetable, ascii_only=ascii_only), ascii_only)
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
        steps = sum(n * _training(spec).steps for n, spec in zip(lanes, self.specs, strict=True))
        yield "in all", f"{sum(lanes):,} lanes, {steps:,} lane-steps"
        if self.time:
            yield "time", self.time
        yield "run", f"lrwd-sweep compare --preset {shlex.quote(self.asked)}"

    def _further_axes(self, ascii_only: bool) -> Iterator[Table]:
        """The optimizers that have axes here and are no variant, for `grid --optimizer`; none of a figure."""
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
    """A length of time in its natural unit.

    >>> duration(0.2), duration(61), duration(7300), duration(1e9)
    ('1 second', '61 seconds', '2 hours', '32 years')
    """
    for name, length, end in _UNITS:
        if seconds < end:
            return counted(max(round(seconds / length), 1), name)
    return f"{round(seconds / _YEAR):,} years"


def _training(spec: StudySpec) -> Task:
    assert spec.task is not None, "a preset's variants are trained here"
    return spec.task


def _studies(heading: str, rows: Iterable[tuple[str, Lattice, int, Task]], ascii_only: bool) -> Table:
    """A line per study: its axes as options, and how much it trains."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(heading, overflow="fold")
    for name in ("--lr", "--wd"):
        table.add_column(name, overflow="fold", min_width=_AXIS)
    for name in ("lanes", "lane-steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, lattice, lanes, task in rows:
        axes = map(format_axis, (lattice.lr, lattice.weight_decay))
        counts = (f"{lanes:,}", f"{lanes * task.steps:,}")
        table.add_row(*(_text(entry, ascii_only) for entry in (name, *axes, *counts)))
    return table


def _formulas(specs: Sequence[StudySpec], ascii_only: bool) -> Table:
    """The update that each optimizer's name stands for, and what κ is in it."""
    glyphs = ASCII if ascii_only else UNICODE
    rows = {spec.title: written(spec.formula, glyphs) for spec in specs}
    if any("κ" in spec.formula for spec in specs):
        rows["κ"] = f"{WD_RATIO} where Π acts, else 1"
    return _grid(rows.items(), ascii_only)


def _grid(rows: Iterable[tuple[str, str]], ascii_only: bool) -> Table:
    """Labels, and text that wraps beside them."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(_text(label, ascii_only), _text(text, ascii_only))
    return grid


def _text(text: str, ascii_only: bool, style: str = "") -> Text:
    harmless = plain(text)
    return Text(to_ascii(harmless) if ascii_only else harmless, style=style)
