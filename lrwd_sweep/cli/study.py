"""`lrwd-sweep study`: what the store holds, in and out."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.group import group
from lrwd_sweep.cli.parse import one_of
from lrwd_sweep.cli.study_run import note, show
from lrwd_sweep.errors import NothingToReport, UsageError
from lrwd_sweep.view import consoles
from lrwd_sweep.view.plain import plain

studies = group("study", "List, show, delete, import and export studies.")

Name = Annotated[str, typer.Argument(metavar="STUDY", help="A name from `study list`.", show_default=False)]


class ListFormat(StrEnum):
    """How `study list` prints."""

    TABLE = "table"
    JSON = "json"


class ExportFormat(StrEnum):
    """What `study export` writes."""

    CSV = "csv"
    OPTUNA = "optuna"


@studies.command("list", short_help="List every study.")
def list_(
    form: Annotated[
        ListFormat,
        typer.Option("--format", metavar="NAME", parser=one_of("format", ListFormat), help="table or json."),
    ] = ListFormat.TABLE,
    storage: options.Storage = None,
) -> None:
    """List every study with its optimizer and the state of its cells."""
    from lrwd_sweep.cli.listing import study_document, study_table
    from lrwd_sweep.store import open_store

    with open_store(storage, write=False) as store:
        summaries = store.studies()
    if form is ListFormat.JSON:
        typer.echo(json.dumps(study_document(summaries), indent=2, allow_nan=False))
    elif summaries:
        consoles.stdout().print(study_table(summaries))
    else:
        raise NothingToReport("the store holds no study yet; run lrwd-sweep compare adam adamw first")


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
        lanes = len(store.trials(name))
    if not yes and not _agreed(f"delete {name} with {lanes} lanes?"):
        note(f"kept {name}")
        return
    with open_store(storage, write=True) as store:
        store.delete_study(name)
    note(f"deleted {name} with {lanes} lanes")


@studies.command("import", short_help="Bring in anyone's sweep from a CSV file.")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.csv",
            help="Header lr,weight_decay,seed,value and one row per run; nan is a run that diverged.",
            show_default=False,
        ),
    ],
    study_name: Annotated[
        str,
        typer.Option(
            "--study-name", metavar="NAME", help="What to call it in the store.", show_default=False
        ),
    ],
    optimizer: Annotated[
        str,
        typer.Option(
            "--optimizer",
            "-o",
            metavar="NAME",
            help="What was swept, named as for `grid`; any other label takes a --decay-rule.",
            show_default=False,
        ),
    ],
    decay_rule: Annotated[
        str | None,
        typer.Option(
            "--decay-rule",
            metavar="RULE",
            help="coupled, independent or lr-scaled (default: the optimizer's).",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="OURS=THEIRS,…",
            help="The file's own column names, joined by commas: lr=learning_rate,value=val_err "
            "(default: lr, weight_decay, seed and value; without a seed column, one seed).",
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="What the value measures; lower is better.")
    ] = "value",
    storage: options.Storage = None,
) -> None:
    """Bring in anyone's sweep from a CSV file, so that `report` judges it."""
    from lrwd_sweep.store import check_name, open_store
    from lrwd_sweep.store.csv_import import import_spec, read_csv

    check_name(study_name)
    trials = read_csv(file, _columns(columns), metric=metric)
    spec = import_spec(trials, optimizer, decay_rule=decay_rule, metric=metric)
    with open_store(storage, write=True) as store:
        if store.find_study(study_name) is not None:
            raise UsageError(
                f"study {study_name!r} exists; delete it first (study delete) or choose another --study-name"
            )
        store.begin_study(study_name, spec)
        store.add_trials(study_name, trials)
    size = f"{len(spec.lattice)} cells × {len(spec.seeds)} seeds"
    note(f"imported {len(trials)} lanes as {study_name}: {size}, {spec.optimizer}")


@studies.command(short_help="Write a study as CSV, or for Optuna.")
def export(
    name: Name,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            metavar="NAME",
            parser=one_of("format", ExportFormat),
            help="csv, or optuna: a database for Optuna's dashboard.",
        ),
    ] = ExportFormat.CSV,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where to write (default: csv on standard output)."),
    ] = None,
    storage: options.Storage = None,
) -> None:
    """Write a study for other programs; `study import` reads the CSV again without loss."""
    from lrwd_sweep.store import open_store

    with open_store(storage, write=False) as store:
        record = store.get_study(name)
        if form is ExportFormat.CSV and output is None:
            show(store, [name], None, "csv")
            return
        trials = store.trials(record.name, curves=True)
    if output is None:
        raise UsageError("--format optuna writes a database; name it with --output FILE.db")
    if form is ExportFormat.OPTUNA:
        from lrwd_sweep.sampler import export_to_optuna

        export_to_optuna(trials, output, record.name, metric=record.spec.metric)
    else:
        from lrwd_sweep.result import result
        from lrwd_sweep.view.csv_table import csv_table

        text = csv_table([result(record.name, record.spec, record.created, trials)])
        write_file(output, text)
    note(f"wrote {len(trials)} lanes to {output}")


def _agreed(question: str) -> bool:
    """Ask on stderr. Raises UsageError when nobody is there to answer."""
    consoles.stderr().print(f"{plain(question)} [y/N] ", end="", soft_wrap=True)
    answer = sys.stdin.readline()
    if not answer:
        raise UsageError("nobody answered; add --yes to delete without being asked")
    return answer.strip().lower() in ("y", "yes")


def write_file(path: Path, text: str) -> None:
    """Write to a temporary name beside it, then rename: the file is whole or not there."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"--output {path}: {error.strerror}; name a file that can be written") from None


def _columns(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    pairs = [pair.split("=", 1) for pair in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise UsageError(
            f"--columns {text!r} is no list of OURS=THEIRS; write lr=learning_rate,value=val_err"
        )
    return {ours.strip(): theirs.strip() for ours, theirs in pairs}
