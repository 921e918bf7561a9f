"""Charts of lines or points over two axes: ranges, ticks and places for any renderer, drawn for a terminal.

Lines are drawn in the dots of Braille characters, two by four of them in a cell; in ASCII with their marks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text

from lrwd_sweep.report.view.notation import short_decimal, styled
from lrwd_sweep.science.surface import Float

SIZE = 1000  # length of a panel's side
MARKS = "●▲■◆○△□◇" + "abcdefghijklmnopqrstuvwxyz"
_ASCII_MARKS = "ox#@+%*&" + MARKS[8:]
COLOURS = ("#3a84d8", "#d0701a", "#2f9a62", "#c2559e", "#8a7d1c", "#7d7f87")  # contrast on black and white
_DECADE = 10
_FAR = 10.0  # times the height of the middle half of the values: anything farther is absurd
_SHOWN = 0.98  # share of the points below the upper end of a panel; the others lie on its rim
_MARKS_PER_LINE = 4
_ROWS, _WIDEST = 14, 100  # characters
_DOTS = (2, 4)  # of a Braille character: columns, rows
_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column of a character
_UNICODE_FRAME, _ASCII_FRAME = ("┤", "│", "└", "┬", "─"), ("+", "|", "+", "+", "-")


def interpolated(curve: Sequence[float]) -> Float:
    """Return a curve (E,) with straight lines over epochs that were not evaluated; NaN after its last value.

    >>> interpolated([4.0, math.nan, 2.0, math.nan])
    array([ 4.,  3.,  2., nan])
    """
    values = np.asarray(curve, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return values
    return np.interp(np.arange(len(values)), known, values[known], left=np.nan, right=np.nan)


def usual(values: Float, *, log: bool = False) -> tuple[float, float]:
    """Return the extremes of the values that are not absurdly far from the middle half.

    Far is ten times the height of that half; if it has none, of the middle four fifths. With `log`, heights
    are those of the logarithms.

    >>> usual(np.array([1.0, 2.0, 3.0, 4.0, 6e15]))
    (1.0, 4.0)
    """
    heights = np.log(values) if log else values
    for share in (0.25, 0.1):
        low, high = (float(x) for x in np.quantile(heights, [share, 1 - share]))
        if reach := _FAR * (high - low):
            values = values[(heights >= low - reach) & (heights <= high + reach)]
            break
    return float(values.min()), float(values.max())


@dataclass(frozen=True, slots=True)
class Range:
    """The values along one side of a panel; logarithmic if values above 0 span a decade."""

    low: float
    high: float
    log: bool
    clipped: bool = False  # some points lie beyond, and are drawn on the rim

    @classmethod
    def of(cls, lanes: Sequence[Float], shown: float = _SHOWN) -> Range | None:
        """Span all points from the lowest to the quantile `shown`, without absurd ones; None if empty."""
        values = np.concatenate([np.empty(0), *lanes])
        if not values.size:
            return None
        lowest, highest = float(values.min()), float(values.max())
        low, high = usual(values, log=0 < _DECADE * lowest <= highest)
        high = min(high, max(float(np.quantile(values, shown)), low))
        clipped = lowest < low or highest > high
        if math.isclose(low, high):
            high = low + (abs(low) or 1.0)
        return cls(low, high, 0 < _DECADE * low <= high, clipped)

    def heights(self, values: Float) -> list[int]:
        """Return the distances from the panel's upper rim, 0 to SIZE, (E,)."""
        low, high = self._map(np.array([self.low, self.high]))
        share = (high - self._map(np.clip(values, self.low, self.high))) / (high - low)
        return [int(y) for y in np.rint(SIZE * share)]

    def _map(self, values: Float) -> Float:
        return np.asarray(np.log(values)) if self.log else values

    def ticks(self) -> list[tuple[int, str]]:
        """Return heights and labels of round values."""
        found = _log_ticks(self.low, self.high) if self.log else []
        if len(found) < 2:
            found = even_ticks(self.low, self.high)
        return list(zip(self.heights(np.array(found)), map(short_decimal, found), strict=True))


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times powers of ten; over many decades only powers of ten, or some of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    leading = (1, 2, 5) if len(powers) <= 4 else (1,)
    ticks = [k * 10.0**power for power in powers[:: math.ceil(len(powers) / 8)] for k in leading]
    return [tick for tick in ticks if low <= tick <= high]


def even_ticks(low: float, high: float) -> list[float]:
    """Return about five values, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """The points of one mark."""

    about: str
    x: Float  # (n,) finite; ascending if points are joined
    y: Float  # (n,)


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """Series on common axes; the first lies on top."""

    about: str  # the points, as in "mean of 3 seeds"
    y_name: str
    x_name: str
    series: tuple[Series, ...]
    x: Range
    y: Range
    joined: bool  # lines rather than points
    labelled: tuple[float, ...] = ()  # values of x with a label; empty for round ones

    @classmethod
    def of(
        cls, about: str, y_name: str, x_name: str, series: Sequence[Series], *, joined: bool
    ) -> Chart | None:
        """Fit axes, logarithmic over a decade (epochs, the x of lines, never are); None without a point."""
        kept = []
        for one in series:
            finite = np.isfinite(one.x) & np.isfinite(one.y)
            if finite.any():
                kept.append(Series(one.about, one.x[finite], one.y[finite]))
        x, y = Range.of([s.x for s in kept], shown=1), Range.of([s.y for s in kept], shown=1)
        if x is None or y is None:
            return None
        if joined:
            epochs = np.concatenate([s.x for s in kept])
            x = Range(float(epochs.min()), max(float(epochs.max()), float(epochs.min()) + 1), False)
        return cls(about, y_name, x_name, tuple(kept), x, y, joined)

    def places(self, series: Series) -> Float:
        """Return the points' places, (n, 2): from the left and from the top, 0 to 1."""
        x, y = self.x.heights(series.x), self.y.heights(series.y)
        return np.stack([1 - np.array(x) / SIZE, np.array(y) / SIZE], axis=1)

    def marked(self, k: int) -> Float:
        """Return the places of series k's marks, (m, 2): its points, or staggered along its line."""
        places = self.places(self.series[k])
        if not self.joined:
            return places
        share = (np.arange(_MARKS_PER_LINE) + (k + 0.5) / len(self.series)) / _MARKS_PER_LINE
        share = share[(share >= places[0, 0]) & (share <= places[-1, 0])]
        if not share.size:
            return places[-1:]
        return np.stack([share, np.interp(share, places[:, 0], places[:, 1])], axis=1)

    @property
    def title(self) -> str:
        """The names of the axes, and the meaning of a point."""
        names = f"{self.y_name}{' (log)' * self.y.log} by {self.x_name}{' (log)' * self.x.log}"
        clipped = self.x.clipped or self.y.clipped
        return f"{names}, {self.about}" + "; points far off are drawn on the rim" * clipped

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """The places from the left, 0 to 1, and labels; only whole epochs."""
        if self.labelled:
            places = self.x.heights(np.array(self.labelled))
            return [(1 - y / SIZE, f"{x:g}") for x, y in zip(self.labelled, places, strict=True)]
        ticks = [(1 - height / SIZE, label) for height, label in self.x.ticks()]
        return [(x, label) for x, label in ticks if not self.joined or "." not in label]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = options.ascii_only
        marks = _ASCII_MARKS if ascii_only else MARKS
        fine = (1, 1) if ascii_only else _DOTS
        ticks = {_at(height / SIZE, _ROWS, fine[1]): label for height, label in reversed(self.y.ticks())}
        margin = max(map(len, ticks.values()), default=0)
        width = max(min(options.max_width, _WIDEST) - margin - 2, 8)
        tick, side, corner, below, floor = _ASCII_FRAME if ascii_only else _UNICODE_FRAME
        yield styled(self.title, ascii_only)
        for row, drawn in enumerate(self._rows(width, fine, marks)):
            label = ticks.get(row, "")
            yield Text(f"{label:>{margin}} {tick if label else side}", no_wrap=True).append_text(drawn)
        line, labels = [floor] * width, ""
        for x, label in sorted(self.x_ticks):
            column = _at(x, width, fine[0])
            start = min(max(column - len(label) // 2, 0), width - len(label))
            if not labels or start > len(labels):
                labels = labels.ljust(start) + label
                line[column] = below
        yield Text(f"{'':{margin}} {corner}{''.join(line)}", no_wrap=True)
        yield Text(f"{'':{margin + 2}}{labels}", no_wrap=True)
        for k, series in enumerate(self.series):
            mark = Text(marks[k % len(marks)], style=_style(k))
            yield Text.assemble("  ", mark, " ", styled(series.about, ascii_only))

    def _rows(self, width: int, fine: tuple[int, int], marks: str) -> Iterator[Text]:
        """Draw the plot line by line, a character being `fine` = (columns, rows) of dots."""
        bits = np.zeros((_ROWS, width), dtype=int)
        owner = np.full((_ROWS, width), -1)
        for k in reversed(range(len(self.series) if self.joined else 0)):
            for column, row in _line(self.places(self.series[k]), width * fine[0], _ROWS * fine[1]):
                place = row // fine[1], column // fine[0]
                bits[place] |= _BRAILLE[row % fine[1]][column % fine[0]]
                owner[place] = k
        signs = np.array([*marks, " "])[np.where(owner < 0, -1, owner % len(marks))]
        characters = np.where(bits > 0, np.vectorize(chr)(0x2800 + bits), " ") if fine == _DOTS else signs
        for k in reversed(range(len(self.series))):
            for x, y in self.marked(k):
                place = _at(y, _ROWS, fine[1]), _at(x, width, fine[0])
                characters[place], owner[place] = marks[k % len(marks)], k
        for row, owners in zip(characters, owner, strict=True):
            yield Text.assemble(*((str(c), _style(int(k))) for c, k in zip(row, owners, strict=True)))


def _at(share: float, count: int, fine: int) -> int:
    """Return the character, of `count` with `fine` dots each, that holds a place between 0 and 1."""
    return round(share * (count * fine - 1)) // fine


def _line(places: Float, width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield the dots (column, row) of a line through `places`, without a gap between columns."""
    x, y = places[:, 0] * (width - 1), places[:, 1] * (height - 1)
    columns = np.arange(math.ceil(x[0]), math.floor(x[-1]) + 1)
    rows = np.rint(np.interp(columns, x, y)).astype(int)
    for column, row, before in zip(columns, rows, [*rows[:1], *rows[:-1]], strict=True):
        step = 1 if row > before else -1
        for each in range(row, before, -step) if row != before else (row,):
            yield int(column), int(each)


def _style(k: int) -> Style:
    return Style() if k < 0 else Style(color=COLOURS[k % len(COLOURS)])
