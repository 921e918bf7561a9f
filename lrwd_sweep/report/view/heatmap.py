"""The heatmap: a lattice of α (rows, the largest on top) and λ (columns) as numbers, colours and marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.view.frame import Frame, corner, frames
from lrwd_sweep.report.view.legend import legend
from lrwd_sweep.report.view.notation import ASCII, UNICODE, axis_labels, written
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.report.view.scale import Scale
from lrwd_sweep.report.view.tiles import Tiles
from lrwd_sweep.science.separability import Separability
from lrwd_sweep.science.surface import Surface

_BETWEEN = 3  # blank characters between heatmaps that stand side by side


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """One lattice to draw: alone, or with others in a `Gallery`."""

    surface: Surface
    title: str = ""
    formula: str = ""
    separability: Separability | None = None  # tells the rows that carry the ridge slope from the others
    ranked: bool = True  # one end is better: mark the best cells and every row's

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Gallery((self,))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Gallery((self,)).__rich_measure__(console, options)

    def tiles(self, pool: tuple[int, int]) -> Tiles:
        """What is drawn of the surface when `pool` = (rows, columns) cells share a tile."""
        return Tiles.of(self.surface, self.separability, pool=pool, ranked=self.ranked)

    def heading(self, frame: Frame) -> Text:
        """The optimizer's name and, set off from it, its formula."""
        name = plain(self.title)
        if frame.glyphs.ascii:
            name = name.encode("ascii", "backslashreplace").decode()
        text = Text(name, style="bold")
        if self.formula:
            text.append("   " if name else "")
            text.append(written(plain(self.formula), frame.glyphs), "not bold italic")
        return text

    def body(self, frame: Frame, tiles: Tiles, width: int) -> Text:
        """Rows and column labels, each line at most `width` characters."""
        margin = frame.label_width(self.surface)
        labels = axis_labels(tiles.row_values, frame.glyphs)
        bars = [frame.ridge_column(row, tiles.baseline) for row in tiles.rows]
        lines = []
        for label, row, (bar, next_bar) in zip(labels, tiles.rows, pairwise([*bars, None]), strict=True):
            text = frame.row(row, tiles.baseline)
            if bar is not None and next_bar is not None and bar != next_bar:
                text.stylize("underline", min(bar, next_bar), max(bar, next_bar) + 1)
            lines.append(Text(label.ljust(margin), no_wrap=True).append_text(text))
        axis = corner(self.surface, frame.glyphs).ljust(margin) + frame.column_labels(tiles, width - margin)
        lines.append(Text(axis))
        for line in lines:
            line.truncate(width)
        joined = Text("\n").join(lines)
        joined.no_wrap, joined.overflow = True, "crop"
        return joined


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Heatmaps on one scale and one legend: side by side where the width allows numbers, else stacked."""

    heatmaps: Sequence[Heatmap]
    scale: Scale | None = None  # default: `Scale.of` all of them
    legend: bool = True
    max_rows: int | None = None  # pool the rows of a taller lattice

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.heatmaps:
            return
        width = options.max_width
        frame, per_line = self._fit(width, self._frames(console, options))
        drawn = [heatmap.tiles(frame.pool) for heatmap in self.heatmaps]
        widths = self._widths(frame, per_line, width)
        grid = Table.grid(padding=(0, _BETWEEN, 0, 0), collapse_padding=True)
        for column in widths:
            grid.add_column(width=column, vertical="bottom")
        cells = [
            Group(*filter(None, (heatmap.heading(frame), heatmap.body(frame, tiles, widths[k % per_line]))))
            for k, (heatmap, tiles) in enumerate(zip(self.heatmaps, drawn, strict=True))
        ]
        for start in range(0, len(cells), per_line):
            if start:
                grid.add_row()
            grid.add_row(*cells[start : start + per_line])
        yield grid
        if self.legend:
            surfaces = [heatmap.surface for heatmap in self.heatmaps]
            yield legend(surfaces, drawn, frame, width=width)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        if not self.heatmaps:
            return Measurement(0, 0)
        found = self._frames(console, options)
        least = max(found[-1].label_width(heatmap.surface) + 1 for heatmap in self.heatmaps)
        most = sum(
            max(found[0].body_width(heatmap.surface), heatmap.heading(found[0]).cell_len) + _BETWEEN
            for heatmap in self.heatmaps
        )
        return Measurement(least, max(least, most - _BETWEEN)).with_maximum(options.max_width)

    def _frames(self, console: Console, options: ConsoleOptions) -> list[Frame]:
        ranked = all(heatmap.ranked for heatmap in self.heatmaps)
        surfaces = [heatmap.surface for heatmap in self.heatmaps]
        scale = self.scale or Scale.of(surfaces, ranked=ranked)
        coloured = console.color_system in ("256", "truecolor") and not console.no_color
        rows = max(len(heatmap.surface.lr) for heatmap in self.heatmaps)
        pool = (-(-rows // self.max_rows) if self.max_rows else 1, 1)
        glyphs = ASCII if options.ascii_only else UNICODE
        return [replace(frame, pool=pool) for frame in frames(scale, glyphs, coloured)]

    def _fit(self, width: int, found: Sequence[Frame]) -> tuple[Frame, int]:
        """The frame to draw in and the number of heatmaps per line."""
        for per_line in range(len(self.heatmaps), 0, -1):
            for frame in found:
                if (frame.numbers or per_line == 1) and self._total(frame, per_line) <= width:
                    return frame, per_line
        narrowest = found[-1]
        columns = max(len(heatmap.surface.weight_decay) for heatmap in self.heatmaps)
        for share in range(2, columns):
            narrowest = replace(narrowest, pool=(narrowest.pool[0], share))
            if self._total(narrowest, 1) <= width:
                break
        return narrowest, 1

    def _total(self, frame: Frame, per_line: int) -> int:
        return sum(self._bodies(frame, per_line)) + _BETWEEN * (per_line - 1)

    def _bodies(self, frame: Frame, per_line: int) -> list[int]:
        """The widest body in each column of the gallery."""
        every = [frame.body_width(heatmap.surface) for heatmap in self.heatmaps]
        return [max(every[k::per_line]) for k in range(per_line)]

    def _widths(self, frame: Frame, per_line: int, width: int) -> list[int]:
        """Characters per column: the body's, and more for a long heading if `width` has some to spare."""
        headings = [heatmap.heading(frame).cell_len for heatmap in self.heatmaps]
        spare = (width - self._total(frame, per_line)) // per_line
        return [
            body + min(max(max(headings[k::per_line]) - body, 0), spare)
            for k, body in enumerate(self._bodies(frame, per_line))
        ]
