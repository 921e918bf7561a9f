"""JUnit XML has the shape that the readers of CI services take."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from lrwd_sweep.report.gates import Gate, GateOutcome, MaxAbsSlope, MaxBest, NoEdge
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.junit import junit
from tests.report.view.examples import HOSTILE, study

GATES: list[Gate] = [MaxBest(0.2), MaxAbsSlope(0.1), NoEdge()]

# Element: (attributes that it needs, those that it may have, children in their order), from Jenkins' XSD.
SHAPE: dict[str, tuple[str, str, str]] = {
    "testsuites": ("", "name tests failures errors disabled time", "testsuite"),
    "testsuite": (
        "name tests",
        "failures errors skipped time timestamp hostname package id disabled",
        "properties testcase system-out system-err",
    ),
    "testcase": ("name classname", "time assertions status", "skipped error failure system-out system-err"),
    "failure": ("", "type message", ""),
    "system-out": ("", "", ""),
}


def check_shape(element: ET.Element) -> None:
    needed, allowed, children = (names.split() for names in SHAPE[element.tag])
    assert set(needed) <= set(element.attrib) <= {*needed, *allowed}
    places = [children.index(child.tag) for child in element]
    assert places == sorted(places)
    if "tests" in element.attrib:
        counts = [len(element.findall(f".//{tag}")) for tag in ("testcase", "failure", "error")]
        assert [int(element.attrib[name]) for name in ("tests", "failures", "errors")] == counts
    for child in element:
        check_shape(child)


def judged(results: list[Result], gates: list[Gate]) -> tuple[list[GateOutcome], ET.Element]:
    outcomes = [gate.check(result) for result in results for gate in gates]
    root = ET.fromstring(junit(results, outcomes))
    assert root.tag == "testsuites"
    check_shape(root)
    return outcomes, root


def test_every_gate_of_every_study_is_one_case() -> None:
    outcomes, root = judged([study("a"), study("b", seeds=1)], GATES)
    cases = [
        (case.attrib["classname"], case.attrib["name"], case.find("failure") is None)
        for case in root.iter("testcase")
    ]
    assert cases == [(outcome.study, outcome.gate, outcome.passed) for outcome in outcomes]
    assert {passed for _, _, passed in cases} == {True, False}
    _, root = judged([study("a"), study("b")], [])
    assert [case.attrib["name"] for case in root.iter("testcase")] == ["reported"] * 2


def test_every_case_holds_value_and_limit() -> None:
    _, root = judged([study("a")], [MaxBest(0.2), MaxBest(0.1)])
    passed, failed = root.iter("testcase")
    (best,) = study("a").ranked(1)
    assert f"{best.value:.6g}, limit 0.2" in passed.findtext("system-out", "")
    (failure,) = failed
    assert f"{best.value:.6g}, limit 0.1" in failure.attrib["message"]
    assert failure.text == failure.attrib["message"]


def test_characters_that_xml_cannot_hold_are_shown_as_escapes() -> None:
    for name in (HOSTILE, "\x00\x0b\ufffe\ud800", "]]>", '"&<', "\u202e"):
        _, root = judged([study(name)], GATES)
        assert root[0].attrib["name"].isprintable(), name
