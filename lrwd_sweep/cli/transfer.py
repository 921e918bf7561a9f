"""`lrwd-sweep study import` and `export`: sweeps in and out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.parse import one_of
from lrwd_sweep.decay import DecayRule
from lrwd_sweep.errors import UsageError
from lrwd_sweep.view import consoles
from lrwd_sweep.view.consoles import note
from lrwd_sweep.view.files import write_file
from lrwd_sweep.view.notation import counted

Name = Annotated[str, typer.Argument(metavar="STUDY", help="A name from `study list`.", show_default=False)]
File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE.csv",
        help="Header lr,weight_decay,seed,value and one row per run; nan is a run that diverged.",
        show_default=False,
    ),
]
NewName = Annotated[
    str,
    typer.Option("--study-name", metavar="NAME", help="What to call it in the store.", show_default=False),
]
Swept = Annotated[
    str,
    typer.Option(
        "--optimizer",
        "-o",
        metavar="NAME",
        help="What was swept, named as for `grid`; any other label takes a --decay-rule.",
        show_default=False,
    ),
]
Rule = Annotated[
    str | None,
    typer.Option("--decay-rule", metavar="RULE", help=f"{', '.join(DecayRule)} (default: the optimizer's)."),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="OURS=THEIRS,…",
        help="The file's own column names, joined by commas: lr=learning_rate,value=val_err "
        "(default: lr, weight_decay, seed and value; without a seed column, one seed).",
    ),
]
Measured = Annotated[
    str, typer.Option("--metric", metavar="NAME", help="What the value measures; lower is better.")
]


class ExportFormat(StrEnum):
    """What `study export` writes."""

    CSV = "csv"
    OPTUNA = "optuna"


def import_(
    file: File,
    study_name: NewName,
    optimizer: Swept,
    decay_rule: Rule = None,
    columns: Columns = None,
    metric: Measured = "value",
    storage: options.Storage = None,
) -> None:
    """Bring in anyone's sweep from a CSV file, so that `report` judges it."""
    from lrwd_sweep.store import check_name, open_store
    from lrwd_sweep.store.csv_import import import_spec, read_csv

    check_name(study_name)
    if not metric.strip():
        raise UsageError(f"--metric {metric!r} is no name; write for example --metric val_loss")
    trials = read_csv(file, _columns(columns), metric=metric)
    spec = import_spec(trials, optimizer, decay_rule=decay_rule, metric=metric)
    with open_store(storage, write=True) as store:
        store.import_study(study_name, spec, trials)
    size = f"{counted(len(spec.lattice), 'cell')} × {counted(len(spec.seeds), 'seed')}"
    note(f"imported {counted(len(trials), 'lane')} as {study_name}: {size}, {spec.optimizer}")


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
    """Write a study for other programs; `study import` reads the CSV of a finished lattice without loss."""
    from lrwd_sweep.store import open_store

    if form is ExportFormat.OPTUNA and output is None:
        raise UsageError("--format optuna writes a database; name it with --output FILE.db")
    with open_store(storage, write=False) as store:
        record = store.get_study(name)
        trials = store.trials(record.name, curves=form is ExportFormat.OPTUNA)
    if form is ExportFormat.OPTUNA and output is not None:
        from lrwd_sweep.sampler import export_to_optuna

        spec = record.spec
        export_to_optuna(trials, output, record.name, metric=spec.metric, direction=spec.direction)
    else:
        from lrwd_sweep.result import result
        from lrwd_sweep.view.csv_table import csv_table

        text = csv_table([result(record.name, record.spec, record.created, trials)])
        if output is None:
            consoles.write(text)
            return
        write_file(output, text)
    note(f"wrote {len(trials)} lanes to {output}")


def _columns(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    pairs = [pair.split("=", 1) for pair in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise UsageError(
            f"--columns {text!r} is no list of OURS=THEIRS; write lr=learning_rate,value=val_err"
        )
    names = {ours.strip(): theirs.strip() for ours, theirs in pairs}
    if len(names) < len(pairs):
        raise UsageError(f"--columns {text!r} names a column of ours twice; leave one out")
    return names
