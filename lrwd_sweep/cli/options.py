"""The options that commands share, each with its unit and default."""

from __future__ import annotations

from typing import Annotated

import typer

from lrwd_sweep.catalog import METRICS, NETWORKS
from lrwd_sweep.preset import DEFAULT
from lrwd_sweep.schedule import Schedule

_OF_PRESET = "(default: the preset's)"

OptimizerName = Annotated[
    str,
    typer.Option(
        "--optimizer",
        "-o",
        metavar="NAME",
        help="FAMILY[w][:RULE]: adam is Adam with L2, adamw the paper's decoupled decay, adamw:lr-scaled "
        "PyTorch's AdamW; likewise sgd, sgdw, sgdw:lr-scaled.",
    ),
]
Preset = Annotated[
    str,
    typer.Option("--preset", metavar="NAME|FILE.toml", help="Task and axes; see `lrwd-sweep preset list`."),
]
Lr = Annotated[
    str | None,
    typer.Option(
        "--lr",
        metavar="AXIS",
        help="Learning rates: 2^-12:2^-2 (powers of two), 1e-4:1e-1:9 (log-spaced count) or a list 1e-3,1e-2 "
        + _OF_PRESET
        + ".",
    ),
]
Wd = Annotated[
    str | None,
    typer.Option(
        "--wd",
        metavar="AXIS",
        help="Weight decays in the optimizer's own convention, written as --lr; 0 may stand in a list as a "
        f"baseline {_OF_PRESET}.",
    ),
]
Net = Annotated[
    str | None, typer.Option("--net", metavar="NAME", help=f"{' or '.join(NETWORKS)} {_OF_PRESET}.")
]
Data = Annotated[str | None, typer.Option("--data", metavar="NAME", help=f"Data set: digits {_OF_PRESET}.")]
Epochs = Annotated[
    int | None, typer.Option("--epochs", metavar="N", help=f"Passes over the training set {_OF_PRESET}.")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", help=f"Samples per step {_OF_PRESET}.")
]
ScheduleName = Annotated[
    str | None,
    typer.Option("--schedule", metavar="NAME", help=f"Of α and decay: {', '.join(Schedule)} {_OF_PRESET}."),
]
Seeds = Annotated[
    int | None,
    typer.Option("--seeds", metavar="N", help=f"Seeds 0 … N−1 in every cell; intervals need 3 {_OF_PRESET}."),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", metavar="NAME", help=f"What is minimised: {', '.join(METRICS)} {_OF_PRESET}."),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto (CUDA where there is one), cpu, cuda or cuda:N.")
]
MaxLanes = Annotated[
    int | None,
    typer.Option(
        "--max-lanes",
        metavar="N",
        min=1,
        help="At most N lanes in a pack (default: what suits cache and memory).",
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option(
        "--study-name", metavar="NAME", help="Name in the store (default: follows from the options)."
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="PATH|URL",
        help="SQLite file or sqlite:///URL (default: $LRWD_STORAGE, else lrwd-sweep.db here).",
    ),
]

DEFAULT_PRESET = DEFAULT
