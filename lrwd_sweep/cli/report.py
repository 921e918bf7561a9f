"""`lrwd-sweep report`: the picture and the numbers from the store alone."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.parse import one_of
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
            metavar="STUDY",
            help="Names from `study list`; several are compared with the first (default: the study or "
            "comparison that was trained or imported last).",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        ReportFormat,
        typer.Option(
            "--format",
            metavar="NAME",
            parser=one_of("format", ReportFormat),
            help="table, markdown, json or csv.",
        ),
    ] = ReportFormat.TABLE,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", metavar="NAME", help="Any metric of the store to judge by (default: the study's own)."
        ),
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
