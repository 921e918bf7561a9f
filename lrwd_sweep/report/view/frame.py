"""A frame: how wide tiles are and what is written in them, the same for all heatmaps that share a legend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from lrwd_sweep.report.view.notation import Glyphs, axis_labels
from lrwd_sweep.report.view.ramp import colour, dimmed, text_on
from lrwd_sweep.report.view.scale import Numbers, Scale
from lrwd_sweep.report.view.tiles import Mark, Ridge, Tile, Tiles
from lrwd_sweep.science.surface import Surface

_NARROWEST_NUMBERS = 5  # characters of a tile that can hold a number between ridge and mark
_GLYPH_WIDTHS = (3, 2, 1)


@dataclass(frozen=True, slots=True)
class Frame:
    """How tiles are drawn."""

    width: int  # characters per tile
    numbers: Numbers | None  # None: digits of the scale, 0 to 9
    scale: Scale | None  # None: nothing has a value yet
    glyphs: Glyphs
    coloured: bool
    pool: tuple[int, int] = (1, 1)

    @property
    def gap(self) -> int:
        """Blank characters that set the baseline column apart."""
        return 2 if self.width >= _NARROWEST_NUMBERS else 1

    def label_width(self, surface: Surface) -> int:
        """Characters left of the first tile."""
        labels = axis_labels([float(value) for value in surface.lr], self.glyphs)
        return max(map(cell_len, [*labels, corner(surface, self.glyphs)])) + 1

    def body_width(self, surface: Surface) -> int:
        """Characters of one row of `surface`, its label included."""
        baseline = int(bool(len(surface.weight_decay)) and surface.weight_decay[0] == 0)
        columns = baseline + -(-(len(surface.weight_decay) - baseline) // self.pool[1])
        return self.label_width(surface) + columns * self.width + baseline * self.gap

    def row(self, tiles: Sequence[Tile], baseline: bool) -> Text:
        """One row of tiles, without its label."""
        text = Text(no_wrap=True, end="")
        for j, tile in enumerate(tiles):
            text.append(self._written(tile), self._style(tile))
            if baseline and j == 0:
                text.append(" " * self.gap)
        return text

    def column(self, j: int, baseline: bool) -> int:
        """Where tile j begins, counted from the first tile."""
        return j * self.width + (self.gap if baseline and j else 0)

    def ridge_column(self, tiles: Sequence[Tile], baseline: bool) -> int | None:
        """Where a row's ridge bar stands, counted from the first tile; None without one."""
        for j, tile in enumerate(tiles):
            if tile.ridge is not Ridge.NONE:
                return self.column(j, baseline) + (self.width == 2)
        return None

    def _style(self, tile: Tile) -> Style:
        bold = tile.ridge is not Ridge.NONE or tile.mark in (Mark.BEST, Mark.TOP)
        dim = tile.mark is Mark.PARTIAL
        if tile.value is None or self.scale is None or not self.coloured:
            return Style(bold=bold or None, dim=dim or None)
        background = colour(self.scale.goodness(tile.value))
        if dim:
            background = dimmed(background)
        red, green, blue = text_on(background)
        return Style(
            color=f"rgb({red},{green},{blue})",
            bgcolor="rgb({},{},{})".format(*background),
            bold=bold or None,
        )

    def _written(self, tile: Tile) -> str:
        """The characters of one tile, `width` of them: ridge, number or digit, mark."""
        ridge = {Ridge.CARRIES: self.glyphs.ridge, Ridge.APART: self.glyphs.ridge_apart}.get(tile.ridge, "")
        glyphs = self.glyphs
        marks = {Mark.BEST: glyphs.best, Mark.TOP: glyphs.top, Mark.PARTIAL: glyphs.partial}
        mark = marks.get(tile.mark, "")
        body = self._body(tile)
        if self.width == 1:
            return body if tile.mark is Mark.PARTIAL else mark or ridge or body
        if self.width == 2:
            return body + (mark or ridge or " ")
        room = self.width - 2
        body = body.center(room) if tile.value is None else body.rjust(room)
        return (ridge or " ") + body + (mark or " ")

    def _body(self, tile: Tile) -> str:
        if tile.value is None or self.scale is None:
            lost = {Mark.DIVERGED: self.glyphs.diverged, Mark.FAILED: self.glyphs.failed}
            return lost.get(tile.mark, self.glyphs.missing)
        return self.numbers.text(tile.value) if self.numbers else self.scale.digit(tile.value)

    def column_labels(self, tiles: Tiles, width: int) -> str:
        """The λ labels under the tiles, as many as fit in `width` characters, each starting at its column."""
        labels = axis_labels(tiles.column_values, self.glyphs)
        inset = 1 if self.width >= 3 else 0
        starts = [self.column(j, tiles.baseline) + inset for j in range(len(labels))]
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


def corner(surface: Surface, glyphs: Glyphs) -> str:
    """The names of both axes and where they grow, as in `α↑λ→`."""
    return f"{glyphs.alpha}{glyphs.up}{glyphs.symbol(surface.symbol)}{glyphs.right}"


def frames(scale: Scale | None, glyphs: Glyphs, coloured: bool) -> Iterator[Frame]:
    """Every frame worth trying, the most telling first: numbers as they are, relative ones, digits."""
    absolute = scale and Numbers.absolute(scale)
    if absolute:
        yield Frame(absolute.room + 2, absolute, scale, glyphs, coloured)
    if scale:
        yield Frame(_NARROWEST_NUMBERS, Numbers.relative(scale), scale, glyphs, coloured)
    for width in _GLYPH_WIDTHS:
        yield Frame(width, None, scale, glyphs, coloured)
