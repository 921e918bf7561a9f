"""Outcomes of gates in words, and the report for CI: JUnit XML, and annotations of GitHub Actions."""

import operator
import re
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as ET

from lrwd_sweep.report.answer import Topic, answer
from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view.notation import counted, plain
from lrwd_sweep.report.view.tables import NOTHING, Row, title

GATE_HEAD = ("gate", "limit", "study", "value", "result", "basis")
_NAMED = 3  # failed gates in a headline
_ANNOTATED = (Topic.VERDICT, Topic.DIFFERENCE, Topic.DIFFERENCES)  # lines of the answer
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")  # without zone, as the schema has it


def gate_rows(outcomes: Sequence[GateOutcome], results: Sequence[Result]) -> list[Row]:
    """List one row per gate and study, in the columns of GATE_HEAD."""
    return [
        (
            outcome.gate,
            _scalar(outcome.limit),
            _study_title(outcome, results),
            gate_value(outcome),
            "passed" if outcome.passed else "FAILED",
            plain(outcome.reason) or NOTHING,
        )
        for outcome in outcomes
    ]


def gate_sentence(outcome: GateOutcome) -> str:
    """Write `gate max-best failed for adamw: 0.146, limit 0.14 (val_loss, standard error 0.0004)`."""
    how = "passed" if outcome.passed else "failed"
    reason = f" ({outcome.reason})" if outcome.reason else ""
    found = f"{gate_value(outcome)}, limit {_scalar(outcome.limit)}{reason}"
    return plain(f"gate {outcome.gate} {how} for {outcome.study}: {found}")


def gate_headline(outcomes: Sequence[GateOutcome], results: Sequence[Result]) -> str:
    """Write `1 of 4 gates failed: max-best 0.146 > 0.14 (adamw)`; empty without gates."""
    if not outcomes:
        return ""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    every = counted(len(outcomes), "gate")
    if not failed:
        return f"{len(outcomes)} of {every} passed"
    named = [f"{_failure(each)} ({_study_title(each, results)})" for each in failed[:_NAMED]]
    more = [f"{len(failed) - _NAMED} more"] * (len(failed) > _NAMED)
    return f"{len(failed)} of {every} failed: {'; '.join([*named, *more])}"


def _study_title(outcome: GateOutcome, results: Sequence[Result]) -> str:
    found = (title(result, results) for result in results if result.name == outcome.study)
    return next(found, plain(outcome.study))


def _failure(outcome: GateOutcome) -> str:
    """Write how a value misses its limit, as in `max-best 0.146 > 0.14`."""
    value, limit = outcome.value, outcome.limit
    if value is None:
        return f"{outcome.gate} undetermined"
    if isinstance(value, str) or isinstance(limit, str):
        return f"{outcome.gate} {plain(str(value))}, not {limit}"
    sign, misses = _comparison(outcome)
    if not misses(value, limit):  # it fails for another reason
        return f"{outcome.gate}: {plain(outcome.reason)}"
    shown = (f"{value:.{digits}g}" for digits in (3, 4, 5))
    short = next((text for text in shown if misses(float(text), limit)), gate_value(outcome))
    return f"{outcome.gate} {short} {sign} {_scalar(limit)}"


def gate_value(outcome: GateOutcome) -> str:
    """Write the value to six digits, or to all if six would hide on which side of the limit it lies."""
    value, limit = outcome.value, outcome.limit
    if value is None:
        return "undetermined"
    text = _scalar(value)
    if isinstance(value, str) or isinstance(limit, str):
        return text
    _, misses = _comparison(outcome)
    return text if misses(float(text), limit) is misses(value, limit) else repr(value)


def _comparison(outcome: GateOutcome) -> tuple[str, Callable[[float, float], bool]]:
    """Return the comparison that holds for a value beyond its limit."""
    return ("<", operator.lt) if outcome.gate.startswith("min-") else (">", operator.gt)


def _scalar(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def junit(results: Sequence[Result], outcomes: Sequence[GateOutcome] = ()) -> str:
    """Write the XML in the schema that Jenkins, GitLab and GitHub's reporters read.

    A study is a suite, a gate a case. A study without gates has one case, "reported", which passes: readers
    reject an empty suite. Control characters, which XML cannot hold, are shown as escapes. The name of the
    whole holds the gates' headline. A suite's timestamp is the time at which its study began, its time the
    time that training took; 0 for an import, and where an earlier version trained. A gate takes no time.
    """
    failed = sum(not outcome.passed for outcome in outcomes)
    suites = [_suite(result, [o for o in outcomes if o.study == result.name]) for result in results]
    cases = sum(int(suite.attrib["tests"]) for suite in suites)
    headline = gate_headline(outcomes, results)
    name = f"lrwd-sweep: {headline}" if headline else "lrwd-sweep"
    root = ET.Element("testsuites", _counts(name, cases, failed, sum(result.seconds for result in results)))
    root.extend(suites)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _counts(name: str, tests: int, failures: int, seconds: float) -> dict[str, str]:
    time = f"{seconds:.3f}".rstrip("0").rstrip(".")
    return {
        "name": plain(name), "tests": str(tests), "failures": str(failures), "errors": "0", "time": time,
    }  # fmt: skip


def _suite(result: Result, outcomes: Sequence[GateOutcome]) -> ET.Element:
    failures = sum(not outcome.passed for outcome in outcomes)
    counts = _counts(result.name, max(len(outcomes), 1), failures, result.seconds)
    suite = ET.Element("testsuite", counts | {"skipped": "0"})
    if began := _TIME.match(result.created):
        suite.set("timestamp", began[0])
    for outcome in outcomes:
        case, text = _case(suite, outcome.study, outcome.gate), gate_sentence(outcome)
        if outcome.passed:
            ET.SubElement(case, "system-out").text = text
        else:
            ET.SubElement(case, "failure", {"type": outcome.gate, "message": text}).text = text
    if not outcomes:
        _case(suite, result.name, "reported")
    verdict = f"{result.spec.optimizer}: {result.separability.verdict}"
    reason = result.separability.reason
    ET.SubElement(suite, "system-out").text = plain(f"{verdict} ({reason})" if reason else verdict)
    return suite


def _case(suite: ET.Element, study: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", {"classname": plain(study), "name": plain(name), "time": "0"})


def workflow_commands(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    outcomes: Sequence[GateOutcome] = (),
) -> str:
    """Write commands of GitHub Actions, a line each: the gates' headline, an error per failed gate, notices.

    Notices are the gates that passed and the verdicts. GitHub shows the first ten of a kind per step.
    """
    lines = []
    if outcomes:
        kind = "notice" if all(outcome.passed for outcome in outcomes) else "error"
        lines.append(command(kind, "lrwd-sweep", gate_headline(outcomes, results)))
    for outcome in sorted(outcomes, key=lambda outcome: outcome.passed):
        where = f"{outcome.gate}: {_study_title(outcome, results)}"
        lines.append(command("notice" if outcome.passed else "error", where, gate_sentence(outcome)))
    for line in answer(results, comparisons):
        if line.topic in _ANNOTATED:
            parts = line.parts[:3] if line.topic is Topic.VERDICT else line.parts
            lines.append(command("notice", line.label, "; ".join(filter(None, parts))))
    return "\n".join(lines) + "\n"


def command(kind: str, title: str, message: str) -> str:
    """Write a workflow command whose title and message end nothing and begin nothing.

    >>> command("error", "a: 1, b", "50 %")
    '::error title=a%3A 1%2C b::50 %25'
    """
    return f"::{kind} title={_data(title).replace(':', '%3A').replace(',', '%2C')}::{_data(message)}"


def _data(text: str) -> str:
    return plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
