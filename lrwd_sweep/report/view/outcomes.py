"""The outcomes of gates as rows of text: for a terminal, for markdown, for one line of a log."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult

from lrwd_sweep.report.gates import Outcome
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.fields import Row, title
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.report.view.tables import table

OUTCOME_HEAD = ("gate", "limit", "study", "value", "result", "on what it rests")
_NOTHING = "–"


def outcome_rows(outcomes: Sequence[Outcome], results: Sequence[Result]) -> list[Row]:
    """One row per gate and study, in the columns of OUTCOME_HEAD."""
    titles = {result.name: title(result, results) for result in results}
    return [
        (
            outcome.gate,
            scalar_text(outcome.limit),
            titles.get(outcome.study, plain(outcome.study)),
            value_text(outcome),
            "passed" if outcome.passed else "FAILED",
            plain(outcome.reason) or _NOTHING,
        )
        for outcome in outcomes
    ]


def sentence(outcome: Outcome) -> str:
    """`gate max-best failed for adamw: 0.146, limit 0.14 (val_loss, standard error 0.0004)`."""
    how = "passed" if outcome.passed else "failed"
    reason = f" ({outcome.reason})" if outcome.reason else ""
    found = f"{value_text(outcome)}, limit {scalar_text(outcome.limit)}{reason}"
    return plain(f"gate {outcome.gate} {how} for {outcome.study}: {found}")


def value_text(outcome: Outcome) -> str:
    """The value to six digits, or to all where six would hide on which side of the limit it lies."""
    value, limit = outcome.value, outcome.limit
    if value is None:
        return "undetermined"
    text = scalar_text(value)
    if isinstance(value, str) or isinstance(limit, str):
        return text
    fails = operator.lt if outcome.gate.startswith("min-") else operator.gt
    hidden = fails(float(text), limit) is not fails(value, limit)
    return repr(value) if hidden else text


def scalar_text(value: float | str) -> str:
    """A number to six digits, text as it is."""
    return value if isinstance(value, str) else f"{value:.6g}"


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeTable:
    """Gates and what they found, to be printed."""

    outcomes: Sequence[Outcome]
    results: Sequence[Result]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        corner, *headings = OUTCOME_HEAD
        yield table(corner, headings, outcome_rows(self.outcomes, self.results), options.ascii_only)
