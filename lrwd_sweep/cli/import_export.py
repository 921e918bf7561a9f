"""`lrwd-sweep study import` and `export`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.parse import number, one_of, whole
from lrwd_sweep.cli.report import Output
from lrwd_sweep.errors import UsageError, shown
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.consoles import note, write_file
from lrwd_sweep.report.view.notation import counted, plain
from lrwd_sweep.science.lattice import plain_float
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.study import tidy

if TYPE_CHECKING:
    from lrwd_sweep.spec.study import StudySpec
    from lrwd_sweep.store.imports import ImportedSweep

FORMATS = ("csv", "json", "optuna", "mlflow", "paths", "wandb")  # of store.imports.READERS, not loaded here

Answer = TypeVar("Answer")


class Take(StrEnum):
    """The value of a learning curve that stands for its run."""

    LAST = "last"
    BEST = "best"


Name = Annotated[str, typer.Argument(metavar="STUDY", help="A name from `study list`.", show_default=False)]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="CSV, JSON or JSON lines of runs, an Optuna database or journal, a folder of MLflow, or the "
        "root of folders for --from; several are read as one. Examples: lrwd-sweep docs import.",
        show_default=False,
    ),
]
Form = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help=f"{', '.join(FORMATS)} (default: by name and contents).",
        show_default=False,
    ),
]
Template = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="TEMPLATE:KEY",
        help="Files with hyperparameters in their paths, and the key of the value: "
        "'lr{lr}_wd{weight_decay}/seed{seed}.csv:val_loss'.",
        show_default=False,
    ),
]
Taken = Annotated[
    Take,
    typer.Option(
        "--take",
        metavar="WHICH",
        parser=one_of("value to take", Take),
        help="The last or the best value of a learning curve.",
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE",
        help="Only runs with this value, repeatable (default: all).",
        show_default=False,
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="COLUMN",
        help="Import a study for each value of a column (default: one study).",
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
        help="The source's own names, joined by commas: lr=optim.lr,value=val_err "
        "(default: lr, weight_decay, seed and value, also behind a dot; without a seed, one). "
        "Columns of run states "
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


Initial = Annotated[
    float | None,
    typer.Option(
        "--initial-loss",
        metavar="V",
        parser=number("--initial-loss"),
        help="Value of the metric before the first step, for the sensitivity to the learning rate "
        "(default: unknown).",
        show_default=False,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        parser=whole("--steps"),
        help="Steps of a run, for the averaging time scale and normalised decay (default: unknown).",
        show_default=False,
    ),
]


class ExportFormat(StrEnum):
    """The formats of `study export`."""

    CSV = "csv"
    JSON = "json"
    WANDB = "wandb"
    OPTUNA = "optuna"


def import_(
    sources: Sources,
    study_name: NewName,
    optimizer: Swept,
    decay_rule: Rule = None,
    form: Form = None,
    template: Template = "",
    columns: Columns = None,
    where: Where = None,
    by: By = None,
    metric: Measured = "value",
    take: Taken = Take.LAST,
    maximize: Maximized = None,
    cap: Cap = None,
    initial_loss: Initial = None,
    steps: Steps = None,
    storage: options.Storage = None,
) -> None:
    """Import a sweep of another program, so that `report` can analyse it."""
    from lrwd_sweep.store import check_name, imports, open_store

    check_name(study_name)
    if not metric.strip():
        raise UsageError(f"--metric {metric!r} is empty; write for example --metric val_loss")
    best, names = take is Take.BEST, _columns(columns)
    named = [
        imports.ImportSource(source, template, names, metric, best=best, maximize=bool(maximize))
        for source in sources
    ]
    table = imports.read_table(named, form, _conditions(where or []))
    if _on_terminal() and by is None and (scopes := imports.open_scope(table)):
        chosen = _choose(f"which {table.scope}?", {scope: scope for scope in scopes})
        table = imports.rows_of(table, [(table.scope, chosen)])
    sweeps = imports.to_sweeps(table, named[0], by)
    del table  # frees the texts that no trial needs
    direction = None if maximize is None else Direction.MAXIMIZE if maximize else Direction.MINIMIZE
    if _on_terminal():
        decay_rule, direction = _asked(sweeps.values(), optimizer, decay_rule, direction)
    settled = partial(
        imports.to_study,
        optimizer=optimizer,
        decay_rule=decay_rule,
        direction=direction,
        cap=cap,
        initial=initial_loss,
        steps=steps,
    )
    studies = {_name_of(study_name, by, value): settled(sweep) for value, sweep in sweeps.items()}
    if len(studies) < len(sweeps):
        raise UsageError(f"--by {by}: two values give the same study name; rename one of {', '.join(sweeps)}")
    with open_store(storage, write=True) as store:
        store.import_studies({name: (study.spec, study.trials) for name, study in studies.items()})
    for name, study in studies.items():
        for line in study.notes:
            note(f"{name}: {line}" if by else line)
        note(_imported(name, study.spec, len(study.trials)))


def _asked(
    sweeps: Iterable[ImportedSweep], optimizer: str, decay_rule: str | None, direction: Direction | None
) -> tuple[str | None, Direction | None]:
    """Ask what names and options leave open; return decay rule and direction."""
    from lrwd_sweep.store.imports import open_direction, open_rule

    for sweep in sweeps:
        if question := open_rule(sweep, optimizer, decay_rule):
            decay_rule = _choose(question, {"lr-scaled": "lr-scaled", "independent": "independent"})
        if question := open_direction(sweep, direction):
            direction = _choose(question, {"higher": Direction.MAXIMIZE, "lower": Direction.MINIMIZE})
    return decay_rule, direction


def _imported(name: str, spec: StudySpec, lanes: int) -> str:
    """Describe an imported study and how it was read."""
    cells = counted(len(spec.lattice), "cell")
    size = f"{cells} × {counted(len(spec.seeds), 'seed')}"
    if spec.scattered:
        size = f"scattered points, drawn on {cells}"
    better = "higher" if spec.direction is Direction.MAXIMIZE else "lower"
    rule = spec.optimizer.rule
    swept = f"{spec.optimizer}" + (f" ({rule})" if rule not in str(spec.optimizer) else "")
    capped = "" if spec.given_cap is None else f", {spec.given_cap:g} and worse counts as diverged"
    read = f"{swept}, {better} {spec.metric} is better{capped}"
    return f"imported {counted(lanes, 'lane')} as {name}: {size}, {read}"


def _name_of(study_name: str, by: str | None, value: str) -> str:
    """Return the name of the study of one value of the column `by`."""
    return study_name if by is None else f"{study_name}-{tidy(by)}-{tidy(value)}"


def _conditions(texts: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    for text, (column, equal, _) in zip(texts, pairs, strict=True):
        if not column.strip() or not equal:
            raise UsageError(
                f"--where {shown(text)} is not COLUMN=VALUE; write for example --where width=512"
            )
    return [(column.strip(), value.strip()) for column, _, value in pairs]


def export(
    name: Name,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            metavar="NAME",
            parser=one_of("format", ExportFormat),
            help="csv, json, wandb: a table of runs as Weights & Biases writes it, or optuna: a database for "
            "Optuna's dashboard.",
        ),
    ] = ExportFormat.CSV,
    output: Output = None,
    storage: options.Storage = None,
) -> None:
    """Write a study for other programs; `study import` reads it back, a finished lattice without loss."""
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
        from lrwd_sweep.report.view.lane_table import csv_table, lane_records, wandb_table

        found = result(record.name, record.spec, record.created, trials)
        if form is ExportFormat.JSON:
            text = json.dumps(lane_records(found), indent=1, allow_nan=False) + "\n"
        else:
            text = wandb_table(found) if form is ExportFormat.WANDB else csv_table([found])
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
        found = [value for name, value in answers.items() if word and name.lower().startswith(word)]
        if line.strip() in answers:
            found = [answers[line.strip()]]
        if found:
            return found[0]
    raise UsageError("standard input has ended; give the option that answers the question")
