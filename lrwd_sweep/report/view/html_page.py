"""The report as one HTML file that loads nothing, works offline and is readable without its script."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from lrwd_sweep.report.answer import answer
from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view.fields import (
    GATE_HEAD,
    Row,
    best_rows,
    candidate_rows,
    comparison_rows,
    estimate_text,
    gate_headline,
    gate_rows,
    lattice_value,
    task_text,
    title,
)
from lrwd_sweep.report.view.line_chart import MARKS, SIZE
from lrwd_sweep.report.view.measures import separability_rows
from lrwd_sweep.report.view.notation import RAISED, plain, short_decimal
from lrwd_sweep.report.view.pictures import Picture
from lrwd_sweep.report.view.scaled_report import LAW, WORDS, exponent_text, law_panels, rule_head
from lrwd_sweep.report.view.svg import SvgLattice, SvgLegend, lay_out, svg_curves

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from lrwd_sweep.report.scaled import Scaled

_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹·", "−0123456789.")
_FARTHEST = 4.0  # slopes beyond are drawn at the rim of the slope axis
_WIDTH, _MARGIN = 360, 10  # pixels of that axis; of these, at both ends, for half a label


def html(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    outcomes: Sequence[GateOutcome] = (),
    shown: Sequence[Picture] = (),
) -> str:
    """Write the whole report, and further pictures; the same input gives the same text.

    Learning curves are drawn for the results whose trials carry them.
    """
    templates = _environment()
    style, script = (templates.get_template(name).render() for name in ("style.css", "script.js"))
    titles = [title(result, results) for result in results]
    legends, lattices = lay_out(results, titles)
    return templates.get_template("page.html").render(
        answer=answer(results, comparisons),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        legends=legends,
        studies=list(zip(lattices, svg_curves(results), strict=True)),
        tasks=[task_text(result) for result in results],
        # the best points of a search lie between the cells
        candidates=[candidate_rows(each) if each.spec.is_search else [] for each in results],
        titles=titles,
        axis=SlopeAxis.of(results),
        slopes=[(result.separability, estimate_text(result.separability.ridge_slope)) for result in results],
        gate_headline=gate_headline(outcomes, results),
        gates=gate_rows(outcomes, results),
        gate_headings=GATE_HEAD,
        recommended=[recommendations(result, results) for result in results],
        best=best_rows(results),
        separability=separability_rows(results),
        shown=[(picture, *_lattices(picture)) for picture in shown],
        comparisons=comparisons,
        compared=[f"{title(each.b, results)} against {title(each.a, results)}" for each in comparisons],
        paired=_side_by_side([comparison_rows(compared) for compared in comparisons]),
    )


def scaled_html(scaled: Scaled) -> str:
    """Write studies along a scale as a page without a script; the same input gives the same text."""
    templates = _environment()
    style = templates.get_template("style.css").render()
    labels = [scaled.over.label(value) for value in scaled.over.values]
    legends, lattices = lay_out(scaled.results, labels, numbered=False)
    panels = law_panels(scaled)
    return templates.get_template("scaled.html").render(
        scaled=scaled,
        style=style,
        style_hash=_hash(style),
        labels=labels,
        panels=[(panel, exponent_text(panel.exponent)) for panel in panels],
        rules=[name for name, *_ in scaled.rule_exponents()],
        optimum_heading=LAW.format(scaled.over.axis),
        rule_headings=rule_head(scaled),
        words=WORDS.format(scaled.margin),
        legends=legends,
        lattices=lattices,
        tasks=[task_text(result) for result in scaled.results],
    )


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
        "raised_svg": lambda text: _with_exponents(text, '<tspan class="exponent" dy="-4">', "</tspan>"),
        "px": lambda length: f"{length:.1f}".removesuffix(".0"),
        "lattice_value": lattice_value,
        "decimal": short_decimal,
    }
    return made


def _hash(text: str) -> str:
    """Return the hash by which a content security policy allows an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def raised(text: str) -> Markup:
    """Make `text` harmless, with exponents as superscripts."""
    return _with_exponents(text, "<sup>", "</sup>")


def _with_exponents(text: str, begin: str, end: str) -> Markup:
    from markupsafe import Markup, escape

    harmless = str(escape(plain(text)))
    return Markup(RAISED.sub(lambda found: f"{begin}{found[0].translate(_LOWERED)}{end}", harmless))


def _lattices(picture: Picture) -> tuple[list[SvgLegend], list[SvgLattice]]:
    """Lay out the heatmaps of a further picture."""
    results = [
        replace(result, surface=heatmap.surface, separability=heatmap.separability or result.separability)
        for result, heatmap in picture.heatmaps
    ]
    heatmaps = [heatmap for _, heatmap in picture.heatmaps]
    titles, ranked = [heatmap.title for heatmap in heatmaps], all(heatmap.ranked for heatmap in heatmaps)
    return lay_out(results, titles, ranked=ranked)


def _side_by_side(tables: Sequence[Sequence[Row]]) -> list[Row]:
    """Join tables of the same labels, the entries of each in columns of their own."""
    return [(rows[0][0], *(entry for row in rows for entry in row[1:])) for rows in zip(*tables, strict=True)]


@dataclass(frozen=True, slots=True)
class SlopeAxis:
    """The axis of ridge slopes, with the bands of the verdict."""

    low: float
    high: float
    margin: float  # of the verdicts
    width: int = _WIDTH

    @classmethod
    def of(cls, results: Sequence[Result]) -> SlopeAxis:
        """Span −1.5 to 0.5, or as far as the intervals reach."""
        found = [result.separability.ridge_slope for result in results]
        known = [x for s in found for x in (s.value, s.low, s.high) if x is not None]
        low = max(math.floor(2 * min([-1.5, *known])) / 2, -_FARTHEST)
        high = min(math.ceil(2 * max([0.5, *known])) / 2, _FARTHEST)
        return cls(low, high, results[0].separability.margin)

    def place(self, slope: float) -> float:
        """Return the pixels along the axis; a slope beyond an end lies there."""
        reach = min(max(slope, self.low), self.high) - self.low
        return _MARGIN + (_WIDTH - 2 * _MARGIN) * reach / (self.high - self.low)

    @property
    def bands(self) -> list[tuple[float, float, str]]:
        """The start, width and verdict of each band."""
        scale, m = (_WIDTH - 2 * _MARGIN) / (self.high - self.low), self.margin
        return [
            (_MARGIN + (middle - m - self.low) * scale, 2 * m * scale, name)
            for middle, name in ((0, "separable"), (-1, "product-coupled"))
        ]

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The places and labels of whole slopes."""
        slopes = range(math.ceil(self.low), math.floor(self.high) + 1)
        return [(self.place(slope), str(slope).replace("-", "−")) for slope in slopes]
