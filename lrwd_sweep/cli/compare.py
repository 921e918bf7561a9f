"""`lrwd-sweep compare`: lattices side by side, and what differs."""

from __future__ import annotations

from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.study_run import refuse_failed, show
from lrwd_sweep.cli.task import takes_task
from lrwd_sweep.runner.runner import Runner, check_device
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.request import Request


@takes_task
def compare(
    optimizers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OPTIMIZER",
            help="Two or more, named as for `grid --optimizer`, the first being what the others are compared "
            "with (default: the preset's; digits: adam adamw).",
            show_default=False,
        ),
    ] = None,
    request: Request = Request(),  # noqa: B008 - never the default: takes_task puts it in
    device: options.Device = "auto",
    max_lanes: options.MaxLanes = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    storage: options.Storage = None,
    retrain_damaged: options.RetrainDamaged = False,
) -> None:
    """Train the lattices of several optimizers and compare them seed by seed: heatmaps, numbers, verdict.

    The same seed is the same initialisation and data order in every cell and every optimizer. What the
    store already holds is not trained again; `report` shows the comparison again later.
    """
    specs = request.compared(optimizers or ())
    files = DataFiles(data_dir, download)
    files.check(specs.values())
    check_device(device)
    from lrwd_sweep.store import open_store

    with open_store(storage, write=True) as store:
        Runner(store, device, max_lanes, files, retrain_damaged=retrain_damaged).compare(specs)
        show(store, list(specs), next(iter(specs.values())).metric, request.pictures, data_dir)
        refuse_failed(store, list(specs))
