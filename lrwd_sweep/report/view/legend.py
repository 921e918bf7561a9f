"""The legend of one or several heatmaps: what is drawn, the colour ramp and its ends, the axes, the marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.style import Style
from rich.text import Text

from lrwd_sweep.report.view.frame import Frame
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.report.view.ramp import colour
from lrwd_sweep.report.view.tiles import Mark, Ridge, Tiles
from lrwd_sweep.science.surface import Surface
from lrwd_sweep.science.trial import Direction

_RAMP = 16  # characters of the colour ramp
_SEPARATOR = "   "  # between two items


def legend(surfaces: Sequence[Surface], drawn: Sequence[Tiles], frame: Frame, *, width: int) -> Text:
    """The legend as lines of at most `width` characters where words allow it."""
    items = [_numbers(surfaces, frame), *_ramp(frame), _axes(surfaces, frame)]
    items += [*_partial(surfaces, drawn, frame), *_marks(drawn, frame), *_far(drawn, frame)]
    if frame.pool != (1, 1):
        rows, columns = frame.pool
        block = f"{rows}×{columns} cells"
        brightest = frame.scale.brightest if frame.scale else "best"
        items.append(Text(f"thinned: each tile is the {brightest} of {block}, labelled by the smallest"))
    if frame.glyphs.ascii:
        items = [_in_ascii(item) for item in items]
    return _packed(items, width)


def _in_ascii(item: Text) -> Text:
    """The item with × as x; nothing else outside ASCII is left but a hostile metric name."""
    item.plain = item.plain.replace("×", "x").encode("ascii", "backslashreplace").decode()
    return item


def seeds_of(surfaces: Sequence[Surface]) -> str:
    """What a cell's value is the mean of."""
    counts = sorted({len(surface.seeds) for surface in surfaces})
    if any(surface.partial.any() for surface in surfaces):
        return "mean of the seeds so far"
    return "one seed" if counts == [1] else f"mean of {' or '.join(map(str, counts))} seeds"


def runs_of(surfaces: Sequence[Surface]) -> str:
    """How many of the runs are there, as in `62 of 363 runs`."""
    done, every = (sum(part) for part in zip(*(surface.runs for surface in surfaces), strict=True))
    return f"{done} of {every} runs"


def _numbers(surfaces: Sequence[Surface], frame: Frame) -> Text:
    metric = plain(surfaces[0].metric)
    seeds = seeds_of(surfaces)
    if surfaces[0].direction is Direction.MAXIMIZE:
        seeds += ", higher is better"
    if frame.scale is None:
        return Text(f"{metric}: no cell has a value yet")
    if frame.numbers is None:
        return Text(f"digits: tenths of the scale of {metric}, 0 the {frame.scale.brightest}, {seeds}")
    return Text(f"{frame.numbers.meaning(metric, frame.scale, frame.glyphs)}, {seeds}")


def _ramp(frame: Frame) -> Iterable[Text]:
    """The ends of the scale with the colours, or the digits, between them; nothing where neither is drawn."""
    scale = frame.scale
    if scale is None or not (frame.coloured or frame.numbers is None):
        return
    bright, dark = scale.ends
    text = Text(f"{bright} ")
    if frame.coloured:
        for k in range(_RAMP):
            rgb = "rgb({},{},{})".format(*colour(1 - k / (_RAMP - 1)))
            text.append(" " if not frame.glyphs.ascii else "=", Style(color=rgb, bgcolor=rgb))
    else:
        text.append("0123456789")
    text.append(f" {dark}")
    yield text


def _partial(surfaces: Sequence[Surface], drawn: Sequence[Tiles], frame: Frame) -> Iterable[Text]:
    """How tiles that lack seeds are told from the others, and how many runs there are."""
    if any(tile.mark is Mark.PARTIAL for tiles in drawn for row in tiles.rows for tile in row):
        glyph = "dim:" if frame.width == 1 else f"{frame.glyphs.partial} dim:"
        yield Text(f"{glyph} some seeds are missing ({runs_of(surfaces)})")


def _axes(surfaces: Sequence[Surface], frame: Frame) -> Text:
    """The axes by their full names, with the convention of each decay."""
    glyphs = frame.glyphs
    rules: dict[str, dict[str, None]] = {}
    for surface in surfaces:
        rules.setdefault(glyphs.symbol(surface.symbol), {})[str(surface.rule)] = None
    decays = ", ".join(f"{symbol} ({', '.join(names)})" for symbol, names in rules.items())
    return Text(f"rows: learning rate {glyphs.alpha}; columns: weight decay {decays}")


def _marks(drawn: Sequence[Tiles], frame: Frame) -> Iterable[Text]:
    """The marks that occur, each with its meaning."""
    every = [tile for tiles in drawn for row in tiles.rows for tile in row]
    marks, ridges = {tile.mark for tile in every}, {tile.ridge for tile in every}
    glyphs = frame.glyphs
    for present, glyph, meaning in (
        (Mark.BEST in marks, glyphs.best, "best"),
        (Mark.TOP in marks, glyphs.top, "ten best"),
        (Ridge.CARRIES in ridges, glyphs.ridge, "row's best, the ridge"),
        (Ridge.APART in ridges, glyphs.ridge_apart, "row's best, not in the slope"),
        (Mark.DIVERGED in marks, glyphs.diverged, "diverged"),
        (Mark.FAILED in marks, glyphs.failed, "failed"),
        (Mark.MISSING in marks, glyphs.missing, "missing"),
    ):
        if present:
            yield Text(f"{glyph} {meaning}")


def _far(drawn: Sequence[Tiles], frame: Frame) -> Iterable[Text]:
    """What stands for a number that has no room."""
    values = [tile.value for tiles in drawn for row in tiles.rows for tile in row if tile.value is not None]
    written = {frame.numbers.text(value) for value in values} if frame.numbers else set()
    for glyph in sorted(written & {"<", ">"}):
        yield Text(f"{glyph} too long to write")


def _packed(items: Sequence[Text], width: int) -> Text:
    """Items on as few lines as hold them whole; one longer than a line is left to wrap between words."""
    lines: list[Text] = []
    for item in items:
        if lines and lines[-1].cell_len + len(_SEPARATOR) + item.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], _SEPARATOR, item)
        else:
            lines.append(item)
    return Text("\n").join(lines)
