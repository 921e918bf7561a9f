"""One report in any format."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Group, RenderableType

from lrwd_sweep.report.gates import Outcome
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view.consoles import console_on
from lrwd_sweep.report.view.csv_table import csv_table
from lrwd_sweep.report.view.document import document, dumps
from lrwd_sweep.report.view.formats import Format
from lrwd_sweep.report.view.html import html
from lrwd_sweep.report.view.junit import junit
from lrwd_sweep.report.view.markdown import escaped, markdown, pipe_table
from lrwd_sweep.report.view.outcomes import OUTCOME_HEAD, OutcomeTable, outcome_rows
from lrwd_sweep.report.view.pictures import pictures
from lrwd_sweep.report.view.quantity import quantities, resolved
from lrwd_sweep.report.view.size_limit import fitted
from lrwd_sweep.report.view.tables import Report


def render(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults],
    form: Format,
    outcomes: Sequence[Outcome] = (),
    show: Sequence[str] = (),
    *,
    full: bool = False,
) -> RenderableType | str:
    """The report: a renderable for a console as a table, else text that ends in a newline.

    The same input gives the same bytes. CSV, which `study import` reads again, holds no gates. `show` names
    further pictures, or in markdown and JSON the numbers behind them; CSV and JUnit have none. `full` adds to
    table and markdown which parameters decay. Raises UnknownName.
    """
    measured = quantities(resolved(show, results))
    match form:
        case Format.TABLE:
            gates = [OutcomeTable(outcomes, results)] if outcomes else []
            return Group(Report(results, comparisons, full), *pictures(results, show), *gates)
        case Format.MARKDOWN:
            shown = pictures(results, [quantity.name for quantity in measured])
            return fitted(_gates(outcomes, results) + markdown(results, comparisons, shown, full=full))
        case Format.JSON:
            return dumps(document(results, comparisons, outcomes, measured))
        case Format.CSV:
            return csv_table(results)
        case Format.JUNIT:
            return junit(results, outcomes)
        case Format.HTML:
            return html(results, comparisons, outcomes, pictures(results, show))


def text_of(report: RenderableType | str) -> str:
    """A rendered report as text for a file: a table as a console off a terminal would print it."""
    if isinstance(report, str):
        return report
    stream = io.StringIO()
    console_on(stream, {}).print(report)
    return stream.getvalue()


def _gates(outcomes: Sequence[Outcome], results: Sequence[Result]) -> str:
    """The gates as a section of markdown, to stand first; nothing without any."""
    if not outcomes:
        return ""
    rows = [tuple(map(escaped, row)) for row in outcome_rows(outcomes, results)]
    return f"## Gates\n\n{pipe_table(OUTCOME_HEAD, rows)}\n\n"
