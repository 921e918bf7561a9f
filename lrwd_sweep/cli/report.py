"""`lrwd-sweep report`: the picture and the numbers from the store alone."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.study_run import show
from lrwd_sweep.errors import NothingToReport


class ReportFormat(StrEnum):
    """`view.report.Format`, known before the views are loaded."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"


def report(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY…]",
            help="Studies to report, the first compared with the others (default: what was asked for last).",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        ReportFormat, typer.Option("--format", metavar="NAME", help="table, markdown, json or csv.")
    ] = ReportFormat.TABLE,
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="NAME", help="Any stored metric (default: the study's own)."),
    ] = None,
    storage: options.Storage = None,
) -> None:
    """Show studies from the store, without training anything; the store may be read-only."""
    from lrwd_sweep.store import open_store

    with open_store(storage, write=False) as store:
        names = list(dict.fromkeys(studies or store.latest()))
        if not names:
            raise NothingToReport(f"{store.path} holds no study yet; run lrwd-sweep compare adam adamw first")
        show(store, names, metric, form)
