"""`lrwd-sweep transfer`: lattices along a scale, and how the best values move."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.parse import number, one_of
from lrwd_sweep.cli.study_run import opened, refuse_failed, report, show_forecast
from lrwd_sweep.errors import GateFailed, UsageError, arg
from lrwd_sweep.report.view import consoles
from lrwd_sweep.runner.runner import completion
from lrwd_sweep.spec.field import STORE
from lrwd_sweep.spec.request import Request

if TYPE_CHECKING:
    from lrwd_sweep.report.scaled import Scaled
    from lrwd_sweep.spec.shard import Shard


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
    if figure is not None:
        if output is not None and output.resolve() == figure.resolve():
            raise UsageError(f"--output and --figure are both {output}; name two files")
        from lrwd_sweep.report.view.paper_figure import check_figure

        check_figure(figure)
    specs = scale.specs(request, optimizer, completion(place.quiet))
    if place.dry_run:
        show_forecast(place, specs)
        return
    with opened(place, specs) as runner:
        runner.compare(specs)
        if place.shard is not None:
            report(runner, place, list(specs), next(iter(specs.values())).metric)
            return
        from lrwd_sweep.report.result import read_results
        from lrwd_sweep.report.scaled import Scaled
        from lrwd_sweep.science.separability.verdict import MARGIN

        margin = MARGIN if place.margin is None else place.margin
        metric = next(iter(specs.values())).metric
        results, _ = read_results(
            runner.store, list(specs), metric, data_dir=runner.files.folder, margin=margin
        )
        scaled = Scaled.of(scale, results, margin)
        _write(scaled, form, output, figure, full=place.full)
        refuse_failed(trial for result in results for trial in result.trials)
    _judge(scaled, max_carry_regret)


def _refuse_report(shard: Shard, outputs: Mapping[str, object], max_carry_regret: float | None) -> None:
    """Raise UsageError for options of the report, which a shard does not print."""
    for name, value in [*outputs.items(), ("max_carry_regret", max_carry_regret)]:
        if value is not None and value is not ScaleFormat.TABLE:
            raise UsageError(
                f"{arg(name, str(value))} has no effect with {arg('shard', f'{shard.part}/{shard.parts}')}, "
                "which has no report; give it to the same command without a shard, after study merge"
            )


def _write(
    scaled: Scaled, form: ScaleFormat, output: Path | None, figure: Path | None, *, full: bool
) -> None:
    """Write figure and report, files first, so that an error leaves standard output empty."""
    if figure is not None:
        from lrwd_sweep.report.view.scaled_report import save_scaled_figure

        with consoles.replaced(figure, "--figure") as temporary:
            save_scaled_figure(scaled, temporary)
        consoles.note(f"wrote {figure}")
    if form is ScaleFormat.TABLE:
        from lrwd_sweep.report.view import text_of
        from lrwd_sweep.report.view.scaled_report import ScaledReport

        if output is None:
            consoles.stdout().print(ScaledReport(scaled, full))
            return
        text = text_of(ScaledReport(scaled, full))
    elif form is ScaleFormat.HTML:
        from lrwd_sweep.report.view.html_page import scaled_html

        text = scaled_html(scaled)
    else:
        text = scaled.json() if form is ScaleFormat.JSON else scaled.csv()
    if output is None:
        consoles.write(text)
    else:
        consoles.write_file(output, text)
        consoles.note(f"wrote {output}")


def _judge(scaled: Scaled, limit: float | None) -> None:
    """Raise GateFailed if the cost is above the limit, or undetermined."""
    cost = scaled.found.regret
    if limit is None or (cost.value is not None and cost.value <= limit):
        return
    why = cost.reason or "undetermined" if cost.value is None else f"{cost.value:.3g} > {limit:g}"
    raise GateFailed(f"gate failed: max-carry-regret {why}")
