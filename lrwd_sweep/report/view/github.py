"""The report as workflow commands of GitHub Actions, which shows them as annotations of a run."""

from __future__ import annotations

from collections.abc import Sequence

from lrwd_sweep.report.answer import Topic, answer
from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view.fields import gate_headline, gate_sentence, title
from lrwd_sweep.report.view.notation import plain

_SHOWN = (Topic.VERDICT, Topic.DIFFERENCE, Topic.DIFFERENCES)  # lines of the answer


def workflow_commands(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    outcomes: Sequence[GateOutcome] = (),
) -> str:
    """Write one command a line: the gates' headline, an error per failed gate, then notices.

    Notices are the gates that passed and the verdicts. GitHub shows the first ten of a kind per step.
    """
    names = {result.name: title(result, results) for result in results}
    failed = [outcome for outcome in outcomes if not outcome.passed]
    lines = []
    if outcomes:
        lines.append(command("error" if failed else "notice", "lrwd-sweep", gate_headline(outcomes, results)))
    for outcome in sorted(outcomes, key=lambda outcome: outcome.passed):
        where = f"{outcome.gate}: {names.get(outcome.study, outcome.study)}"
        lines.append(command("notice" if outcome.passed else "error", where, gate_sentence(outcome)))
    for line in answer(results, comparisons):
        if line.topic in _SHOWN:
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
