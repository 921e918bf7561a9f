"""`lrwd-sweep compare`: lattices side by side, and what differs."""

from __future__ import annotations

from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.data_files import DataFiles
from lrwd_sweep.cli.study_run import Trainer, check_device, refuse_failed, show
from lrwd_sweep.cli.task import Task, takes_task
from lrwd_sweep.errors import UsageError
from lrwd_sweep.spec import labels


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
    task: Task = Task(),  # noqa: B008 - never the default: takes_task puts it in
    device: options.Device = "auto",
    max_lanes: options.MaxLanes = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    storage: options.Storage = None,
) -> None:
    """Train the lattices of several optimizers and compare them seed by seed: heatmaps, numbers, verdict.

    The same seed is the same initialisation and data order in every cell and every optimizer. What the
    store already holds is not trained again; `report` shows the comparison again later.
    """
    specs = [task.spec(variant) for variant in task.variants(optimizers or ())]
    names = [task.name(spec) for spec in specs]
    if len(set(names)) < len(names) and not optimizers:
        raise UsageError(
            f"--preset {task.preset}: with these options some of its variants are the same study; "
            "leave out what they differ in"
        )
    if len(set(names)) < max(len(names), 2 if optimizers else 1):
        given = " ".join(spec.title for spec in specs)
        raise UsageError(f"compare {given}: name two or more different optimizers, as in compare adam adamw")
    files = DataFiles(data_dir, download)
    files.check(specs)
    check_device(device)
    from lrwd_sweep.store import open_store

    with open_store(storage, write=True) as store:
        for name, spec in zip(names, specs, strict=True):
            store.check_study(name, spec)  # before any of them trains
        trainer = Trainer(store, device, max_lanes, files)
        for name, spec, title in zip(names, specs, labels(specs), strict=True):
            trainer.grid(name, spec, title)
        store.record_comparison(names)
        show(store, names, specs[0].metric, task.pictures)
        refuse_failed(store, names)
