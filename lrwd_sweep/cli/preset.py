"""`lrwd-sweep preset`: the tasks that come with the package."""

from __future__ import annotations

from typing import Annotated

import typer

from lrwd_sweep.cli.group import group
from lrwd_sweep.lattice import format_axis
from lrwd_sweep.preset import DEFAULT, Preset, find_preset, preset_names
from lrwd_sweep.view import consoles
from lrwd_sweep.view.plain import plain

presets = group("preset", "List and show the presets: tasks with their axes.")


@presets.command("list", short_help="List every preset.")
def list_() -> None:
    """Name every preset with what it is about."""
    for name in preset_names():
        consoles.stdout().print(plain(f"{name}  {find_preset(name).about}"), soft_wrap=True)


@presets.command(short_help="Show one preset.")
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE.toml", help="A name from `preset list`, or a file.")
    ] = DEFAULT,
) -> None:
    """Print all that a preset says, and how much there is to train."""
    for line in _lines(find_preset(name)):
        consoles.stdout().print(plain(line), soft_wrap=True)


def _lines(preset: Preset) -> list[str]:
    t, sizes = preset.training, preset.training.data_set
    variants = [str(variant.optimizer) for variant in preset.variants]
    lines = [
        f"{preset.name}: {preset.about}",
        f"task      {t.data} ({sizes.train} train, {sizes.validation} validation, {sizes.test} test), "
        f"{t.net}, {t.epochs} epochs of {t.steps_per_epoch} batches of {t.batch_size}, {t.schedule} schedule",
        f"seeds     {preset.seeds} per cell; metric {preset.metric}",
        f"compares  {', '.join(variants) or 'nothing by default'}",
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
