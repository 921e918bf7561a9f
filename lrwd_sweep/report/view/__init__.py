"""The report in any format. A new format is a file of this package, a member of `Format` and a case below."""

from __future__ import annotations

import io
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lrwd_sweep.report.gates import GateOutcome
    from lrwd_sweep.report.result import ComparedResults, Result

_NOTEBOOK_WIDTH = 120  # characters
FORMATS = (  # for the help
    "table, markdown (fits a pull request's comment), json, csv, junit, github (a workflow's annotations) "
    "or html."
)


class Format(StrEnum):
    """The formats of a report; all but the table are text for a file or another program."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"
    JUNIT = "junit"
    GITHUB = "github"
    HTML = "html"


def render(  # noqa: PLR0911 - one return for each format
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults],
    form: Format,
    outcomes: Sequence[GateOutcome] = (),
    show: Sequence[str] = (),
    *,
    full: bool = False,
) -> RenderableType | str:
    """Return the report: as a table a renderable for a console, else text that ends in a newline.

    The same input gives the same bytes. CSV, which `study import` reads again, holds no gates; every other
    format begins with their headline. `show` names further pictures; JSON holds the numbers behind them, CSV,
    JUnit and GitHub's annotations nothing. `full` adds every number to the table, and to table and markdown
    which parameters decay. Raises UnknownName.
    """
    from lrwd_sweep.report.view.pictures import pictures, quantities, resolved

    names = resolved(show, results)
    match form:
        case Format.TABLE:
            from lrwd_sweep.report.view.terminal import Report

            return Report(results, comparisons, full, pictures(results, names), outcomes)
        case Format.MARKDOWN:
            from lrwd_sweep.report.view.ci import markdown

            shown = pictures(results, [quantity.name for quantity in quantities(names)])
            return markdown(results, comparisons, outcomes, shown, full=full)
        case Format.JSON:
            from lrwd_sweep.report.view.document import document, dumps

            return dumps(document(results, comparisons, outcomes, quantities(names)))
        case Format.CSV:
            from lrwd_sweep.report.view.lane_table import csv_table

            return csv_table(results)
        case Format.JUNIT:
            from lrwd_sweep.report.view.ci import junit

            return junit(results, outcomes)
        case Format.GITHUB:
            from lrwd_sweep.report.view.ci import workflow_commands

            return workflow_commands(results, comparisons, outcomes)
        case Format.HTML:
            from lrwd_sweep.report.view.html_page import html

            return html(results, comparisons, outcomes, pictures(results, names))


def text_of(report: RenderableType | str) -> str:
    """Return a rendered report as text for a file, a table as a console off a terminal would print it."""
    if isinstance(report, str):
        return report
    from lrwd_sweep.report.view.consoles import console_on

    stream = io.StringIO()
    console_on(stream, {}).print(report)
    return stream.getvalue()


def notebook_html(report: RenderableType) -> str:
    """Return a renderable as HTML for a notebook: coloured text that loads and runs nothing."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        record=True,
        force_terminal=True,
        force_jupyter=False,
        color_system="truecolor",
        width=_NOTEBOOK_WIDTH,
        highlight=False,
        _environ={},
    )
    console.print(report)
    style = "line-height:normal;font-family:Menlo,'DejaVu Sans Mono',consolas,monospace"
    return console.export_html(inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>')
