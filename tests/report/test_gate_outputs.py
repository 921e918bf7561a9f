"""Gates on tuning costs, and the headline of all gates in every format."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from lrwd_sweep.report.gates import (
    Gate,
    GateOutcome,
    MaxAbsSlope,
    MaxBest,
    MaxLrSensitivity,
    MaxSequentialRegret,
    NoEdge,
    Require,
)
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.report.view.ci import command, gate_headline
from lrwd_sweep.science.separability import Estimate, LrSensitivity, SequentialRegret, Verdict
from tests.report.view.examples import HOSTILE, labelled
from tests.studies import study


def having(**found: Any) -> Result:
    """Return a study of which some numbers are given."""
    return replace(study(), separability=replace(study().separability, **found))


def regrets(lr: float | None, decay: float | None, **other: Any) -> Result:
    each = {"start": None, "starts_out": 0, "in_sample": False} | other
    pairs = (("lr", lr), ("weight_decay", decay))
    return having(
        sequential_regret=tuple(
            SequentialRegret(first, Estimate(value, reason="" if value else "no cell"), **each)
            for first, value in pairs
        )
    )


def sensitive(kept: Estimate) -> Result:
    return having(lr_sensitivity=LrSensitivity(Estimate(0.1, 0.08, 0.12), kept, Estimate(0.1)))


def test_tuning_costs_are_judged_and_fail_if_they_cannot_be_computed() -> None:
    cases: list[tuple[Gate, Result, float | None, bool, str]] = [
        (MaxSequentialRegret(0.03), regrets(0.01, 0.02), 0.02, True, "α first 0.01; λ first 0.02"),
        (MaxSequentialRegret(0.015), regrets(0.01, 0.02), 0.02, False, "λ first 0.02"),
        (MaxSequentialRegret(0.015), regrets(0.02, 0.01), 0.02, False, "α first 0.02"),
        (MaxSequentialRegret(9), regrets(0.01, None), None, False, "λ first no cell"),
        (MaxSequentialRegret(9), regrets(None, None), None, False, "α first no cell"),
        (MaxSequentialRegret(9), having(sequential_regret=()), None, False, ""),
        (MaxSequentialRegret(9), regrets(1, 2, starts_out=1), 2.0, True, "2 start values left out"),
        (MaxSequentialRegret(9), regrets(1, 2, in_sample=True), 2.0, True, "in sample: lies high"),
        (MaxLrSensitivity(0.3), sensitive(Estimate(0.2, 0.1, 0.4)), 0.2, True, "λ kept 0.2 [0.1, 0.4]"),
        (MaxLrSensitivity(0.1), sensitive(Estimate(0.2)), 0.2, False, "retuned 0.1 [0.08, 0.12]"),
        (MaxLrSensitivity(9), study(), None, False, "the value at initialisation is not known"),
        (MaxLrSensitivity(9), having(lr_sensitivity=None), None, False, ""),
    ]
    for gate, found, value, passed, reason in cases:
        outcome = gate.check(found)
        assert (outcome.value, outcome.passed) == (value, passed), (gate, reason)
        assert reason in outcome.reason, (gate, outcome.reason)


def test_headline_names_what_failed_and_by_how_much() -> None:
    def outcome(gate: str, value: float | str | None, limit: float | str, reason: str = "") -> GateOutcome:
        return GateOutcome(gate, "mine", value, limit, passed=False, reason=reason)

    cases = [
        (outcome("max-best", 0.14611, 0.14), "max-best 0.146 > 0.14 (adamw)"),
        (outcome("max-best", 0.140001, 0.14), "max-best 0.140001 > 0.14 (adamw)"),
        (outcome("max-best", 0.14000000001, 0.14), "max-best 0.14000000001 > 0.14 (adamw)"),
        (outcome("min-best", 0.9, 0.95), "min-best 0.9 < 0.95 (adamw)"),
        (outcome("max-abs-slope", None, 0.2), "max-abs-slope undetermined (adamw)"),
        (outcome("require", "coupled", "separable"), "require coupled, not separable (adamw)"),
        (outcome("max-transfer-regret", 0.1, 0.2, "3 diverge"), "max-transfer-regret: 3 diverge (adamw)"),
    ]
    passed = replace(cases[0][0], passed=True)
    for failed, text in cases:
        assert gate_headline([passed, failed], [study()]) == f"1 of 2 gates failed: {text}"
    assert gate_headline([cases[0][0]], [study()]).startswith("1 of 1 gate failed: ")
    assert gate_headline([each for each, _ in cases], [study()]).endswith("; 4 more")
    assert gate_headline([passed], [study()]) == "1 of 1 gate passed"
    assert gate_headline([], [study()]) == ""


def test_every_format_begins_with_the_headline() -> None:
    found = study()
    gates: list[Gate] = [MaxBest(0.01), MaxAbsSlope(0.5), Require(Verdict.COUPLED), NoEdge()]
    outcomes = [gate.check(found) for gate in gates]
    headline = "2 of 4 gates failed: max-best 0.1 > 0.01 (adamw); require separable, not coupled (adamw)"
    headline = headline.replace("0.1 >", f"{outcomes[0].value:.3g} >")
    texts = {form: text_of(render([found], [], form, outcomes)) for form in Format}
    bare = {form: text_of(render([found], [], form)) for form in Format}
    first = {form: text.partition("\n")[0] for form, text in texts.items()}
    assert first[Format.TABLE] == headline
    assert first[Format.MARKDOWN] == f"**{headline}**"
    assert first[Format.GITHUB] == f"::error title=lrwd-sweep::{headline}"
    assert ET.fromstring(texts[Format.JUNIT]).attrib["name"] == f"lrwd-sweep: {headline}"
    body = texts[Format.HTML].partition("</h1>")[2].replace("&gt;", ">")
    assert body.strip().startswith(f'<p class="verdict">{headline}</p>')
    summary = json.loads(texts[Format.JSON])["gate_summary"]
    assert summary == {"failed": 2, "all": 4, "text": headline}
    assert texts[Format.CSV] == bare[Format.CSV]
    assert all("gates failed" not in text for text in bare.values())


def test_annotations_are_one_command_a_line_whatever_the_names_hold() -> None:
    assert command("error", "a: 1, b", "50 %\r\n::x") == "::error title=a%3A 1%2C b::50 %25\\r\\n::x"
    odd = labelled("%0A::error::x ##[error]y\n::warning::" + HOSTILE)
    outcomes = [MaxBest(0.01).check(odd), NoEdge().check(odd)]
    lines = text_of(render([odd], [], Format.GITHUB, outcomes)).splitlines()
    for line in lines:
        kind, _, message = line.removeprefix("::").partition("::")
        assert re.fullmatch(r"(error|notice) title=[^:,]+", kind), line
        assert not re.search("%(?!25)", message), line
    kinds = [line.split()[0] for line in lines]
    assert kinds == ["::error", "::error", "::notice", "::notice"]


@pytest.mark.parametrize("created", ["2025-01-01T00:00:00+00:00", "", "long ago"])
def test_junit_says_when_a_study_began_and_invents_no_time(created: str) -> None:
    root = ET.fromstring(text_of(render([replace(study(), created=created)], [], Format.JUNIT)))
    (suite,) = root
    assert suite.get("timestamp") == ("2025-01-01T00:00:00" if created.startswith("2025") else None)
    assert {element.get("time") for element in root.iter() if element.tag.startswith("test")} == {"0"}


def test_junit_has_the_time_of_training() -> None:
    outcomes = [NoEdge().check(study())]
    root = ET.fromstring(text_of(render([replace(study(), seconds=61.25)], [], Format.JUNIT, outcomes)))
    (suite,) = root
    assert (root.get("time"), suite.get("time")) == ("61.25", "61.25")
    assert [case.get("time") for case in suite.iter("testcase")] == ["0"], "a gate takes none"
