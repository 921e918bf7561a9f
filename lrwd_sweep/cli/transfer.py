"""`lrwd-sweep study import` and `export`."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.parse import one_of
from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.consoles import note, write_file
from lrwd_sweep.report.view.notation import counted, plain
from lrwd_sweep.science.lattice import plain_float
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.trial import Direction

Answer = TypeVar("Answer")

Name = Annotated[str, typer.Argument(metavar="STUDY", help="A name from `study list`.", show_default=False)]
File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE.csv",
        help="Header lr,weight_decay,seed,value and a row per run; nan is a diverged run.",
        show_default=False,
    ),
]
NewName = Annotated[
    str, typer.Option("--study-name", metavar="NAME", help="Name of the new study.", show_default=False)
]
Swept = Annotated[
    str,
    typer.Option(
        "--optimizer",
        "-o",
        metavar="NAME",
        help="Optimizer of the sweep, named as for `grid`: adamw:lr-scaled is torch.optim.AdamW, "
        "adamw:independent the paper's rule; any other label needs a --decay-rule.",
        show_default=False,
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        "--decay-rule",
        metavar="RULE",
        help=f"{', '.join(DecayRule)} (default: the file's column decay_rule, or the optimizer's if its name "
        "determines it; adamw needs one).",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="OURS=THEIRS,…",
        help="The file's own column names, joined by commas: lr=learning_rate,value=val_err "
        "(default: lr, weight_decay, seed and value; without a seed column, one seed). Columns of run states "
        "(state, status, done, …) are found; status=COLUMN names one, status= ignores all.",
    ),
]
Measured = Annotated[
    str,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="Metric that the value measures; a name such as accuracy or f1 needs --maximize or --minimize.",
    ),
]
Maximized = Annotated[
    bool | None,
    typer.Option(
        "--maximize/--minimize",
        help="A higher or a lower value is better (default: the file's column direction, else --minimize).",
        show_default=False,
    ),
]


def _cap(text: str | float) -> float:
    try:
        value = plain_float(str(text))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"--cap {text!r} is not a finite number; write one like 10")
    return value


Cap = Annotated[
    float | None,
    typer.Option(
        "--cap",
        metavar="V",
        parser=_cap,
        help="This value and worse ones count as diverged (default: the file's column cap, else none).",
    ),
]


class ExportFormat(StrEnum):
    """The formats of `study export`."""

    CSV = "csv"
    OPTUNA = "optuna"


def import_(
    file: File,
    study_name: NewName,
    optimizer: Swept,
    decay_rule: Rule = None,
    columns: Columns = None,
    metric: Measured = "value",
    maximize: Maximized = None,
    cap: Cap = None,
    storage: options.Storage = None,
) -> None:
    """Import a sweep of another program from a CSV file, so that `report` can analyse it."""
    from lrwd_sweep.store import check_name, open_store
    from lrwd_sweep.store.imports import import_spec, open_direction, open_rule, read_sweep

    check_name(study_name)
    if not metric.strip():
        raise UsageError(f"--metric {metric!r} is empty; write for example --metric val_loss")
    sweep = read_sweep(file, _columns(columns), metric=metric)
    direction = None if maximize is None else Direction.MAXIMIZE if maximize else Direction.MINIMIZE
    if _on_terminal():
        if question := open_rule(sweep, optimizer, decay_rule):
            decay_rule = _choose(question, {"lr-scaled": "lr-scaled", "independent": "independent"})
        if question := open_direction(sweep, direction):
            direction = _choose(question, {"higher": Direction.MAXIMIZE, "lower": Direction.MINIMIZE})
    spec = import_spec(sweep, optimizer, decay_rule=decay_rule, direction=direction, cap=cap)
    with open_store(storage, write=True) as store:
        store.import_study(study_name, spec, sweep.trials)
    for line in sweep.notes:
        note(line)
    size = f"{counted(len(spec.lattice), 'cell')} × {counted(len(spec.seeds), 'seed')}"
    better = "higher" if spec.direction is Direction.MAXIMIZE else "lower"
    rule = spec.optimizer.rule
    swept = f"{spec.optimizer}" + (f" ({rule})" if rule not in str(spec.optimizer) else "")
    capped = "" if spec.given_cap is None else f", {spec.given_cap:g} and worse counts as diverged"
    read = f"{swept}, {better} {metric} is better{capped}"
    note(f"imported {counted(len(sweep.trials), 'lane')} as {study_name}: {size}, {read}")


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
        typer.Option("--output", metavar="FILE", help="File to write (default: csv on standard output)."),
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
        from lrwd_sweep.runner.sampler import export_to_optuna

        spec = record.spec
        export_to_optuna(trials, output, record.name, metric=spec.metric, direction=spec.direction)
    else:
        from lrwd_sweep.report.result import result
        from lrwd_sweep.report.view.lane_table import csv_table

        text = csv_table([result(record.name, record.spec, record.created, trials)])
        if output is None:
            consoles.write(text)
            return
        write_file(output, text)
    note(f"wrote {len(trials)} lanes to {output}")


def answer(question: str) -> str:
    """Ask on stderr and return the line of standard input; "" at its end."""
    consoles.stderr().print(plain(question), end=" ", soft_wrap=True)
    return sys.stdin.readline()


def _columns(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    pairs = [pair.split("=", 1) for pair in text.split(",")]
    if not all(len(pair) == 2 and pair[0] for pair in pairs):
        raise UsageError(
            f"--columns {text!r} is not a list of OURS=THEIRS; write lr=learning_rate,value=val_err"
        )
    names = {ours.strip(): theirs.strip() for ours, theirs in pairs}
    if len(names) < len(pairs):
        raise UsageError(f"--columns {text!r} repeats one of our names; omit one")
    return names


def _on_terminal() -> bool:
    """Return whether a user can see and answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _choose(question: str, answers: Mapping[str, Answer]) -> Answer:
    """Ask until an answer, or its beginning, is given. Raises UsageError at the end of the input."""
    while line := answer(f"{question} [{'/'.join(answers)}]"):
        word = line.strip().lower()
        if found := [value for name, value in answers.items() if word and name.startswith(word)]:
            return found[0]
    raise UsageError("standard input has ended; give the option that answers the question")
