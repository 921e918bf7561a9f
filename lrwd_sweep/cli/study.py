"""`lrwd-sweep study`: what the store holds, in and out."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.group import group
from lrwd_sweep.cli.parse import one_of
from lrwd_sweep.cli.study_run import show
from lrwd_sweep.cli.transfer import Name, export, import_
from lrwd_sweep.errors import NothingToReport, StoreError, UsageError
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.consoles import note
from lrwd_sweep.report.view.notation import plain

studies = group("study", "List, show, delete, import and export studies.")


class ListFormat(StrEnum):
    """How `study list` prints."""

    TABLE = "table"
    JSON = "json"


@studies.command("list", short_help="List every study.")
def list_(
    form: Annotated[
        ListFormat,
        typer.Option("--format", metavar="NAME", parser=one_of("format", ListFormat), help="table or json."),
    ] = ListFormat.TABLE,
    storage: options.Storage = None,
) -> None:
    """List every study with its optimizer and the state of its cells, or say why it cannot be read."""
    from lrwd_sweep.cli.listing import study_document, study_table
    from lrwd_sweep.store import open_store

    with open_store(storage, write=False) as store:
        summaries = store.studies()
    if form is ListFormat.JSON:
        typer.echo(json.dumps(study_document(summaries), indent=2, allow_nan=False))
    elif summaries:
        consoles.stdout().print(study_table(summaries))
        for summary in summaries:
            if summary.unreadable and not summary.damaged:
                note(summary.unreadable)
    else:
        raise NothingToReport("the store holds no study yet; run lrwd-sweep compare adam adamw first")
    # Told last of all, and by the exit code: what is listed is right.
    if damaged := [summary.unreadable for summary in summaries if summary.damaged]:
        raise StoreError(
            damaged[0] + f"; {len(damaged) - 1} more are damaged, see the list" * (len(damaged) > 1)
        )


@studies.command("show", short_help="Show one study, as `report STUDY` does.")
def show_(name: Name, storage: options.Storage = None) -> None:
    """Show one study: the same as `report STUDY`."""
    from lrwd_sweep.store import open_store

    with open_store(storage, write=False) as store:
        show(store, [name], None)


@studies.command(short_help="Delete a study with all its trials.")
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    storage: options.Storage = None,
) -> None:
    """Delete a study with all its trials; asks first."""
    from lrwd_sweep.store import open_store

    with open_store(storage, write=False) as store:
        lanes = store.count_lanes(name)
    if not yes and not _agreed(f"delete {name} with {lanes} lanes?"):
        note(f"kept {name}")
        return
    with open_store(storage, write=True) as store:
        store.delete_study(name)
    note(f"deleted {name} with {lanes} lanes")


studies.command("import", short_help="Bring in anyone's sweep from a CSV file.")(import_)
studies.command("export", short_help="Write a study as CSV, or for Optuna.")(export)


def _agreed(question: str) -> bool:
    """Ask on stderr. Raises UsageError when nobody is there to answer."""
    consoles.stderr().print(f"{plain(question)} [y/N]", end=" ", soft_wrap=True)
    answer = sys.stdin.readline()
    if not answer:
        raise UsageError("nobody answered; add --yes to delete without being asked")
    return answer.strip().lower() in ("y", "yes")
