"""The rule that is printed decides: where the noise test leaves a verdict open, every output says so."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from lrwd_sweep.report.gates import Require
from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.view.document import document
from lrwd_sweep.report.view.formats import Format
from lrwd_sweep.report.view.report import render
from lrwd_sweep.science.separability import Verdict
from tests import studies
from tests.report.view.examples import drawn


def indifferent(name: str = "mine", seeds: int = 3) -> Result:
    """A study in which α matters and λ does not."""
    found = studies.study(lambda a, b: 0.1 + 0.01 * a**2, name, seeds=seeds)
    random = np.random.default_rng(0)
    trials = [
        replace(t, metrics={"val_loss": t.metrics["val_loss"] + 1e-3 * random.normal()}) for t in found.trials
    ]
    return result(name, found.spec, "", trials)


def said(found: Result) -> str:
    """F with its degrees of freedom and what is needed."""
    test = found.separability.noise_test
    assert test is not None
    assert not test.passed
    assert test.text == (
        f"F(42, 84) = {test.f:.2f}, of ranks {test.f_of_ranks:.2f}, {test.needed:.2f} needed"
    )
    return f"λ has no measurable effect within rows: {test.text}"


@pytest.mark.parametrize("form", [Format.TABLE, Format.MARKDOWN, Format.JSON, Format.HTML, Format.JUNIT])
def test_every_format_says_why_a_verdict_is_undetermined(form: Format) -> None:
    found = indifferent()
    report = render([found], [], form, [])
    text = report if isinstance(report, str) else drawn(report, 200)
    if form is Format.JSON:
        text = json.dumps(json.loads(text), ensure_ascii=False)
    assert said(found) in " ".join(text.replace("\\_", "_").split())


def test_gate_that_requires_a_verdict_says_why_it_fails() -> None:
    found = indifferent()
    outcome = Require(Verdict.SEPARABLE).check(found)
    assert not outcome.passed
    assert said(found) in outcome.reason


def test_comparison_says_that_one_side_has_no_effect_of_decay() -> None:
    text = comparison(indifferent("a"), studies.study(name="b")).comparison.verdict
    first, second = text.split(" and b ")
    assert "is undetermined (ridge slope" in first
    assert first.endswith("; λ has no measurable effect within rows)")
    assert "is separable (ridge slope 0.00);" in second


@pytest.mark.parametrize(("seeds", "passed"), [(1, None), (3, False)])
def test_document_holds_the_test(seeds: int, passed: bool | None) -> None:
    found = document([indifferent(seeds=seeds)])["studies"][0]["separability"]
    test = found["noise_test"]
    if passed is None:
        assert test is None
    else:
        assert test["freedom"] == [42, 84]
        assert max(test["f"], test["f_of_ranks"]) < test["needed"]
        assert test["passed"] is passed
        assert found["verdict"] == "undetermined"


def test_html_states_both_conditions_of_the_verdict() -> None:
    text = str(render([indifferent()], [], Format.HTML, []))
    assert "Two conditions, and nothing else, decide." in text
    assert "an <i>f</i> test" in text.lower()
