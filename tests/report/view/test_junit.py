"""JUnit XML as the readers of CI services take it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from lrwd_sweep.report.gates import Gate, GateOutcome, MaxAbsSlope, MaxBest, NoEdge
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.junit import junit
from tests.report.view.examples import HOSTILE, study

GATES: list[Gate] = [MaxBest(0.2), MaxAbsSlope(0.1), NoEdge()]

# Element: (attributes that it needs, those that it may have, children in their order), from Jenkins' XSD.
SHAPE: dict[str, tuple[set[str], set[str], list[str]]] = {
    "testsuites": (set(), {"name", "tests", "failures", "errors", "disabled", "time"}, ["testsuite"]),
    "testsuite": (
        {"name", "tests"},
        {"failures", "errors", "skipped", "time", "timestamp", "hostname", "package", "id", "disabled"},
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "testcase": (
        {"name", "classname"},
        {"time", "assertions", "status"},
        ["skipped", "error", "failure", "system-out", "system-err"],
    ),
    "failure": (set(), {"type", "message"}, []),
    "system-out": (set(), set(), []),
}


def check_shape(element: ET.Element) -> None:
    needed, allowed, children = SHAPE[element.tag]
    assert needed <= set(element.attrib) <= needed | allowed
    places = [children.index(child.tag) for child in element]
    assert places == sorted(places)
    if "tests" in element.attrib:
        assert int(element.attrib["tests"]) == len(element.findall(".//testcase"))
        assert int(element.attrib["failures"]) == len(element.findall(".//failure"))
        assert int(element.attrib["errors"]) == 0
    for child in element:
        check_shape(child)


def judged(results: list[Result], gates: list[Gate]) -> tuple[list[GateOutcome], ET.Element]:
    outcomes = [gate.check(result) for result in results for gate in gates]
    return outcomes, ET.fromstring(junit(results, outcomes))


def test_the_text_is_well_formed_and_of_the_known_schema() -> None:
    for gates in (GATES, []):
        _, root = judged([study("a", "adam"), study("b", seeds=1)], gates)
        assert root.tag == "testsuites"
        check_shape(root)


def test_every_gate_of_every_study_is_one_case() -> None:
    outcomes, root = judged([study("a"), study("b", seeds=1)], GATES)
    cases = [(case.attrib["classname"], case.attrib["name"]) for case in root.iter("testcase")]
    assert cases == [(outcome.study, outcome.gate) for outcome in outcomes]
    failed = [case.find("failure") is not None for case in root.iter("testcase")]
    assert failed == [not outcome.passed for outcome in outcomes]
    assert {True, False} == set(failed)


def test_every_case_holds_value_and_limit() -> None:
    _, root = judged([study("a")], [MaxBest(0.2), MaxBest(0.1)])
    passed, failed = root.iter("testcase")
    (best,) = study("a").ranked(1)
    assert f"{best.value:.6g}, limit 0.2" in passed.findtext("system-out", "")
    failure = failed.find("failure")
    assert failure is not None
    assert f"{best.value:.6g}, limit 0.1" in failure.attrib["message"]
    assert failure.text == failure.attrib["message"]


def test_a_study_without_gates_is_one_passed_case() -> None:
    _, root = judged([study("a"), study("b")], [])
    assert [case.attrib["name"] for case in root.iter("testcase")] == ["reported"] * 2
    assert root.attrib["tests"] == "2"


def test_characters_that_xml_cannot_hold_are_shown_as_escapes() -> None:
    for name in (HOSTILE, "\x00\x0b\ufffe\ud800", "]]>", '"&<', "\u202e"):
        _, root = judged([study(name)], GATES)
        check_shape(root)
        suite = root.find("testsuite")
        assert suite is not None
        assert suite.attrib["name"].isprintable(), name
