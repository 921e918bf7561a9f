"""The report as one HTML file that loads nothing, works offline and is readable without its script.

Lattices and the axis of slopes are laid out here, in pixels, and drawn by the templates as SVG.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lrwd_sweep.report.answer import answer
from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import ComparedResults, Result, at_cap
from lrwd_sweep.report.view import ci, tables
from lrwd_sweep.report.view.line_chart import MARKS, SIZE
from lrwd_sweep.report.view.notation import (
    FEWER,
    NEVER,
    RAISED,
    UNICODE,
    axis_labels,
    decay_labels,
    decay_symbol,
    estimate_text,
    lattice_value,
    plain,
    short_decimal,
    with_error,
)
from lrwd_sweep.report.view.pictures import Picture, learning_curves
from lrwd_sweep.report.view.scaled_report import LAW, WORDS, exponent_text, law_panels, rule_head
from lrwd_sweep.report.view.tables import title
from lrwd_sweep.report.view.tiles import (
    Mark,
    Rgb,
    Ridge,
    Scale,
    Tile,
    Tiles,
    colour,
    lacking,
    ridge_runs,
    seeds_of,
    text_on,
)

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from lrwd_sweep.report.scaled import Scaled

Drawing = dict[str, Any]  # what a macro of the templates reads

_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹·", "−0123456789.")
_FARTHEST = 4.0  # slopes beyond are drawn at the rim of the slope axis
_WIDTH, _MARGIN = 360, 10  # pixels of that axis; of these, at both ends, for half a label
_MOST_NUMBERED = 16  # columns; with more, squares are too small for a number
_NUMBERED = (44, 28)  # width and height of a square with a number in it
_WIDEST = 560  # of all squares without numbers together
_SMALLEST, _LARGEST = 6, 24  # side of a square without a number
_GAP = 8  # sets the baseline column λ = 0 apart
_TOP = 4  # above the first row
_LETTER, _LINE = 6.6, 14  # size of a label's letter
_RAMP = 17  # colours along the legend's ramp
_NOTES: dict[Mark | Ridge, str] = {
    Mark.BEST: "the best cell",
    Mark.TOP: "one of the ten best",
    Ridge.CARRIES: "best of its row",
    Ridge.APART: "best of its row, not in the slope",
}


def html(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    outcomes: Sequence[GateOutcome] = (),
    shown: Sequence[Picture] = (),
) -> str:
    """Write the whole report, and further pictures; the same input gives the same text.

    Learning curves are drawn for the results whose trials carry them.
    """
    titles = [title(result, results) for result in results]
    legends, lattices = lay_out(results, titles)
    paired = [tables.comparison_rows(compared) for compared in comparisons]
    return _filled(
        "page.html",
        answer=answer(results, comparisons),
        legends=legends,
        studies=list(zip(lattices, learning_curves(results), strict=True)),
        tasks=[tables.task_text(result) for result in results],
        # the best points of a search lie between the cells
        candidates=[tables.candidate_rows(each) if each.spec.is_search else [] for each in results],
        titles=titles,
        axis=slope_axis(results),
        slopes=[(result.separability, estimate_text(result.separability.ridge_slope)) for result in results],
        gate_headline=ci.gate_headline(outcomes, results),
        gates=ci.gate_rows(outcomes, results),
        gate_headings=ci.GATE_HEAD,
        recommended=[recommendations(result, results) for result in results],
        best=tables.best_rows(results),
        separability=tables.separability_rows(results),
        shown=[(picture, *_lattices(picture)) for picture in shown],
        comparisons=comparisons,
        compared=[f"{title(each.b, results)} against {title(each.a, results)}" for each in comparisons],
        paired=[(same[0][0], *(value for _, value in same)) for same in zip(*paired, strict=True)],
    )


def scaled_html(scaled: Scaled) -> str:
    """Write studies along a scale as a page without a script; the same input gives the same text."""
    labels = [scaled.over.label(value) for value in scaled.over.values]
    legends, lattices = lay_out(scaled.results, labels, numbered=False)
    return _filled(
        "scaled.html",
        scaled=scaled,
        labels=labels,
        panels=[(panel, exponent_text(panel.exponent)) for panel in law_panels(scaled)],
        rules=[name for name, *_ in scaled.rule_exponents()],
        optimum_heading=LAW.format(scaled.over.axis),
        rule_headings=rule_head(scaled),
        words=WORDS.format(scaled.margin),
        legends=legends,
        lattices=lattices,
        tasks=[tables.task_text(result) for result in scaled.results],
    )


def _filled(page: str, **content: Any) -> str:
    """Fill a page with style and script, and the hashes by which its content security policy allows them."""
    templates = _environment()
    for name in ("style.css", "script.js"):
        kind, text = name.split(".")[0], templates.get_template(name).render()
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        content |= {kind: text, f"{kind}_hash": f"sha256-{digest}"}
    return templates.get_template(page).render(content)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """Load this package's templates, which escape everything that is not marked as markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("lrwd_sweep.report.view"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {"MARKS": MARKS, "SIZE": SIZE}
    made.filters |= {
        "plain": plain,
        "plain_lines": lambda text: "\n".join(map(plain, text.split("\n"))),
        "raised": raised,
        "raised_svg": lambda text: raised(text, '<tspan class="exponent" dy="-4">', "</tspan>"),
        "px": lambda length: f"{length:.1f}".removesuffix(".0"),
        "lattice_value": lattice_value,
        "decimal": short_decimal,
    }
    return made


def raised(text: str, begin: str = "<sup>", end: str = "</sup>") -> Markup:
    """Make `text` harmless, with exponents as superscripts."""
    from markupsafe import Markup, escape

    harmless = str(escape(plain(text)))
    return Markup(RAISED.sub(lambda found: f"{begin}{found[0].translate(_LOWERED)}{end}", harmless))


def slope_axis(results: Sequence[Result]) -> Drawing:
    """Lay out the axis of ridge slopes, −1.5 to 0.5 or as far as intervals reach, and the verdicts' bands."""
    found = [result.separability.ridge_slope for result in results]
    known = [x for s in found for x in (s.value, s.low, s.high) if x is not None]
    low = max(math.floor(2 * min([-1.5, *known])) / 2, -_FARTHEST)
    high = min(math.ceil(2 * max([0.5, *known])) / 2, _FARTHEST)
    margin, pixels = results[0].separability.margin, (_WIDTH - 2 * _MARGIN) / (high - low)

    def place(slope: float) -> float:
        """Return the pixels along the axis; a slope beyond an end lies there."""
        reach = min(max(slope, low), high) - low
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * reach / (high - low)

    return {
        "width": _WIDTH,
        "margin": margin,
        "place": place,
        "bands": [  # start, width and verdict
            (_MARGIN + (middle - margin - low) * pixels, 2 * margin * pixels, name)
            for middle, name in ((0, "separable"), (-1, "product-coupled"))
        ],
        "ticks": [  # whole slopes
            (place(slope), str(slope).replace("-", "−"))
            for slope in range(math.ceil(low), math.floor(high) + 1)
        ],
    }


def _lattices(picture: Picture) -> tuple[list[Drawing], list[Drawing]]:
    """Lay out the heatmaps of a further picture."""
    results = [
        replace(result, surface=heatmap.surface, separability=heatmap.separability or result.separability)
        for result, heatmap in picture.heatmaps
    ]
    heatmaps = [heatmap for _, heatmap in picture.heatmaps]
    titles, ranked = [heatmap.title for heatmap in heatmaps], all(heatmap.ranked for heatmap in heatmaps)
    return lay_out(results, titles, ranked=ranked)


def lay_out(
    results: Sequence[Result], titles: Sequence[str], *, ranked: bool = True, numbered: bool = True
) -> tuple[list[Drawing], list[Drawing]]:
    """Lay out legends and lattices, those of one metric on one scale with one legend.

    Squares hold numbers if `numbered`, and if they are large enough. Cells are marked and the ridge is drawn
    only if values are `ranked`, that is, one end is better.
    """
    scales: dict[str, Scale | None] = {}
    legends = []
    for metric in dict.fromkeys(result.surface.metric for result in results):
        surfaces = [result.surface for result in results if result.surface.metric == metric]
        scales[metric] = scale = Scale.of(surfaces, ranked=ranked)
        is_partial = any(surface.partial.any() for surface in surfaces)
        legends.append(
            {
                "numbers": scale.numbers.meaning(metric, scale, UNICODE)
                if scale
                else f"{metric}: no cell has a value",
                "seeds": seeds_of(surfaces),
                "colours": [_hexadecimal(colour(1 - k / (_RAMP - 1))) for k in range(_RAMP)] if scale else [],
                "ends": scale.ends if scale else ("", ""),
                "partial": lacking(surfaces)[0] if is_partial else "",
            }
        )
    return legends, [
        _lattice(result, title, scales[result.surface.metric], ranked=ranked, numbered=numbered)
        for result, title in zip(results, titles, strict=True)
    ]


def _hexadecimal(rgb: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _lattice(result: Result, title: str, scale: Scale | None, *, ranked: bool, numbered: bool) -> Drawing:
    """Lay out one lattice; α grows upward, λ to the right."""
    surface = result.surface
    rows = axis_labels(surface.lr.tolist(), UNICODE)
    columns = decay_labels(surface, surface.weight_decay.tolist(), UNICODE)
    zeros, numbered = int(surface.weight_decay[0] == 0), numbered and len(columns) <= _MOST_NUMBERED
    side = float(min(max(_WIDEST // len(columns), _SMALLEST), _LARGEST))
    width, height = _NUMBERED if numbered else (side, side)
    left, bottom = max(map(len, rows)) * _LETTER + 28, _TOP + len(rows) * height
    x = [left + j * width + (_GAP * zeros if j else 0) for j in range(len(columns))]
    y = [_TOP + (len(rows) - 1 - i) * height for i in range(len(rows))]
    stride = math.ceil((max(map(len, columns)) * _LETTER + 4) / width)
    labelled = [*range(zeros), *range(zeros * stride, len(columns), stride)]
    tiles = Tiles.of(surface, result.separability, ranked=ranked)
    return {
        "result": result,
        "title": title,
        "symbol": decay_symbol(surface),
        "row_names": rows,
        "column_names": columns,
        "numbered": numbered,
        "size": (width, height),
        "left": left,
        "bottom": bottom,
        "width": x[-1] + width + 4,
        "height": bottom + 2 * _LINE + 10,
        "row_labels": [  # that fit above each other
            (left - 6, y[i] + height / 2 + 4, rows[i]) for i in range(0, len(rows), math.ceil(_LINE / height))
        ],
        "column_labels": [(x[j] + width / 2, bottom + _LINE, columns[j]) for j in labelled],
        "squares": [
            _square(result, (i, j), tile, scale, numbered) | {"x": x[j], "y": y[i]}
            for i, row in zip(reversed(range(len(rows))), tiles.rows, strict=True)
            for j, tile in enumerate(row)
        ],
        "ridge": list(_ridge(result, [at + width / 2 for at in x[zeros:]], y, height)) if ranked else [],
    }


def _square(
    result: Result, cell: tuple[int, int], tile: Tile, scale: Scale | None, numbered: bool
) -> Drawing:
    """Describe one cell: `text` is its number or sign if the square has room for one."""
    rgb = tile.colour(scale)
    if tile.value is None:
        value = UNICODE.sign(tile.mark)
    else:
        value = scale.numbers.text(tile.value) if scale else ""
        value += UNICODE.partial * (tile.mark is Mark.PARTIAL)
    return {
        "row": cell[0],
        "column": cell[1],
        "colour": "" if rgb is None else _hexadecimal(rgb),
        "light_ink": rgb is not None and text_on(rgb) != (0, 0, 0),
        "text": value if numbered or tile.value is None else "",
        "value": value,
        "mark": tile.mark,
        "best_of_row": tile.best_of_row,
        "reading": _reading(result, *cell, tile),
    }


def _reading(result: Result, i: int, j: int, tile: Tile) -> str:
    """Write all that is known about a cell in three lines: place, value with marks, every seed."""
    surface = result.surface
    why = None if result.refinement is None else result.refinement.left.get((i, j))
    if tile.value is None:
        value = str(surface.status(i, j))
    else:
        sem = float(surface.sem[i, j])
        written = with_error(tile.value, sem if math.isfinite(sem) else None)
        value = f"{plain(surface.metric)} {written}"
    notes = [
        _NOTES.get(tile.mark, ""),
        _NOTES.get(tile.ridge, ""),
        f"does not count: {at_cap(result, surface)}" if tile.value is not None and surface.out[i, j] else "",
        (FEWER if surface.is_refined else "some seeds are missing") if tile.mark is Mark.PARTIAL else "",
        "" if why is None else f"{NEVER}: {tables.LEFT[why]}",
    ]
    seeds = ", ".join(
        f"{seed}: {short_decimal(float(value), 4) if math.isfinite(value) else lane}"
        for seed, value, lane in zip(surface.seeds, surface.values[i, j], surface.lanes[i, j], strict=True)
    )
    place = tables.place_text(result, surface.cell(i, j))
    return f"{place}\n{', '.join(filter(None, [value, *notes]))}\nseed {seeds}"


def _ridge(result: Result, x: Sequence[float], y: Sequence[float], height: float) -> Iterator[str]:
    """Yield polylines through (λ*, α), broken at rows that do not carry the slope; a single row is a bar.

    The places are those of the columns' centres and of the rows' upper sides.
    """
    log_decay = np.log2(result.surface.weight_decay[-len(x) :])
    for run in ridge_runs(result.separability.ridge):
        places = [(float(np.interp(minimum, log_decay, x)), y[i] + height / 2) for i, minimum in run]
        if len(places) == 1:
            ((at, middle),) = places
            places = [(at, middle + height / 2), (at, middle - height / 2)]
        yield " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
