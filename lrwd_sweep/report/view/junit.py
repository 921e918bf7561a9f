"""The report as JUnit XML: a test suite per study, a test case per gate."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from lrwd_sweep.report.gates import Outcome
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.outcomes import sentence
from lrwd_sweep.report.view.plain import plain

WITHOUT_GATES = "reported"


def junit(results: Sequence[Result], outcomes: Sequence[Outcome] = ()) -> str:
    """The XML text, in the shape that Jenkins, GitLab and GitHub's reporters read.

    A study without gates has the one case "reported", which passes: readers take an empty suite for a fault.
    Control characters, which XML cannot hold, are shown as escapes.
    """
    failed = sum(not outcome.passed for outcome in outcomes)
    suites = [_suite(result, [o for o in outcomes if o.study == result.name]) for result in results]
    cases = sum(int(suite.attrib["tests"]) for suite in suites)
    root = ET.Element("testsuites", _counts("lrwd-sweep", cases, failed))
    root.extend(suites)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _counts(name: str, tests: int, failures: int) -> dict[str, str]:
    return {"name": plain(name), "tests": str(tests), "failures": str(failures), "errors": "0"}


def _suite(result: Result, outcomes: Sequence[Outcome]) -> ET.Element:
    failures = sum(not outcome.passed for outcome in outcomes)
    counts = _counts(result.name, max(len(outcomes), 1), failures)
    suite = ET.Element("testsuite", counts | {"skipped": "0", "time": "0"})
    suite.extend(map(_judged, outcomes) if outcomes else [_case(result.name, WITHOUT_GATES)])
    verdict = f"{result.spec.optimizer}: {result.separability.verdict}"
    reason = result.separability.reason
    ET.SubElement(suite, "system-out").text = plain(f"{verdict} ({reason})" if reason else verdict)
    return suite


def _judged(outcome: Outcome) -> ET.Element:
    """One gate on one study, its value and limit in the failure, or in the output of a case that passes."""
    case = _case(outcome.study, outcome.gate)
    text = sentence(outcome)
    if outcome.passed:
        ET.SubElement(case, "system-out").text = text
    else:
        ET.SubElement(case, "failure", {"type": outcome.gate, "message": text}).text = text
    return case


def _case(study: str, name: str) -> ET.Element:
    return ET.Element("testcase", {"classname": plain(study), "name": plain(name), "time": "0"})
