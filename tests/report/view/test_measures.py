"""Every number of the analysis is in the tables, and html and markdown begin with the answer."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from typing import Any

import numpy as np

from lrwd_sweep.report.answer import answer
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.report.view.html_page import SlopeAxis
from lrwd_sweep.report.view.tables import separability_rows
from lrwd_sweep.science.separability import Contrast, Estimate, LrSensitivity, SequentialRegret, Verdict
from tests.report.view.examples import labelled, lost
from tests.report.view.examples import study as small
from tests.studies import study


def having(**found: Any) -> Result:
    return replace(study(), separability=replace(study().separability, **found))


def rows(*results: Result) -> dict[str, list[str]]:
    return {label.strip(): entries for label, *entries in separability_rows(results)}


def test_rows_hold_what_the_analysis_found() -> None:
    regret = SequentialRegret("lr", Estimate(0.01, reason="no interval below four seeds"), None, 0, False)
    none = Estimate(None, reason="the value at initialisation is not known")
    several = having(
        bow=Estimate(4.2, 3, 5.4),
        allowed=(Verdict.SEPARABLE, Verdict.COUPLED),
        seeds_to_settle=9,
        windowed=True,
        three_cell_slope=Estimate(-0.5, -0.6, -0.4),
        sequential_regret=(regret,),
        lr_sensitivity=LrSensitivity(Estimate(0.1), none, none),
        expected_best=Estimate(0.12, 0.11, 0.13),
        contrast=Contrast(Estimate(0.0019, 0.0014, 0.0023), (0, 6), (0, 6), (3.321, 6.0)),
    )
    found = rows(several, study())
    for label, first in (
        ("margin", "±0.25: λ* moves by at most 1.5 octaves"),
        ("its interval allows", "separable or coupled; about 9 seeds would tell"),
        ("of three-cell minima", "−0.50 [−0.60, −0.40]"),
        ("bow of the ridge, octaves", "4.20 [3.00, 5.40]"),
        ("interaction contrast", "0.00190 [0.00140, 0.00230] over 3.3 × 6 octaves"),
        ("tuning one at a time, α first", "0.0100 (no interval below four seeds)"),
        ("tuning one at a time, λ first", "–"),
        ("a wrong α, λ kept", "– (the value at initialisation is not known)"),
        ("λ retuned", "0.100"),
        ("best value, new seeds", "0.120 [0.110, 0.130]"),
    ):
        assert found[label][0] == first, label
    assert found["of three-cell minima"][1] == found["interaction contrast"][1] == "–"
    steps = 1 / 2.0**-4  # the ridge of the bowl is at λ = 2⁻⁴, where a run has 60 epochs of 6 steps
    (tau,) = re.findall(
        r"^([\d.]+).* steps, ([\d.]+).* epochs, ([\d.]+).* of the run", found["τ* of the ridge, η = 1"][1]
    )
    assert np.allclose([float(x) for x in tau], [steps, steps / 6, steps / 360], rtol=0.05)
    assert rows(labelled())["τ* of the ridge, η = 1"] == ["–"]  # an import has no task
    assert not any("undetermined: " in entry for entries in rows(lost()).values() for entry in entries)
    assert "a search's best point is no cell" not in str(rows(small(kind=small().spec.kind)))


def test_html_and_markdown_begin_with_the_answer_of_the_terminal() -> None:
    bent = having(bow=Estimate(4.2, 3, 5.4))
    lines = answer([bent])
    assert any("the ridge bends by 4 octaves" in part for part in lines[0].parts)
    page = text_of(render([bent], [], Format.HTML))
    head = html.unescape(page[page.index("<body>") : page.index("<main>")])
    text = text_of(render([bent], [], Format.MARKDOWN))
    first = re.sub(r"\\(.)", r"\1", text[: text.index("\n## ")])
    for line in lines:
        for part in [*line.parts[:3], line.code_line]:
            assert part in head, part
            assert part in first, part


def test_bands_of_the_page_are_those_of_the_margin() -> None:
    axis = SlopeAxis.of([having(margin=0.5)])
    (start, width, _), (other, same, _) = axis.bands
    assert np.allclose([start, start + width], [axis.place(-0.5), axis.place(0.5)])
    assert np.allclose([other, other + same], [axis.place(-1.5), axis.place(-0.5)])
    assert "<i>m</i> = 0.5." in text_of(render([having(margin=0.5)], [], Format.HTML))
