"""The heatmap: a lattice of α (rows, the largest on top) and λ (columns) as numbers, colours and marks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.view.notation import (
    ASCII,
    UNICODE,
    Glyphs,
    axis_labels,
    decay_labels,
    decay_symbol,
    plain,
    written,
)
from lrwd_sweep.report.view.tiles import (
    Mark,
    Numbers,
    Rgb,
    Ridge,
    Scale,
    Tile,
    Tiles,
    colour,
    lacking,
    seeds_of,
    text_on,
)
from lrwd_sweep.science.separability import Separability
from lrwd_sweep.science.surface import Surface

_BETWEEN = 3  # blank characters between heatmaps side by side
_NARROWEST_NUMBERS = 5  # characters of a tile that can hold a number between ridge and mark
_GLYPH_WIDTHS = (3, 2, 1)
_RAMP = 16  # characters of the legend's colour ramp
_SEPARATOR = "   "  # between two items of the legend


class Ramp(StrEnum):
    """The colours of tiles, as far as the console has them."""

    NONE = "none"
    FIVE = "five"  # of the 16 colours that every terminal has
    FULL = "full"

    @classmethod
    def of(cls, console: Console) -> Self:
        """Return the ramp for a console."""
        if console.no_color or console.color_system is None:
            return cls.NONE
        return cls.FULL if console.color_system in ("256", "truecolor") else cls.FIVE


# From the dark end to the best, in the order of the full ramp, of the eight colours that are backgrounds in
# every terminal. Text and background are both given, so that they are readable on dark and on light ones.
_FIVE = [
    Style(color=text, bgcolor=background)
    for text, background in zip(
        ("white", "white", "black", "black", "black"),
        ("magenta", "blue", "cyan", "green", "yellow"),
        strict=True,
    )
]


@dataclass(frozen=True, slots=True)
class Frame:
    """The format of tiles, common to all heatmaps that share a legend."""

    width: int  # characters per tile
    numbers: Numbers | None  # None: digits of the scale, 0 to 9
    scale: Scale | None  # None: nothing has a value yet
    glyphs: Glyphs
    ramp: Ramp
    pool: tuple[int, int] = (1, 1)

    @property
    def gap(self) -> int:
        """The number of blank characters after the baseline column."""
        return 2 if self.width >= _NARROWEST_NUMBERS else 1

    def label_width(self, surface: Surface) -> int:
        """Count the characters left of the first tile."""
        labels = axis_labels([float(value) for value in surface.lr], self.glyphs)
        return max(map(cell_len, [*labels, self.corner(surface)])) + 1

    def corner(self, surface: Surface) -> str:
        """Name both axes and where they grow, as in `α↑λ→`."""
        glyphs = self.glyphs
        return f"{glyphs.alpha}{glyphs.up}{glyphs.symbol(decay_symbol(surface))}{glyphs.right}"

    def body_width(self, surface: Surface) -> int:
        """Count the characters of one row of `surface`, label included."""
        baseline = int(surface.weight_decay[0] == 0)
        columns = baseline + -(-(len(surface.weight_decay) - baseline) // self.pool[1])
        return self.label_width(surface) + columns * self.width + baseline * self.gap

    def starts(self, tiles: Tiles) -> list[int]:
        """Return the character at which every tile of a row begins, from the first tile."""
        return [
            j * self.width + (self.gap if tiles.baseline and j else 0)
            for j in range(len(tiles.column_values))
        ]

    def row(self, tiles: Sequence[Tile], starts: Sequence[int]) -> Text:
        """Draw one row of tiles, without its label."""
        text = Text(no_wrap=True, end="")
        for tile, start in zip(tiles, starts, strict=True):
            text.append(" " * (start - len(text)))
            text.append(self._characters(tile), self._style(tile))
        return text

    def column_labels(self, labels: Sequence[str], tiles: Tiles, width: int) -> str:
        """Write the λ labels under the tiles, as many as fit in `width`, each starting at its column."""
        inset = 1 if self.width >= 3 else 0
        starts = [start + inset for start in self.starts(tiles)]
        for stride in range(1, len(labels) + 1):
            chosen = [0, *range(1, len(labels), stride)] if tiles.baseline else range(0, len(labels), stride)
            line = ""
            for j in chosen:
                if line and len(line) >= starts[j]:
                    break
                if starts[j] + len(labels[j]) <= width:
                    line = line.ljust(starts[j]) + labels[j]
            else:
                return line
        return ""

    def _style(self, tile: Tile) -> Style:
        bold = tile.best_of_row or tile.mark in (Mark.BEST, Mark.TOP) or None
        background = tile.colour(self.scale)
        if background is None or self.ramp is Ramp.NONE:
            return Style(bold=bold, dim=tile.mark is Mark.PARTIAL or None)
        if self.ramp is Ramp.FIVE and tile.value is not None and self.scale is not None:
            step = min(int(len(_FIVE) * self.scale.goodness(tile.value)), len(_FIVE) - 1)
            return _FIVE[step] + Style(bold=bold)
        return Style(color=_rgb(text_on(background)), bgcolor=_rgb(background), bold=bold)

    def _characters(self, tile: Tile) -> str:
        """Write one tile in `width` characters: ridge, number or digit, mark."""
        ridge, mark = self.glyphs.sign(tile.ridge), self.glyphs.sign(tile.mark)
        if tile.value is None or self.scale is None:
            body, mark = mark, ""
        else:
            body = self.numbers.text(tile.value) if self.numbers else self.scale.digit(tile.value)
        if self.width == 1:
            return body if tile.mark is Mark.PARTIAL else mark or ridge or body
        if self.width == 2:
            return body + (mark or ridge or " ")
        room = self.width - 2
        body = body.center(room) if tile.value is None else body.rjust(room)
        return (ridge or " ") + body + (mark or " ")


def _rgb(channels: Rgb) -> str:
    return "rgb({},{},{})".format(*channels)


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """One lattice to draw, by itself or with others in a `Gallery`."""

    surface: Surface
    title: str = ""
    formula: str = ""
    separability: Separability | None = None  # marks the rows that carry the ridge slope
    ranked: bool = True  # one end is better: mark the best cells and every row's
    marked: bool = True  # False while it trains: no marks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Gallery((self,))

    def heading(self, frame: Frame) -> Text:
        """Write the optimizer's name and, set apart, its formula."""
        name = plain(self.title)
        if frame.glyphs.ascii:
            name = name.encode("ascii", "backslashreplace").decode()
        text = Text(name, style="bold")
        if self.formula:
            text.append("   " if name else "")
            text.append(written(plain(self.formula), frame.glyphs), "not bold italic")
        return text

    def body(self, frame: Frame, tiles: Tiles, width: int) -> Text:
        """Draw rows and column labels, each line at most `width` characters."""
        margin, starts = frame.label_width(self.surface), frame.starts(tiles)
        labels = axis_labels(tiles.row_values, frame.glyphs)
        bars = [  # the place of each row's ridge
            next(
                (at + (frame.width == 2) for tile, at in zip(row, starts, strict=True) if tile.best_of_row),
                None,
            )
            for row in tiles.rows
        ]
        lines = []
        for label, row, (bar, next_bar) in zip(labels, tiles.rows, pairwise([*bars, None]), strict=True):
            text = frame.row(row, starts)
            if bar is not None and next_bar is not None and bar != next_bar:
                text.stylize("underline", min(bar, next_bar), max(bar, next_bar) + 1)
            lines.append(Text(label.ljust(margin), no_wrap=True).append_text(text))
        decays = decay_labels(self.surface, tiles.column_values, frame.glyphs)
        below = frame.column_labels(decays, tiles, width - margin)
        lines.append(Text(frame.corner(self.surface).ljust(margin) + below))
        for line in lines:
            line.truncate(width)
        joined = Text("\n").join(lines)
        joined.no_wrap, joined.overflow = True, "crop"
        return joined


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Heatmaps on one scale with one legend: side by side if numbers fit, else stacked."""

    heatmaps: Sequence[Heatmap]
    legend: bool = True
    max_rows: int | None = None  # pool the rows of a taller lattice
    compact: bool = False  # side by side also if only digits fit

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.heatmaps:
            return
        width = options.max_width
        frame, per_line = self._fit(width, self._frames(console, options))
        drawn = [
            Tiles.of(each.surface, each.separability, pool=frame.pool, ranked=each.ranked and each.marked)
            for each in self.heatmaps
        ]
        grid = Table.grid(padding=(0, _BETWEEN, 0, 0), collapse_padding=True)
        widths = self._widths(frame, per_line, width)
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
            yield _legend([heatmap.surface for heatmap in self.heatmaps], drawn, frame, width)

    def _frames(self, console: Console, options: ConsoleOptions) -> list[Frame]:
        """Return every frame worth trying, the most informative first: numbers, relative numbers, digits."""
        surfaces = [heatmap.surface for heatmap in self.heatmaps]
        scale = Scale.of(surfaces, ranked=all(heatmap.ranked for heatmap in self.heatmaps))
        rows = max(len(surface.lr) for surface in surfaces)
        pool = (-(-rows // self.max_rows) if self.max_rows else 1, 1)
        glyphs = ASCII if options.ascii_only else UNICODE
        if not all(heatmap.marked for heatmap in self.heatmaps):
            glyphs = replace(glyphs, partial=" ")
        formats: list[tuple[int, Numbers | None]] = [(width, None) for width in _GLYPH_WIDTHS]
        if scale:
            formats.insert(0, (_NARROWEST_NUMBERS, Numbers.relative(scale)))
            if absolute := Numbers.absolute(scale):
                formats.insert(0, (absolute.room + 2, absolute))
        ramp = Ramp.of(console)
        return [Frame(width, numbers, scale, glyphs, ramp, pool) for width, numbers in formats]

    def _fit(self, width: int, found: Sequence[Frame]) -> tuple[Frame, int]:
        """Choose the frame and the number of heatmaps per line."""
        for per_line in range(len(self.heatmaps), 0, -1):
            for frame in found:
                if (frame.numbers or per_line == 1 or self.compact) and self._total(frame, per_line) <= width:
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
        """Return the widest body in each column of the gallery."""
        every = [frame.body_width(heatmap.surface) for heatmap in self.heatmaps]
        return [max(every[k::per_line]) for k in range(per_line)]

    def _widths(self, frame: Frame, per_line: int, width: int) -> list[int]:
        """Give each column its body's width, and more for a long heading if `width` has room to spare."""
        headings = [heatmap.heading(frame).cell_len for heatmap in self.heatmaps]
        spare = (width - self._total(frame, per_line)) // per_line
        return [
            body + min(max(max(headings[k::per_line]) - body, 0), spare)
            for k, body in enumerate(self._bodies(frame, per_line))
        ]


def _legend(surfaces: Sequence[Surface], drawn: Sequence[Tiles], frame: Frame, width: int) -> Text:
    """Write the legend on as few lines of `width` characters as hold its items whole."""
    items = list(_legend_items(surfaces, [tile for tiles in drawn for tile in tiles.every], frame))
    if frame.glyphs.ascii:
        for item in items:  # beside × only a hostile metric name is not ASCII
            item.plain = item.plain.replace("×", "x").encode("ascii", "backslashreplace").decode()
    lines: list[Text] = []
    for item in items:
        if lines and lines[-1].cell_len + len(_SEPARATOR) + item.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], _SEPARATOR, item)
        else:
            lines.append(item)
    return Text("\n").join(lines)


def _legend_items(surfaces: Sequence[Surface], tiles: Sequence[Tile], frame: Frame) -> Iterator[Text]:
    """Yield the items: numbers, ramp, axes, the marks that occur."""
    glyphs, scale, numbers = frame.glyphs, frame.scale, frame.numbers
    metric, seeds = plain(surfaces[0].metric), seeds_of(surfaces)
    if scale is None:
        yield Text(f"{metric}: no cell has a value yet")
    elif numbers is None:
        yield Text(f"digits: tenths of the scale of {metric}, 0 the {scale.brightest}, {seeds}")
    else:
        yield Text(f"{numbers.meaning(metric, scale, glyphs)}, {seeds}")
    if scale is not None and (frame.ramp is not Ramp.NONE or numbers is None):
        bright, dark = scale.ends
        yield Text.assemble(f"{bright} ", _ramp(frame), f" {dark}")

    rules: dict[str, dict[str, None]] = {}  # of each symbol, the decay rules that use it
    for surface in surfaces:
        rules.setdefault(glyphs.symbol(decay_symbol(surface)), {})[str(surface.rule)] = None
    decays = ", ".join(f"{symbol} ({', '.join(names)})" for symbol, names in rules.items())
    yield Text(f"rows: learning rate {glyphs.alpha}; columns: weight decay {decays}")

    some, every = lacking(surfaces)
    meanings: dict[Mark | Ridge, str] = {
        Mark.PARTIAL: f"dim: {some}",
        Mark.BEST: "best",
        Mark.TOP: "ten best",
        Ridge.CARRIES: "row's best, the ridge",
        Ridge.APART: "row's best, not in the slope",
        Mark.DIVERGED: "diverged",
        Mark.FAILED: "failed",
        Mark.MISSING: every,
    }
    found = {tile.mark for tile in tiles} | {tile.ridge for tile in tiles}
    for mark, meaning in meanings.items():
        if mark in found:
            signed = mark is not Mark.PARTIAL or frame.width > 1
            yield Text(f"{glyphs.sign(mark)} {meaning}".lstrip() if signed else meaning)
    texts = {numbers.text(tile.value) for tile in tiles if tile.value is not None} if numbers else set()
    yield from (Text(f"{glyph} too long to write") for glyph in sorted(texts & {"<", ">"}))
    if frame.pool != (1, 1):
        best = scale.brightest if scale else "best"
        block = "×".join(map(str, frame.pool))
        yield Text(f"thinned: each tile is the {best} of {block} cells, labelled by the smallest")


def _ramp(frame: Frame) -> Text:
    """Draw the colours from bright to dark, or the digits if there is no colour."""
    if frame.ramp is Ramp.NONE:
        return Text("0123456789")
    blank = "=" if frame.glyphs.ascii else " "
    if frame.ramp is Ramp.FIVE:
        colours = [style.bgcolor for style in reversed(_FIVE)]
        return Text.assemble(*((3 * blank, Style(color=each, bgcolor=each)) for each in colours))
    rgbs = [_rgb(colour(1 - k / (_RAMP - 1))) for k in range(_RAMP)]
    return Text.assemble(*((blank, Style(color=rgb, bgcolor=rgb)) for rgb in rgbs))
