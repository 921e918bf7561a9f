"""`lrwd-sweep transfer`: lattices along a scale, and how the best values move."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.parse import number, one_of
from lrwd_sweep.cli.report import deliver, refuse_one_file
from lrwd_sweep.cli.study_run import opened, refuse_failed, report, show_forecast
from lrwd_sweep.errors import GateFailed, UsageError, arg
from lrwd_sweep.runner.runner import completion
from lrwd_sweep.spec.field import STORE
from lrwd_sweep.spec.request import Request

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lrwd_sweep.report.scaled import Scaled
    from lrwd_sweep.spec.job import Shard


class ScaleFormat(StrEnum):
    """Output of `transfer`."""

    TABLE = "table"
    HTML = "html"
    JSON = "json"
    CSV = "csv"


Scale = Annotated[
    list[str] | None,
    typer.Option(
        "--over",
        metavar="NAME=V,V,…",
        help="epochs, batch-size, width or train-fraction [the preset's]",
        rich_help_panel="What to train",
        show_default=False,
    ),
]
FormatName = Annotated[
    ScaleFormat,
    typer.Option(
        "--format",
        metavar="NAME",
        parser=one_of("format", ScaleFormat),
        help="table, html, json or csv [table]",
        rich_help_panel=STORE,
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="File to write [standard output]", rich_help_panel=STORE),
]
Figure = Annotated[
    Path | None,
    typer.Option(
        "--figure",
        metavar="FILE",
        help="Lines and lattices as .pdf, .svg or .png [none]",
        rich_help_panel=STORE,
        show_default=False,
    ),
]
MaxRegret = Annotated[
    float | None,
    typer.Option(
        "--max-carry-regret",
        metavar="V",
        parser=number("--max-carry-regret", 0),
        help="Gate: carrying the smallest scale's cell costs at most V [no gate]",
        rich_help_panel=STORE,
    ),
]


@options.trains(
    optimizer=(options.OptimizerName, None),
    over=(Scale, None),
    form=(FormatName, ScaleFormat.TABLE),
    output=(Output, None),
    figure=(Figure, None),
    max_carry_regret=(MaxRegret, None),
)
def transfer(
    request: Request,
    place: options.Place,
    optimizer: str | None,
    over: list[str] | None,
    form: ScaleFormat,
    output: Path | None,
    figure: Path | None,
    max_carry_regret: float | None,
) -> None:
    """Train a lattice at every value of a scale, and measure how the best α, λ and τ move along it.

    A power law is fitted to the best values, published rules are held against it, and the cost of carrying
    the smallest scale's best cell to the largest is measured. Each lattice is a study; stored results are not
    trained again.
    """
    from lrwd_sweep.spec.over import EXAMPLE, Over

    scale = Over.parse(over[0]) if over else Over.of_preset(request.preset)
    if scale is None:
        raise UsageError(f"{arg('over')} is required: write {arg('over', EXAMPLE)}")
    if over and len(over) > 1:
        raise UsageError(f"{arg('over')} is given {len(over)} times; sweep over one quantity at a time")
    if place.shard is not None:
        _refuse_report(place.shard, {"format": form, "output": output, "figure": figure}, max_carry_regret)
    if place.full and form is not ScaleFormat.TABLE:
        raise UsageError(f"--full adds nothing to {form}; choose table")
    refuse_one_file(output, figure)
    if figure is not None:
        from lrwd_sweep.report.view.paper_figure import check_figure

        check_figure(figure)
    specs = scale.specs(request, optimizer, completion(place.quiet))
    if place.dry_run:
        show_forecast(place, specs)
        return
    metric = next(iter(specs.values())).metric
    with opened(place, specs) as runner:
        runner.compare(specs)
        if place.shard is not None:
            report(runner, place, list(specs), metric)
            return
        from lrwd_sweep.report.result import read_results
        from lrwd_sweep.report.scaled import Scaled
        from lrwd_sweep.science.separability.verdict import MARGIN

        margin = MARGIN if place.margin is None else place.margin
        results, _ = read_results(
            runner.store, list(specs), metric, data_dir=runner.files.folder, margin=margin
        )
        scaled = Scaled.of(scale, results, margin)
        deliver(_rendered(scaled, form, full=place.full), output, figure, partial(_draw, scaled))
        refuse_failed(trial for result in results for trial in result.trials)
    cost, limit = scaled.found.regret, max_carry_regret
    if limit is not None and (cost.value is None or cost.value > limit):
        why = cost.reason or "undetermined" if cost.value is None else f"{cost.value:.3g} > {limit:g}"
        raise GateFailed(f"gate failed: max-carry-regret {why}")


def _refuse_report(shard: Shard, outputs: Mapping[str, object], max_carry_regret: float | None) -> None:
    """Raise UsageError for options of the report, which a shard does not print."""
    for name, value in [*outputs.items(), ("max_carry_regret", max_carry_regret)]:
        if value is not None and value is not ScaleFormat.TABLE:
            raise UsageError(
                f"{arg(name, str(value))} has no effect with {arg('shard', f'{shard.part}/{shard.parts}')}, "
                "which has no report; give it to the same command without a shard, after study merge"
            )


def _rendered(scaled: Scaled, form: ScaleFormat, *, full: bool) -> RenderableType | str:
    if form is ScaleFormat.JSON:
        return scaled.json()
    if form is ScaleFormat.CSV:
        return scaled.csv()
    if form is ScaleFormat.HTML:
        from lrwd_sweep.report.view.html_page import scaled_html

        return scaled_html(scaled)
    from lrwd_sweep.report.view.scaled_report import ScaledReport

    return ScaledReport(scaled, full)


def _draw(scaled: Scaled, path: Path) -> None:
    from lrwd_sweep.report.view.scaled_report import save_scaled_figure

    save_scaled_figure(scaled, path)
