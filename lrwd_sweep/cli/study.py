"""`lrwd-sweep study`: list, show, delete, merge, import and export stored studies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from lrwd_sweep.cli import options
from lrwd_sweep.cli.import_export import Name, answer, export, import_
from lrwd_sweep.cli.options import group
from lrwd_sweep.cli.parse import one_of
from lrwd_sweep.cli.report import report
from lrwd_sweep.errors import LrwdError, NothingToReport, StoreError, UsageError
from lrwd_sweep.report.view import Format, consoles
from lrwd_sweep.report.view.consoles import note
from lrwd_sweep.report.view.notation import counted, plain

if TYPE_CHECKING:
    from lrwd_sweep.store import StudySummary
    from lrwd_sweep.store.merge import MergedStudy

_LISTED = 8  # stores, and shards with missing lanes

studies = group("study", "List, show, delete, merge, import and export studies.")


class ListFormat(StrEnum):
    """The formats of `study list` and `study show`."""

    TABLE = "table"
    JSON = "json"


Form = Annotated[
    ListFormat,
    typer.Option("--format", metavar="NAME", parser=one_of("format", ListFormat), help="table or json."),
]


@studies.command("list", short_help="List all studies.")
def list_(form: Form = ListFormat.TABLE, storage: options.Storage = None) -> None:
    """List all studies with their optimizer and the state of their cells, or why they cannot be read."""
    from lrwd_sweep.store import open_store

    with open_store(storage, write=False) as store:
        summaries = store.studies()
    if form is ListFormat.JSON:
        typer.echo(json.dumps(_document(summaries), indent=2, allow_nan=False))
    elif summaries:
        consoles.stdout().print(_table(summaries))
        for summary in summaries:
            if summary.unreadable and not summary.damaged:
                note(summary.unreadable)
    else:
        raise NothingToReport("the store holds no study yet; run lrwd-sweep compare adam adamw first")
    # Raised after the list is written: the list itself is right.
    if damaged := [summary.unreadable for summary in summaries if summary.damaged]:
        raise StoreError(
            damaged[0] + f"; {len(damaged) - 1} more are damaged, see the list" * (len(damaged) > 1)
        )


@studies.command("show", short_help="Show one study.")
def show_(name: Name, form: Form = ListFormat.TABLE, storage: options.Storage = None) -> None:
    """Show one study, like `report STUDY`."""
    report([name], Format(form), storage=storage)


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
    if not yes:
        line = answer(f"delete {name} with {lanes} lanes? [y/N]")
        if not line:
            raise UsageError("standard input has ended; add --yes to delete without a question")
        if line.strip().lower() not in ("y", "yes"):
            note(f"kept {name}")
            return
    with open_store(storage, write=True) as store:
        store.delete_study(name)
    note(f"deleted {name} with {lanes} lanes")


@studies.command(short_help="Join stores that trained parts of the same studies.")
def merge(
    into: Annotated[
        str, typer.Argument(metavar="INTO", help="Store to add to; created if missing.", show_default=False)
    ],
    sources: Annotated[
        list[str], typer.Argument(metavar="FROM...", help="Stores to read.", show_default=False)
    ],
) -> None:
    """Add all studies of the stores FROM to the store INTO, or nothing.

    A lane that two stores hold must be equal in both.
    """
    from lrwd_sweep.store import open_store
    from lrwd_sweep.store.database import locate
    from lrwd_sweep.store.merge import merge_stores

    path = locate(into)
    is_new = not path.exists()
    with ExitStack() as opened:
        read = [opened.enter_context(open_store(source, write=False)) for source in sources]
        store = opened.enter_context(open_store(into, write=True))
        try:
            merged = merge_stores(store, read)
        except LrwdError:
            if is_new:
                store.close()
                path.unlink(missing_ok=True)
            raise
        for name, study in merged.items():
            added = zip(study.added, sources, strict=True)
            parts = ", ".join(f"{count} of {source}" for count, source in added)
            if len(sources) > _LISTED:
                parts = f"{sum(study.added)} of {len(sources)} stores"
            note(f"{name}: added lanes: {parts}; {store.count_lanes(name)} in all")
            if study.missing:
                note(f"{name}: {counted(study.missing, 'lane')} missing{_shards(study)}")


def _shards(study: MergedStudy) -> str:
    """Say of which shards the missing lanes are; empty if that is not known."""
    texts = [
        f"{'all' if mine == every else f'{mine} of'} {every} of --shard {shard.part}/{shard.parts}"
        for shard, (mine, every) in study.shards.items()
    ]
    rest = len(texts) - _LISTED
    texts[_LISTED:] = [f"and some of {counted(rest, 'other shard')}"] if rest > 0 else []
    return ": " * bool(texts) + ", ".join(texts)


studies.command("import", short_help="Import a sweep of another program.")(import_)
studies.command("export", short_help="Write a study as CSV or JSON, or for Optuna.")(export)


def _document(summaries: Sequence[StudySummary]) -> dict[str, Any]:
    """Return the JSON of `study list`, schema_version 1."""
    return {
        "schema_version": 1,
        "studies": [
            {
                "study_name": summary.name,
                "optimizer": summary.optimizer,
                "created": summary.created,
                "counts": dict(summary.counts),
                **({"training": summary.training} if summary.training else {}),
                **({"last_trained": summary.last_trained} if summary.last_trained else {}),
                **({"unreadable": summary.unreadable} if summary.unreadable else {}),
            }
            for summary in summaries
        ],
    }


def _table(summaries: Sequence[StudySummary]) -> Table:
    """Make a table with a row per study."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("study", overflow="fold")
    for name in ("optimizer", "created", "cells"):
        table.add_column(name)
    for summary in summaries:
        counts = ((count, state) for state, count in summary.counts.items() if count and state != "cells")
        states = ", ".join(f"{count} {state}" for count, state in counts)
        cells = f"{summary.counts['cells']}: {states or 'none trained'}"
        if summary.refined is not None:
            cells = f"{summary.counts['cells']}: refined, {counted(summary.refined, 'run')}"
        if summary.training:
            cells += f"; in training, {summary.training}"
        elif summary.refined is None and summary.last_trained and summary.counts["missing"]:
            cells += f"; stopped, last trained {summary.last_trained}"
        if summary.unreadable:
            cells = "damaged" if summary.damaged else "unreadable"
        texts = (plain(summary.name), plain(summary.optimizer), summary.created[:16], cells)
        table.add_row(*map(Text, texts))
    return table
