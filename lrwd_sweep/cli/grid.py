"""`lrwd-sweep grid`: one lattice."""

from __future__ import annotations

from lrwd_sweep.cli import options
from lrwd_sweep.cli.study_run import opened, report, show_forecast
from lrwd_sweep.runner.runner import completion
from lrwd_sweep.spec.request import Request


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
