"""A schedule drawn as a small chart: η_t over the epochs, with restarts, warm-up and snapshots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from lrwd_sweep.report.view.notation import counted
from lrwd_sweep.science.schedule import Schedule, Timetable

_HEIGHT = 6  # lines
_WIDEST = 80  # characters
_LABEL = 4  # characters left of the axis
_NAMED = 6  # snapshots in a caption besides the last
_BLOCKS, _HASHES = " ▁▂▃▄▅▆▇█", " .:|#"  # from nothing to a whole character
_MARK, _ASCII_MARK = "▲", "^"  # of a snapshot


@dataclass(frozen=True, slots=True)
class SchedulePlot:
    """One timetable to draw."""

    timetable: Timetable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = options.ascii_only
        columns = max(min(options.max_width, _WIDEST) - _LABEL - 1, 1)
        for line in [*self._chart(columns, ascii_only), *self._axis(columns, ascii_only)]:
            yield Text(line.rstrip(), no_wrap=True, overflow="crop")

    def heights(self, columns: int) -> list[float]:
        """η in the middle of each column's share of the run; its highest value where cycles are narrower."""
        t = self.timetable
        steps = t.epochs * t.steps_per_epoch
        bounds = [steps * k // columns for k in range(columns + 1)]
        starts = [start for start in _starts(t) if start]
        found = []
        for low, high in pairwise(bounds):
            begun = [t.eta(start) for start in starts if low < start < high]
            found.append(max([t.eta(min((low + high) // 2, steps - 1)), *begun]))
        return found

    def _chart(self, columns: int, ascii_only: bool) -> list[str]:
        ladder, rule = (_HASHES, "|") if ascii_only else (_BLOCKS, "┤")
        parts = len(ladder) - 1
        heights = [_parts(eta, parts * _HEIGHT) for eta in self.heights(columns)]
        lines = []
        for row in reversed(range(_HEIGHT)):
            label = "1" if row == _HEIGHT - 1 else "η" if row == _HEIGHT // 2 else "0" if row == 0 else ""
            label = "eta" if ascii_only and label == "η" else label
            body = "".join(ladder[max(0, min(height - parts * row, parts))] for height in heights)
            lines.append(f"{label:>{_LABEL - 1}} {rule}{body}")
        return lines

    def _axis(self, columns: int, ascii_only: bool) -> list[str]:
        """Marks under the epochs that a snapshot is taken at, and labels as many as there is room for."""
        t, margin = self.timetable, " " * (_LABEL + 1)
        mark = _ASCII_MARK if ascii_only else _MARK
        places = {epoch: _place(epoch, t.epochs, columns) for epoch in (0, *t.snapshots, t.epochs)}
        marks = [mark if k in {places[epoch] for epoch in t.snapshots} else " " for k in range(columns)]
        return [f"{margin}{''.join(marks)}"] * bool(t.snapshots) + [f"{margin}{_spread(places, columns)}"]


def caption(timetable: Timetable, *, ascii_only: bool = False) -> str:
    """The schedule in words."""
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


def _starts(t: Timetable) -> Sequence[int]:
    """The batches at which a cycle begins, the warm-up's end among them."""
    ends = (epoch * t.steps_per_epoch for epoch in (t.warmup, *t.snapshots))
    return [end for end in ends if end < t.epochs * t.steps_per_epoch]


def _parts(eta: float, whole: int) -> int:
    """Parts of a column, at least one while η is above 0."""
    return max(1, round(eta * whole)) if eta > 0 else 0


def _place(epoch: int, epochs: int, columns: int) -> int:
    """The column in which an epoch ends."""
    return min(max(math.ceil(columns * epoch / epochs) - 1, 0), columns - 1)


def _spread(places: dict[int, int], columns: int) -> str:
    """Epochs written at their places, the first and the last before the others."""
    first, *middle, last = places
    taken = [" "] * columns
    for epoch in (last, first, *reversed(middle)):
        text = str(epoch)
        start = min(max(places[epoch] - (len(text) - 1 if epoch == last else len(text) // 2), 0), columns)
        around = taken[max(start - 1, 0) : start + len(text) + 1]
        if start + len(text) <= columns and not "".join(around).strip():
            taken[start : start + len(text)] = text
    return "".join(taken)
