"""One report in any format."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from rich.console import RenderableType

from lrwd_sweep.result import ComparedResults, Result
from lrwd_sweep.view.csv_table import csv_table
from lrwd_sweep.view.document import document, dumps
from lrwd_sweep.view.markdown import markdown
from lrwd_sweep.view.tables import Report


class Format(StrEnum):
    """The formats of a report; all but the table are text for a file or another program."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"


def render(
    results: Sequence[Result], comparisons: Sequence[ComparedResults], form: Format
) -> RenderableType | str:
    """The report: a renderable for a console as a table, else text that ends in a newline.

    The same input gives the same bytes.
    """
    match form:
        case Format.TABLE:
            return Report(results, comparisons)
        case Format.MARKDOWN:
            return markdown(results, comparisons)
        case Format.JSON:
            return dumps(document(results, comparisons))
        case Format.CSV:
            return csv_table(results)
