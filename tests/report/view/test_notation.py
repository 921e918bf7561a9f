"""Text of every kind has a harmless, a Unicode and an ASCII form, in every format."""

import csv
import io
import json
import re
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from xml.etree import ElementTree as ET

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lrwd_sweep.report.gates import EarlierReport, MaxBest, MaxRegression, Require
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.view import Format, notation, notebook_html, render, text_of
from lrwd_sweep.report.view.lane_table import spreadsheet_text
from lrwd_sweep.report.view.paper_figure import LogAxis
from lrwd_sweep.report.view.terminal import Report
from lrwd_sweep.science.optimizer import DecayRule, Optimizer, optimizer_names
from lrwd_sweep.science.separability import Verdict
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.study import Kind
from lrwd_sweep.store.imports import to_study
from tests.report.view.examples import HOSTILE, harmful, labelled, measured
from tests.report.view.examples import study as study_of
from tests.store.sample import read_sweep
from tests.studies import study, without


@given(st.text())
def test_any_text_has_a_harmless_and_an_ascii_form(text: str) -> None:
    assert notation.to_ascii(text).isascii()
    assert notation.ascii_formula(text).isascii()
    harmless = notation.plain(text)
    assert (harmful(harmless), "\n" in harmless, notation.plain(harmless)) == (set(), False, harmless)
    assert not spreadsheet_text(text).lstrip().startswith(tuple("=+-@"))
    assert "\\x1b]0;gone\\x07[/x]" in notation.plain(HOSTILE)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 6), st.integers(3, 8))
def test_numbers_keep_to_their_room(value: float, decimals: int, room: int) -> None:
    assert 1 <= len(notation.fit_number(value, decimals, room)) <= room
    assert notation.fit_number(-0.0001, 2, 4) == ".00"  # without a minus
    if 1e-12 < abs(value) < 1e12:
        assert float(notation.short_decimal(abs(value))) == pytest.approx(abs(value), rel=5.1e-3)


def test_formulas_and_labels_have_both_forms_and_decimals_within_the_block_only() -> None:
    formula = "theta <- theta - eta*alpha*(proj(m_hat/(sqrt(v_hat)+eps)) + kappa*w*theta)"
    assert notation.ascii_formula(Optimizer.parse("adamp").formula) == formula
    for name in optimizer_names():
        assert "\\" not in notation.ascii_formula(Optimizer.parse(name + ":normalized").formula), name
    assert notation.axis_labels([0.1, 0.25, 0.0001], notation.UNICODE) == ["0.1", "0.25", "1e-4"]
    assert notation.axis_labels([0.0, 2**-7.5], notation.ASCII) == ["0", "2^-7.5"]
    assert notation.axis_labels([0.10001, 0.10002], notation.UNICODE) == ["0.10001", "0.10002"]
    found, power, decimal = study(), "2⁻⁷|2<sup>−7|2<tspan[^>]*>−7", "0.00781"  # a learning rate of the study
    for form in (Format.TABLE, Format.MARKDOWN, Format.HTML):
        powers = text_of(render([found], [], form))
        with notation.labelled_axes(notation.AxisStyle.DECIMAL):
            decimals = text_of(render([found], [], form))
        assert (re.search(power, powers) is None, re.search(power, decimals) is None) == (False, True), form
        assert decimals.count(decimal) > powers.count(decimal), form
        assert text_of(render([found], [], form)) == powers, form
    places, labels = LogAxis.of(found.surface.lr).ticks(decimal=True)
    assert (labels[0], places[0], len(labels) <= 6) == ("0.00195", -9, True)


NAMES = (
    "\x1b[31mred\x1b[0m \x1b]0;gone\x07 \x9b31m [/x] [link=http://a]b[/link] :boom:"
    " \u202eabc\u2066\u200f first\nsecond\r\n\n# third\u2028| b | \x00\x0b\ufffe \ud800",  # half a character
    " =cmd()",
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"' onmouseover='alert(1)"
    " {{ 7 * 7 }} {% raw %} ${x} ]]> --> </style> </script> &lt; &#60;",
    "`*_~~ [a](javascript:alert(1)) ![x](y) | @all #1 <!-- http://a.example $\\frac{ $ \\",
)


def labelled_in_all_parts(name: str) -> Result:
    """Return a study whose name, optimizer, metrics and details are all `name`."""
    found = without(study(), (0, 0, 0), status=Status.FAILED)
    found = without(found, (0, 1, 0), status=Status.DIVERGED)
    trials = [
        replace(t, metrics={name: v, f"{name}2": v} if (v := t.metrics.get("val_loss")) else {}, detail=name)
        for t in found.trials
    ]
    optimizer = Optimizer(None, DecayRule.LR_SCALED, name)
    spec = replace(found.spec, kind=Kind.IMPORT, optimizer=optimizer, metric=name, task=None)
    return replace(result(name, spec, name, trials), storage=name)


def imported(path: Path, name: str) -> Result:
    """Return the import of a file whose header names a metric `name` and whose details are `name`."""
    rows = [(0.1 * i, 0.01 * j, i + j, name, 7) for i, j in product((1, 2, 3), repeat=2)]
    with open(path, "w", encoding="utf-8", errors="replace", newline="") as file:
        csv.writer(file).writerows([("lr", "weight_decay", "value", "detail", name), *rows])
    sweep = read_sweep(path)
    return result(name, to_study(sweep, name, decay_rule="coupled").spec, "", list(sweep.trials))


def reported(name: str, found: Result) -> dict[Format, str]:
    results = [found, study(name="=ordinary")]
    gates = MaxBest(0.0), Require(Verdict.COUPLED), MaxRegression(0, EarlierReport(name, {}))
    outcomes = [gate.check(result) for result in results for gate in gates]
    return {form: text_of(render(results, [comparison(*results)], form, outcomes)) for form in Format}


@cache
def elements(text: str) -> set[tuple[str, frozenset[str]]]:
    tree = html5lib.parse(text, namespaceHTMLElements=False)
    return {(str(node.tag), frozenset(node.attrib)) for node in tree.iter()}


def check(form: Format, text: str, name: str, harmless: str) -> None:
    """Check a text as its format's reader reads it; `harmless` is that of a study with a harmless name."""
    assert not harmful(text)
    text.encode()
    match form:
        case Format.MARKDOWN:
            parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
            found = [token for block in parser.parse(text) for token in (block, *(block.children or ()))]
            assert not {t.type for t in found} & {"html_block", "link_open", "image", "s_open", "em_open"}
            assert {t.content for t in found if t.type == "html_inline"} <= {"<!-- -->"}
            assert "@all" not in " ".join(t.content for t in found if t.type == "text")  # outside of code
        case Format.JSON:
            assert text.isascii()
            assert json.loads(text)["studies"][0]["study_name"] == name
        case Format.CSV:
            for field in (field for row in csv.reader(io.StringIO(text)) for field in row):
                assert not field.lstrip().startswith(("=", "+", "-", "@")) or float(field) is not None
        case Format.JUNIT:
            tags = {"testsuites", "testsuite", "testcase", "failure", "system-out"}
            assert {element.tag for element in ET.fromstring(text).iter()} <= tags
        case Format.HTML:
            assert elements(text) == elements(harmless)
            assert "{{ 7 * 7 }}" in text or "{{" not in name


def test_hostile_names_and_files_are_harmless_in_every_view(tmp_path: Path) -> None:
    for make in (labelled_in_all_parts, partial(imported, tmp_path / "sweep.csv")):
        harmless = reported("harmless", make("harmless"))
        for name in NAMES:
            for form, text in reported(name, make(name)).items():
                check(form, text, name, harmless[form])
    found = [measured(HOSTILE), measured(f"{HOSTILE}2"), labelled()]
    for form in (Format.TABLE, Format.MARKDOWN, Format.HTML):
        assert not harmful(text_of(render(found, [], form, show=["norm", "scatter", "projection"]))), form
    notebook = notebook_html(Report([*found, study_of("</pre><script>alert(1)</script>")], full=True))
    assert (harmful(notebook), "url(" in notebook) == (set(), False)
    assert {tag for tag, _ in elements(notebook)} == {"html", "head", "body", "pre", "span"}
    for kind in Kind:
        each = labelled() if kind is Kind.IMPORT else study_of(HOSTILE, kind=kind)
        assert all(given.command is None for given in recommendations(each).next), kind
