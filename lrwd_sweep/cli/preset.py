"""`lrwd-sweep preset`: the tasks that come with the package."""

from __future__ import annotations

from typing import Annotated

import typer

from lrwd_sweep.lattice import format_axis
from lrwd_sweep.preset import Preset, find_preset, preset_names
from lrwd_sweep.view import consoles

presets = typer.Typer(name="preset", help="Show the presets.", no_args_is_help=True, rich_markup_mode=None)


@presets.command("list")
def list_() -> None:
    """Name every preset with what it is about."""
    for name in preset_names():
        consoles.stdout().print(f"{name}  {find_preset(name).about}", soft_wrap=True)


@presets.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE.toml", show_default=False)] = "digits",
) -> None:
    """Print all that a preset says, and how much there is to train."""
    for line in _lines(find_preset(name)):
        consoles.stdout().print(line, soft_wrap=True)


def _lines(preset: Preset) -> list[str]:
    t = preset.training
    lines = [
        f"{preset.name}: {preset.about}",
        f"task      {t.data} ({t.sizes.train} train, {t.sizes.validation} validation, {t.sizes.test} test), "
        f"{t.net}, {t.epochs} epochs of {t.steps_per_epoch} batches of {t.batch_size}, {t.schedule} schedule",
        f"seeds     {preset.seeds} per cell; metric {preset.metric}",
        f"compares  {', '.join(map(str, preset.variants)) or 'nothing by default'}",
        "axes",
    ]
    width = max(map(len, preset.axes), default=0)
    for name, lattice in preset.axes.items():
        lanes = len(lattice) * preset.seeds
        lines.append(
            f"  {name:{width}}  --lr {format_axis(lattice.lr)} --wd {format_axis(lattice.weight_decay)}  "
            f"{len(lattice)} cells, {lanes} lanes, {lanes * t.steps:,} lane-steps"
        )
    return lines
