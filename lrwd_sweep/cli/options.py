"""The options that commands share, each with its unit and default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from lrwd_sweep.catalog import DATA_SETS, METRICS, NETWORKS
from lrwd_sweep.cli.parse import whole
from lrwd_sweep.decay import Optimizer
from lrwd_sweep.lattice import format_axis
from lrwd_sweep.preset import DEFAULT, MOST_SEEDS, find_preset
from lrwd_sweep.schedule import Schedule

DEFAULT_PRESET = DEFAULT
DEFAULT_OPTIMIZER = "adamw"

_preset = find_preset(DEFAULT)
_training = _preset.training
_lattice = _preset.lattice(Optimizer.parse(DEFAULT_OPTIMIZER))


def _else(value: object) -> str:
    """The default of an option that a preset sets."""
    return f"(default: the preset's; {DEFAULT}: {value})"


def _described(names: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {about}" for name, about in names.items())


OptimizerName = Annotated[
    str,
    typer.Option(
        "--optimizer",
        "-o",
        metavar="NAME",
        help="FAMILY[w][:RULE]. adam: Adam with L2; adamw: the AdamW paper's decay, independent of α; "
        "adamw:lr-scaled: PyTorch's AdamW, decay times α; likewise sgd, sgdw, sgdw:lr-scaled.",
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME|FILE.toml",
        help="Task, axes and all that is not given here; see `lrwd-sweep preset list`.",
    ),
]
Lr = Annotated[
    str | None,
    typer.Option(
        "--lr",
        metavar="AXIS",
        help="Learning rates α: 2^-12:2^-2 is every power of two, 1e-4:1e-1:9 nine log-spaced values, "
        f"1e-3,3e-3,1e-2 a list {_else(f'{format_axis(_lattice.lr)} for {DEFAULT_OPTIMIZER}')}.",
    ),
]
Wd = Annotated[
    str | None,
    typer.Option(
        "--wd",
        metavar="AXIS",
        help="Weight decays, in the optimizer's own convention, written as --lr; a first 0 is a baseline, as "
        f"in 0,2^-11:2^-1 {_else(f'{format_axis(_lattice.weight_decay)} for {DEFAULT_OPTIMIZER}')}.",
    ),
]
Net = Annotated[
    str | None, typer.Option("--net", metavar="NAME", help=f"{_described(NETWORKS)} {_else(_training.net)}.")
]
Data = Annotated[
    str | None,
    typer.Option("--data", metavar="NAME", help=f"Data set: {', '.join(DATA_SETS)} {_else(_training.data)}."),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        metavar="N",
        parser=whole("--epochs"),
        help=f"Passes over the training set {_else(_training.epochs)}.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        parser=whole("--batch-size", least=2),
        help=f"Samples per step; an incomplete last batch is dropped {_else(_training.batch_size)}.",
    ),
]
ScheduleName = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        metavar="NAME",
        help=f"How step and decay move over the run: {', '.join(Schedule)} {_else(_training.schedule)}.",
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        metavar="N",
        parser=whole("--seeds", most=MOST_SEEDS),
        help=f"Seeds 0 … N−1 in every cell; intervals need at least 3 {_else(_preset.seeds)}.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric", metavar="NAME", help=f"What is minimised. {_described(METRICS)} {_else(_preset.metric)}."
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="auto takes CUDA where there is one; cpu, cuda or cuda:N."),
]
MaxLanes = Annotated[
    int | None,
    typer.Option(
        "--max-lanes",
        metavar="N",
        parser=whole("--max-lanes"),
        help="At most N networks trained together as one pack (default: what suits cache and memory).",
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option(
        "--study-name",
        metavar="NAME",
        help="The study's name in the store (default: made of task and optimizer).",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="PATH|URL",
        help="The store: an SQLite file, or sqlite:///PATH (default: $LRWD_STORAGE, else lrwd-sweep.db "
        "in this directory).",
    ),
]
