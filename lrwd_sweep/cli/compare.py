"""`lrwd-sweep compare`: lattices side by side, and their differences."""

from __future__ import annotations

from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.study_run import opened, report, show_forecast
from lrwd_sweep.runner.runner import completion
from lrwd_sweep.spec.request import Request

Optimizers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OPTIMIZER",
        help="Two or more, named as for `grid --optimizer`; the others are compared with the first "
        "[the preset's; digits: adam adamw]",
        show_default=False,
    ),
]


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
