"""`lrwd-sweep preset`: the package's tasks."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from lrwd_sweep.cli.options import group, option_text
from lrwd_sweep.cli.parse import one_of
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.report.view import consoles
from lrwd_sweep.runner.runner import completion
from lrwd_sweep.spec.preset import DEFAULT, Preset, find_preset, preset_names
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import StudySpec

presets = group("preset", "List and show the presets: tasks with their axes, and figures of papers.")


class PresetFormat(StrEnum):
    """The output of `preset list` and `preset show`."""

    TEXT = "text"
    JSON = "json"


Form = Annotated[
    PresetFormat,
    typer.Option("--format", metavar="NAME", parser=one_of("format", PresetFormat), help="text or json."),
]


@presets.command("list", short_help="List every preset.")
def list_(form: Form = PresetFormat.TEXT) -> None:
    """List every preset with its subject and the figure that it restates."""
    found = [find_preset(name) for name in preset_names()]
    if form is PresetFormat.JSON:
        _print_json(presets=[_summary(preset) for preset in found])
        return
    from lrwd_sweep.report.view.preset_page import PresetList

    consoles.stdout().print(PresetList(found))


@presets.command(short_help="Show one preset.")
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE.toml", help="A name from `preset list`, or a file.")
    ] = DEFAULT,
    with_estimate: Annotated[
        bool,
        typer.Option(
            "--estimate/--no-estimate",
            help="Train a few steps on made-up data, for at most about ten seconds, to estimate how long all "
            "of it would take here.",
        ),
    ] = True,
    form: Form = PresetFormat.TEXT,
) -> None:
    """Print a preset: the figure it restates, what it trains, for how long, and its schedules as charts.

    Nothing is stored, and the data set is not needed.
    """
    request, complete = Request.of(name), completion()
    preset = replace(request.preset, task=complete(request.preset.task))
    specs = [request.spec(variant, complete=complete) for variant in preset.variants]
    if form is PresetFormat.JSON:
        axes = {n: {"lr": found.lr, "weight_decay": found.weight_decay} for n, found in preset.axes.items()}
        studies = [{"study_name": request.name(spec), **spec.to_dict()} for spec in specs]
        _print_json(preset=_summary(preset) | {"axes": axes, "studies": studies})
        return
    time = _time(specs) if with_estimate and specs else ""
    from lrwd_sweep.report.view.preset_page import PresetPage

    consoles.stdout().print(PresetPage(preset, name, specs, time))


def _time(specs: list[StudySpec]) -> str:
    """Say how long the studies would take here, and how that was measured."""
    from lrwd_sweep.report.view.preset_page import duration
    from lrwd_sweep.runner.execution import estimate

    try:
        found = estimate(specs)
    except DeviceError as error:
        return f"unknown: {error.spelled(option_text)}"
    how = (
        "measured on full packs of made-up data"
        if found.whole
        else "extrapolated from one network on small batches of made-up data"
    )
    return f"about {duration(found.seconds)} on this machine as busy as it is now, {how}"


def _summary(preset: Preset) -> dict[str, Any]:
    return {
        "name": preset.name,
        "about": preset.about,
        "restates": preset.restates,
        "claim": preset.claim,
        "seeds": preset.seeds,
        "metric": preset.metric,
        "task": preset.task.to_dict(),
        "optimizers": [str(variant.optimizer) for variant in preset.variants],
    }


def _print_json(**content: Any) -> None:
    from lrwd_sweep.report.view.document import dumps

    consoles.write(dumps({"schema_version": 1} | content))
