"""`lrwd-sweep bench`: how fast, against the plain way, in one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from lrwd_sweep.cli.parse import whole
from lrwd_sweep.optimizer import Optimizer
from lrwd_sweep.preset import DEFAULT, find_preset
from lrwd_sweep.view import consoles

if TYPE_CHECKING:
    from rich.table import Table

    from lrwd_sweep.bench.race import Timing


def _count(option: str, text: str) -> typer.models.OptionInfo:
    """A whole number of at least 1."""
    found: typer.models.OptionInfo = typer.Option(option, metavar="N", parser=whole(option), help=text)
    return found


def bench(
    lanes: Annotated[int, _count("--lanes", "Networks that the engine trains: cells × seeds.")] = 363,
    plain_lanes: Annotated[
        int, _count("--plain-lanes", "Networks that the plain way trains, one by one.")
    ] = 24,
    epochs: Annotated[
        int, _count("--epochs", "Passes over the training set, each with its validation.")
    ] = 10,
    repeats: Annotated[int, _count("--repeats", "Timed runs of every contender, in random order.")] = 3,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, in lane-steps per second, instead of a table.")
    ] = False,
) -> None:
    """Measure the engine against an Optuna study over torch.nn and torch.optim, one network at a time.

    Same task, data and steps, on the CPU; every run in a process of its own, after a warm-up. The ratio is
    what carries over to another machine, not the rates.
    """
    from lrwd_sweep.bench.race import ENGINE, PLAIN, Contender, race

    preset = find_preset(DEFAULT)
    timings = race(
        [Contender(ENGINE, lanes), Contender(PLAIN, plain_lanes)],
        replace(preset.training, epochs=epochs),
        preset.lattice(Optimizer.parse("adamw")),
        repeats=repeats,
        seed=0,
        on_run=lambda name, rate: consoles.stderr().print(
            f"{name}: {rate:,.0f} lane-steps/s", soft_wrap=True
        ),
    )
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "contenders": [timing.summary() for timing in timings]}))
    else:
        consoles.stdout().print(_table(timings))


def _table(timings: Sequence[Timing]) -> Table:
    """One row per contender, the engine first."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("contender", "lanes", "lane-steps/s", "lrwd-sweep is faster by"):
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    for k, timing in enumerate(timings):
        ratio = _spread(timing.lead, ".1f", "×") if k else ""
        table.add_row(timing.name, str(timing.lanes), _spread(timing.rates, ",.0f"), ratio)
    return table


def _spread(values: tuple[float, ...], form: str, unit: str = "") -> str:
    from statistics import median

    low, high = min(values), max(values)
    return f"{median(values):{form}}{unit} ({low:{form}} – {high:{form}})"
