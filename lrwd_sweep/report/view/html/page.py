"""The page: what every section says, handed to a template that escapes whatever it writes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from lrwd_sweep.report.gates import Outcome
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view.fields import (
    Row,
    best_rows,
    candidate_rows,
    comparison_rows,
    lattice_value,
    separability_rows,
    task_text,
    title,
)
from lrwd_sweep.report.view.html.curves import Curves, curves
from lrwd_sweep.report.view.html.lattice import Drawing
from lrwd_sweep.report.view.html.legend import Legend, metrics_of, numbers_of, scale_of
from lrwd_sweep.report.view.html.shown import Shown
from lrwd_sweep.report.view.html.slopes import SlopeAxis
from lrwd_sweep.report.view.notation import short_decimal
from lrwd_sweep.report.view.outcomes import OUTCOME_HEAD, outcome_rows
from lrwd_sweep.report.view.pictures import Picture
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.spec.study import Kind

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_RAISED = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹][⁻⁰¹²³⁴⁵⁶⁷⁸⁹·]*")
_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹·", "−0123456789.")


def html(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    outcomes: Sequence[Outcome] = (),
    shown: Sequence[Picture] = (),
) -> str:
    """The whole report as one file without any reference to another; the same input gives the same text.

    Learning curves are in it where the results' trials carry them, and further pictures that are to be shown.
    """
    templates = environment()
    style, script = (templates.get_template(name).render() for name in ("style.css", "script.js"))
    return templates.get_template("page.html").render(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        studies=_studies(results),
        legends=[Legend.of(metric, results) for metric in metrics_of(results)],
        slopes=SlopeAxis.of(results),
        gates=outcome_rows(outcomes, results),
        gate_headings=OUTCOME_HEAD,
        advised=[(title(result, results), result, recommendations(result, results)) for result in results],
        best=best_rows(results),
        separability=separability_rows(results),
        shown=[Shown.of(picture) for picture in shown],
        comparisons=[_Comparison.of(compared, results) for compared in comparisons],
        paired=_side_by_side([comparison_rows(compared) for compared in comparisons]),
    )


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Templates of this package, everything escaped that is not marked as markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("lrwd_sweep.report.view.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "plain": plain,
        "plain_lines": _plain_lines,
        "raised": raised,
        "raised_svg": raised_svg,
        "px": _px,
        "lattice_value": lattice_value,
        "decimal": short_decimal,
    }
    return made


def _hash(text: str) -> str:
    """What a content security policy knows an inline style or script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _px(value: float) -> str:
    """A length in as few characters as it takes."""
    return f"{value:.1f}".removesuffix(".0")


def _plain_lines(text: str) -> str:
    """`text` made harmless line by line."""
    return "\n".join(map(plain, text.split("\n")))


def raised(text: str) -> Markup:
    """`text`, made harmless, with its exponents as real superscripts."""
    return _with_exponents(text, "<sup>", "</sup>")


def raised_svg(text: str) -> Markup:
    """The same inside an SVG text, which ends with its exponent."""
    return _with_exponents(text, '<tspan class="exponent" dy="-4">', "</tspan>")


def _with_exponents(text: str, begin: str, end: str) -> Markup:
    from markupsafe import Markup, escape

    harmless = str(escape(plain(text)))
    return Markup(_RAISED.sub(lambda found: f"{begin}{found[0].translate(_LOWERED)}{end}", harmless))


@dataclass(frozen=True, slots=True)
class _Study:
    """One study's section."""

    result: Result
    title: str
    task: str
    drawing: Drawing
    curves: Curves | None
    candidates: list[Row]  # of a search, whose best points lie between the cells

    @property
    def data(self) -> str:
        """The curves for the script: digits and punctuation alone, harmless inside a script element."""
        return json.dumps(self.curves.data if self.curves else {}, separators=(",", ":"))


def _studies(results: Sequence[Result]) -> list[_Study]:
    scales = {metric: scale_of(metric, results) for metric in metrics_of(results)}
    return [
        _Study(
            result,
            title(result, results),
            task_text(result),
            Drawing.of(result, scale := scales[result.surface.metric], numbers_of(scale)),
            drawn,
            candidate_rows(result) if result.spec.kind is Kind.TPE else [],
        )
        for result, drawn in zip(results, curves(results), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One study against another."""

    title: str
    verdict: str

    @classmethod
    def of(cls, compared: ComparedResults, among: Sequence[Result]) -> _Comparison:
        a, b = title(compared.a, among), title(compared.b, among)
        return cls(f"{b} against {a}", compared.comparison.verdict)


def _side_by_side(tables: Sequence[Sequence[Row]]) -> list[Row]:
    """Tables of the same labels as one, the entries of each in columns of their own."""
    return [(rows[0][0], *(entry for row in rows for entry in row[1:])) for rows in zip(*tables, strict=True)]
