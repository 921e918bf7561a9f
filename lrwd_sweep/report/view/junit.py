"""The report as JUnit XML: a test suite per study, a test case per gate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.fields import gate_headline, gate_sentence
from lrwd_sweep.report.view.notation import plain

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")  # without zone, as the schema has it


def junit(results: Sequence[Result], outcomes: Sequence[GateOutcome] = ()) -> str:
    """Write the XML in the schema that Jenkins, GitLab and GitHub's reporters read.

    A study without gates has one case, "reported", which passes: readers reject an empty suite. Control
    characters, which XML cannot hold, are shown as escapes. The name of the whole holds the gates' headline.
    A suite's timestamp is the time at which its study began, its time the time that training took; 0 for an
    import, and where an earlier version trained. A gate takes no time.
    """
    failed = sum(not outcome.passed for outcome in outcomes)
    suites = [_suite(result, [o for o in outcomes if o.study == result.name]) for result in results]
    cases = sum(int(suite.attrib["tests"]) for suite in suites)
    headline = gate_headline(outcomes, results)
    name = f"lrwd-sweep: {headline}" if headline else "lrwd-sweep"
    seconds = sum(result.seconds for result in results)
    root = ET.Element("testsuites", _counts(name, cases, failed, seconds))
    root.extend(suites)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _counts(name: str, tests: int, failures: int, seconds: float) -> dict[str, str]:
    time = f"{seconds:.3f}".rstrip("0").rstrip(".")
    numbers = {"tests": str(tests), "failures": str(failures), "errors": "0", "time": time}
    return {"name": plain(name)} | numbers


def _suite(result: Result, outcomes: Sequence[GateOutcome]) -> ET.Element:
    failures = sum(not outcome.passed for outcome in outcomes)
    counts = _counts(result.name, max(len(outcomes), 1), failures, result.seconds)
    suite = ET.Element("testsuite", counts | {"skipped": "0"})
    if began := _TIME.match(result.created):
        suite.set("timestamp", began[0])
    suite.extend(map(_judged, outcomes) if outcomes else [_case(result.name, "reported")])
    verdict = f"{result.spec.optimizer}: {result.separability.verdict}"
    reason = result.separability.reason
    ET.SubElement(suite, "system-out").text = plain(f"{verdict} ({reason})" if reason else verdict)
    return suite


def _judged(outcome: GateOutcome) -> ET.Element:
    """Write one gate on one study, with value and limit in the failure or the output of the case."""
    case = _case(outcome.study, outcome.gate)
    text = gate_sentence(outcome)
    if outcome.passed:
        ET.SubElement(case, "system-out").text = text
    else:
        ET.SubElement(case, "failure", {"type": outcome.gate, "message": text}).text = text
    return case


def _case(study: str, name: str) -> ET.Element:
    return ET.Element("testcase", {"classname": plain(study), "name": plain(name), "time": "0"})
