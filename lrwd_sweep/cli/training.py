"""`lrwd-sweep grid`, `compare` and `tpe`: train one lattice, several of them, or a search."""

from __future__ import annotations

from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.parse import whole
from lrwd_sweep.cli.study_run import opened, report, show_forecast
from lrwd_sweep.runner.runner import completion
from lrwd_sweep.spec.field import AXES
from lrwd_sweep.spec.job import refuse_shard
from lrwd_sweep.spec.preset import MOST_TRIALS, TRIALS
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import Kind

Optimizers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OPTIMIZER",
        help="Two or more, named as for `grid --optimizer`; the others are compared with the first "
        "[the preset's; digits: adam adamw]",
        show_default=False,
    ),
]
Trials = Annotated[
    int,
    typer.Option(
        "--trials",
        metavar="N",
        parser=whole("--trials", most=MOST_TRIALS),
        help=f"Points (α, λ) in all, earlier runs included [{TRIALS}]",
        rich_help_panel=AXES,
        show_default=False,
    ),
]


@options.trains(optimizer=(options.OptimizerName, None), study_name=(options.StudyName, None))
def grid(request: Request, place: options.Place, optimizer: str | None, study_name: str | None) -> None:
    """Train one optimizer's (α, λ) lattice, several seeds per cell, and report it.

    Stored results are not trained again: the same command continues, and a larger lattice or more seeds
    extend the study. Defaults are in brackets.
    """
    spec = request.spec(request.variant(optimizer), complete=completion(place.quiet))
    name = request.name(spec) if study_name is None else study_name
    if place.dry_run:
        show_forecast(place, {name: spec})
        return
    with opened(place, {name: spec}) as runner:
        runner.grid(name, spec)
        report(runner, place, [name], spec.metric, request.preset.show)


@options.trains(optimizers=(Optimizers, None))
def compare(request: Request, place: options.Place, optimizers: list[str] | None) -> None:
    """Train the lattices of several optimizers and compare them seed by seed.

    The same seed is the same initialisation and data order in every cell and every optimizer. Stored results
    are not trained again; `report` shows the comparison. Defaults are in brackets.
    """
    specs = request.compared(optimizers or (), completion(place.quiet))
    if place.dry_run:
        show_forecast(place, specs)
        return
    with opened(place, specs) as runner:
        runner.compare(specs)
        report(runner, place, list(specs), next(iter(specs.values())).metric, request.preset.show)


@options.trains(
    optimizer=(options.OptimizerName, None), trials=(Trials, TRIALS), study_name=(options.StudyName, None)
)
def tpe(
    request: Request, place: options.Place, optimizer: str | None, trials: int, study_name: str | None
) -> None:
    """Search (α, λ) with Optuna's TPE inside the box of the axes, a batch of points at a time.

    The result is drawn on the lattice, each point in its nearest cell, with the best points listed. The same
    command with a larger --trials continues the search. Defaults are in brackets.
    """
    refuse_shard(place.shard)
    spec = request.spec(request.variant(optimizer), Kind.TPE, completion(place.quiet))
    name = request.name(spec) if study_name is None else study_name
    if place.dry_run:
        show_forecast(place, {name: spec}, trials)
        return
    with opened(place, {name: spec}, trials) as runner:
        runner.tpe(name, spec, trials)
        report(runner, place, [name], spec.metric)
