"""The list of studies, for a person and for a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.view.notation import plain
from lrwd_sweep.store import StudySummary


def study_document(summaries: Sequence[StudySummary]) -> dict[str, Any]:
    """`study list --format json`, schema_version 1."""
    return {
        "schema_version": 1,
        "studies": [
            {
                "study_name": summary.name,
                "optimizer": summary.optimizer,
                "created": summary.created,
                "counts": dict(summary.counts),
                **({"unreadable": summary.unreadable} if summary.unreadable else {}),
            }
            for summary in summaries
        ],
    }


def study_table(summaries: Sequence[StudySummary]) -> Table:
    """One row per study, also for one that cannot be read."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("study", overflow="fold")
    for name in ("optimizer", "created", "cells"):
        table.add_column(name)
    for summary in summaries:
        states = ", ".join(
            f"{count} {state}" for state, count in summary.counts.items() if count and state != "cells"
        )
        cells = f"{summary.counts['cells']}: {states or 'none trained'}"
        if summary.unreadable:
            cells = "damaged" if summary.damaged else "unreadable"
        table.add_row(
            *map(Text, (plain(summary.name), plain(summary.optimizer), summary.created[:16], cells))
        )
    return table
