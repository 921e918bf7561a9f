"""Marks, scale, colours and numbers of a drawn surface, cell by cell or pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from lrwd_sweep.report.view.line_chart import usual
from lrwd_sweep.report.view.notation import FEWER, NEVER, Glyphs, fit_number, short_decimal, superscript
from lrwd_sweep.science.separability import Separability
from lrwd_sweep.science.surface import CellStatus, Float, Surface, median
from lrwd_sweep.science.trial import Direction

_CONTRAST = 2.0  # the ramp spans this many times the height of the basin, the better half of the cells
_ABSURD = 100.0  # times the usual magnitude: such values do not shape the scale
_RESOLUTION = 20  # numbers resolve this many steps of the ramp

Rgb = tuple[int, int, int]

# The ramp, from dark purple to bright yellow. Lightness, chroma and hue run linearly between anchors in Oklch
# (Ottosson 2020). Lightness rises evenly, so the order survives colour blindness and grey printing.
_ANCHORS = (  # (lightness, chroma, hue in degrees), evenly spaced
    (0.270, 0.115, 308.0),
    (0.430, 0.110, 272.0),
    (0.590, 0.093, 222.0),
    (0.750, 0.140, 158.0),
    (0.910, 0.180, 104.0),
)
_LMS_OF_OKLAB = np.array([  # cube roots
    [1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480],
])  # fmt: skip
_RGB_OF_LMS = np.array([  # linear
    [4.0767416621, -3.3077115913, 0.2309699292],
    [-1.2684380046, 2.6097574011, -0.3413193965],
    [-0.0041960863, -0.7034186147, 1.7076147010],
])  # fmt: skip
_STEPS = 128


def _ramp() -> list[Rgb]:
    """Convert the ramp from Oklch to sRGB; channels outside the gamut are clipped."""
    places = np.linspace(0, len(_ANCHORS) - 1, _STEPS + 1)
    lightness, chroma, hue = (
        np.interp(places, range(len(_ANCHORS)), each) for each in zip(*_ANCHORS, strict=True)
    )
    hue = np.radians(hue)
    lms = _LMS_OF_OKLAB @ [lightness, chroma * np.cos(hue), chroma * np.sin(hue)]
    linear = np.clip(_RGB_OF_LMS @ lms**3, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [(red, green, blue) for red, green, blue in np.rint(255 * encoded).astype(int).T.tolist()]


_COLOURS = _ramp()


def colour(goodness: float) -> Rgb:
    """Return the colour of `goodness`: 1 the best, bright; 0 the end of the scale, dark. Clips to [0, 1]."""
    return _COLOURS[round(_STEPS * min(max(goodness, 0.0), 1.0))]


def dimmed(rgb: Rgb) -> Rgb:
    """Mix a colour half with grey."""
    red, green, blue = ((channel + 128) // 2 for channel in rgb)
    return red, green, blue


def luminance(rgb: Rgb) -> float:
    """Return the relative luminance of WCAG 2, 0 (black) to 1 (white)."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def text_on(rgb: Rgb) -> Rgb:
    """Return black or white, the one of more contrast with `rgb`: at least 4.5."""
    return (0, 0, 0) if luminance(rgb) > 0.179 else (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Scale:
    """The values at the bright and the dark end of the ramp, in the metric's units."""

    bright: float  # the best; above `dark` where higher is better
    dark: float
    clipped: bool = False  # values beyond the dark end share its colour
    clipped_bright: bool = False  # and beyond the bright end
    ranked: bool = True  # one end is better
    direction: Direction = Direction.MINIMIZE  # which
    counts: bool = True  # the value at the bright end belongs to a cell that counts

    @classmethod
    def of(cls, surfaces: Sequence[Surface], *, ranked: bool = True) -> Scale | None:
        """Fit one scale to several surfaces, from the best value of all; None if no cell has a value.

        The dark end is the farthest over the surfaces of best + 2·(median − best): each basin, the better
        half of a surface's cells, spreads over half of the ramp or more if the surfaces are alike. Values
        that are not `ranked` have no basin: the scale runs from the lowest to the highest. Absurd outliers
        are clipped.
        """
        direction = surfaces[0].direction if ranked else Direction.MINIMIZE
        sign = -1.0 if direction is Direction.MAXIMIZE else 1.0
        drawn = [(surface, sign * surface.mean_so_far) for surface in surfaces]
        finite = [found for _, values in drawn if (found := values[np.isfinite(values)]).size]
        if not finite:
            return None
        every = np.concatenate(finite)
        if not ranked:
            low, high = usual(every)
            return cls(low, high, bool(every.max() > high), bool(every.min() < low), ranked=False)
        known = [values[np.isfinite(values) & ~surface.out] for surface, values in drawn]
        known = [values for values in known if values.size] or finite
        sane = _limit(np.concatenate(known))
        best = min(float(values.min()) for values in known)
        known = [v for values in known if (v := values[np.abs(values) <= sane]).size]
        low = min(float(values.min()) for values in known)
        high = max(float(values.min()) + _reach(values) for values in known)
        top = float(every[np.abs(every) <= sane].max())
        high = top if high <= low else min(high, top)  # half of the cells may be equally good
        counts = any((values[surface.inside] <= best).any() for surface, values in drawn)
        clipped, clipped_bright = bool(every.max() > high), best < low
        return cls(sign * low, sign * high, clipped, clipped_bright, direction=direction, counts=counts)

    @property
    def brightest(self) -> str:
        """The name of the value at the bright end."""
        if self.ranked and self.counts:
            return "best"
        return "highest" if self.direction is Direction.MAXIMIZE else "lowest"

    @property
    def numbers(self) -> Numbers:
        """The number format of cells with room for one."""
        return Numbers.absolute(self) or Numbers.relative(self)

    @property
    def beyond(self) -> tuple[str, str]:
        """The side on which clipped values lie, at the bright end and at the dark end."""
        return ("below", "above") if self.direction is Direction.MINIMIZE else ("above", "below")

    @property
    def ends(self) -> tuple[str, str]:
        """The labels at the bright and at the dark end of the ramp."""
        return (
            self.written(self.bright) + f" and {self.beyond[0]} (clipped)" * self.clipped_bright,
            self.written(self.dark) + f" and {self.beyond[1]} (clipped)" * self.clipped,
        )

    def goodness(self, value: float) -> float:
        """Map a value to 1 at the best value and beyond it, 0 at the dark end and beyond."""
        span = self.dark - self.bright
        return min(max((self.dark - value) / span, 0.0), 1.0) if span else 1.0

    def digit(self, value: float) -> str:
        """Return the tenth of the scale that holds `value`: 0 at the best, 9 at the dark end and beyond."""
        return str(min(int(10 * (1 - self.goodness(value))), 9))

    @property
    def decimals(self) -> int:
        """Decimal places (negative: tens, hundreds, …) that distinguish twentieths of the scale."""
        span = abs(self.dark - self.bright) or abs(self.bright) / 10 or 1.0
        return max(-300, min(math.ceil(math.log10(_RESOLUTION) - math.log10(span) - 1e-9), 300))

    def written(self, value: float, extra: int = 0) -> str:
        """Write `value` with the digits that resolve the scale, and `extra` ones."""
        decimals = self.decimals + extra
        if 0 <= decimals <= 6:
            return f"{value:.{decimals}f}"
        leading = math.floor(math.log10(abs(value))) + 1 if value else 1
        return short_decimal(value, min(max(leading + decimals, 1), 15))


def _limit(values: Float) -> float:
    """Return the largest magnitude that is not absurd beside the others."""
    typical = float(np.sort(np.abs(values))[3 * (len(values) - 1) // 4])
    return _ABSURD * typical if typical else math.inf


def _reach(values: Float) -> float:
    """Return how far the ramp reaches from the best of one surface's values, lower being better."""
    ordered = np.sort(values)
    near = float(ordered[min(max(3, len(ordered) // 4), len(ordered) - 1)] - ordered[0])
    reach = _CONTRAST * (median(ordered) - float(ordered[0]))
    return min(reach, _ABSURD * near) if near else reach  # more than half may be absurdly bad


@dataclass(frozen=True, slots=True)
class Numbers:
    """The number format of cells, in `room` characters: values, or small units counted from the best."""

    room: int
    decimals: int
    origin: float | None = None  # of relative numbers: the value written as 0
    direction: Direction = Direction.MINIMIZE  # below the origin, where higher is better

    @classmethod
    def absolute(cls, scale: Scale) -> Numbers | None:
        """Write values themselves, in 4 to 6 characters that resolve the basin; None if it takes more."""
        decimals, ends = max(scale.decimals, 0), (scale.bright, scale.dark)
        room = max(4, *(len(fit_number(value, decimals, 999)) for value in ends))
        while len(fit_number(scale.bright, decimals + 1, 999)) <= room:
            decimals += 1  # larger numbers drop decimals by themselves
        return cls(room, decimals) if room <= 6 else None

    @classmethod
    def relative(cls, scale: Scale) -> Numbers:
        """Write whole units of a power of ten, counted from the best value, in 3 characters."""
        return cls(3, scale.decimals, scale.bright, scale.direction)

    def text(self, value: float) -> str:
        """Write the number of one cell; `<` or `>` if it has no room."""
        if self.origin is None:
            text = fit_number(value, self.decimals, self.room)
            return "<" if text == ">" and value < 0 else text
        sign = -1.0 if self.direction is Direction.MAXIMIZE else 1.0
        units = sign * (value - self.origin) * 10.0**self.decimals
        if not math.isfinite(units):
            return "<" if units < 0 else ">"
        text = fit_number(abs(units) if abs(units) < 0.5 else units, 0, self.room)
        return "<" if text == ">" and units < 0 else text

    def meaning(self, metric: str, scale: Scale, glyphs: Glyphs) -> str:
        """Explain the numbers, for the legend."""
        if self.origin is None:
            return f"numbers: {metric}"
        power = f"1e{-self.decimals}" if glyphs.ascii else "10" + superscript(str(-self.decimals))
        unit = f" in units of {power}" if self.decimals else ""
        origin = scale.written(self.origin, 1)
        if not scale.clipped_bright:
            origin = f"the {scale.brightest} ({origin})"
        return f"numbers: {metric} {scale.beyond[1]} {origin}{unit}"


_TOP = 10  # the paper's black circles


class Mark(StrEnum):
    """The status of a tile; if several apply, the first in this order is drawn."""

    NONE = "none"
    BEST = "best"
    TOP = "top"  # one of the ten best
    PARTIAL = "partial"  # the mean of some of its seeds; the others are missing
    DIVERGED = "diverged"
    FAILED = "failed"
    MISSING = "missing"


class Ridge(StrEnum):
    """The part of a tile in the ridge: its row's best λ, of a row that carries the ridge slope or not."""

    NONE = "none"
    CARRIES = "ridge"
    APART = "ridge_apart"


_LOST = {CellStatus.DIVERGED: Mark.DIVERGED, CellStatus.FAILED: Mark.FAILED}
_order = list(Mark).index


@dataclass(frozen=True, slots=True)
class Tile:
    """One drawn cell: the best of the lattice cells that it represents."""

    value: float | None  # None if there is none to show
    mark: Mark = Mark.NONE
    ridge: Ridge = Ridge.NONE

    @property
    def best_of_row(self) -> bool:
        """True if the tile holds its row's best λ."""
        return self.ridge is not Ridge.NONE

    def colour(self, scale: Scale | None) -> Rgb | None:
        """Return the colour of its value, greyer if seeds are missing; None without a value."""
        if self.value is None or scale is None:
            return None
        rgb = colour(scale.goodness(self.value))
        return dimmed(rgb) if self.mark is Mark.PARTIAL else rgb


@dataclass(frozen=True, slots=True)
class Tiles:
    """A drawn lattice, the largest α on top."""

    rows: tuple[tuple[Tile, ...], ...]
    row_values: tuple[float, ...]  # the α that labels each row
    column_values: tuple[float, ...]
    baseline: bool  # the first column is λ = 0

    @classmethod
    def of(
        cls,
        surface: Surface,
        separability: Separability | None = None,
        *,
        pool: tuple[int, int] = (1, 1),
        ranked: bool = True,
    ) -> Tiles:
        """Tile `surface`, pooling `pool` = (rows, columns) cells into one; λ = 0 is never pooled.

        Good cells and the rows' best are marked if values are `ranked`, that is, one end is better. A cell
        that lacks some of its seeds is drawn without a rank. Ties go to the smaller index.
        """
        values, partial, counts = surface.mean_so_far, surface.partial, surface.inside
        height = surface.minimized().mean_so_far  # lower is better
        rank = np.where(counts, height, np.inf)
        marks: dict[tuple[int, int], Mark] = {}
        if ranked:
            order = np.argsort(rank, axis=None, kind="stable")[: min(int(counts.sum()), _TOP)]
            best = [divmod(int(k), rank.shape[1]) for k in order]
            marks = dict.fromkeys(best, Mark.TOP) if counts.sum() > _TOP else {}
            marks |= dict.fromkeys(best[:1], Mark.BEST)

        def tile(rows: Sequence[int], columns: Sequence[int]) -> Tile:
            """Show the best value of a block, else one that does not count, else the block's status."""
            block = [(i, j) for i in rows for j in columns]
            known = [cell for cell in block if np.isfinite(values[cell])]
            if not known:
                lost = (_LOST.get(surface.status(*cell), Mark.MISSING) for cell in block)
                return Tile(None, min(lost, key=_order))
            cell = min(known, key=lambda cell: (rank[cell], height[cell]))
            found = [marks[cell] for cell in block if cell in marks]
            unmarked = Mark.PARTIAL if partial[cell] else Mark.NONE
            return Tile(float(values[cell]), min(found, key=_order, default=unmarked))

        baseline = bool(surface.weight_decay[0] == 0)
        row_groups = _groups(len(surface.lr), pool[0])[::-1]
        column_groups = _groups(len(surface.weight_decay), pool[1], int(baseline))
        carrying = {i for i, _ in separability.ridge} if separability else set(range(len(surface.lr)))
        drawn = []
        for group in row_groups:
            tiles = [tile(group, columns) for columns in column_groups]
            scores = [rank[np.ix_(group, columns)].min() for columns in column_groups[baseline:]]
            if ranked and len(scores) > 1 and np.isfinite(min(scores)):
                place = int(np.argmin(scores)) + baseline
                ridge = Ridge.CARRIES if carrying & set(group) else Ridge.APART
                tiles[place] = replace(tiles[place], ridge=ridge)
            drawn.append(tuple(tiles))
        return cls(
            tuple(drawn),
            tuple(float(surface.lr[group[0]]) for group in row_groups),
            tuple(float(surface.weight_decay[columns[0]]) for columns in column_groups),
            baseline,
        )

    @property
    def every(self) -> list[Tile]:
        """All tiles, row by row."""
        return [tile for row in self.rows for tile in row]


def _groups(count: int, size: int, single: int = 0) -> list[list[int]]:
    """Group the indices below `count` by `size`; the first `single` of them are groups of one."""
    every = list(range(count))
    return [[k] for k in every[:single]] + [every[k : k + size] for k in range(single, count, size)]


def ridge_runs(ridge: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Split the ridge, (row, log₂ λ*) by rising row, into runs of neighbouring rows."""
    runs: list[list[tuple[int, float]]] = []
    for i, minimum in ridge:
        if runs and runs[-1][-1][0] == i - 1:
            runs[-1].append((i, minimum))
        else:
            runs.append([(i, minimum)])
    return runs


def seeds_of(surfaces: Sequence[Surface]) -> str:
    """Say what a cell's value averages, and if a higher one is better, as in `mean of 3 seeds`."""
    higher = ", higher is better" * (surfaces[0].direction is Direction.MAXIMIZE)
    counts = sorted({len(surface.seeds) for surface in surfaces})
    if any(surface.partial.any() for surface in surfaces):
        refined = any(surface.is_refined for surface in surfaces)
        return f"mean of {f'up to {counts[-1]} seeds' if refined else 'the seeds so far'}{higher}"
    return ("one seed" if counts == [1] else f"mean of {' or '.join(map(str, counts))} seeds") + higher


def runs_of(surfaces: Sequence[Surface]) -> str:
    """Say how many of the runs are done, as in `62 of 363 runs`."""
    done, every = (sum(part) for part in zip(*(surface.runs for surface in surfaces), strict=True))
    return f"{done} of {every} runs"


def lacking(surfaces: Sequence[Surface]) -> tuple[str, str]:
    """Say why cells lack some of their seeds, and why they lack all."""
    if any(surface.is_refined for surface in surfaces):
        return FEWER, NEVER
    return f"some seeds are missing ({runs_of(surfaces)})", "missing"
