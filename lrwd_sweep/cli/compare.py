"""`lrwd-sweep compare`: lattices side by side, and what differs."""

from __future__ import annotations

from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.study_run import Task, Trainer, check_device, refuse_failed, show
from lrwd_sweep.decay import Optimizer
from lrwd_sweep.errors import UsageError


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
    preset: options.Preset = options.DEFAULT_PRESET,
    lr: options.Lr = None,
    wd: options.Wd = None,
    seeds: options.Seeds = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    schedule: options.ScheduleName = None,
    net: options.Net = None,
    data: options.Data = None,
    metric: options.Metric = None,
    device: options.Device = "auto",
    max_lanes: options.MaxLanes = None,
    storage: options.Storage = None,
) -> None:
    """Train the lattices of several optimizers and compare them seed by seed: heatmaps, numbers, verdict.

    The same seed is the same initialisation and data order in every cell and every optimizer. What the
    store already holds is not trained again; `report` shows the comparison again later.
    """
    task = Task.of(
        preset,
        lr,
        wd,
        seeds,
        metric,
        epochs=epochs,
        batch_size=batch_size,
        schedule=schedule,
        net=net,
        data=data,
    )
    chosen = [Optimizer.parse(name) for name in optimizers or ()] or list(task.variants())
    if len(set(chosen)) < 2 or len(set(chosen)) < len(chosen):
        given = " ".join(map(str, chosen))
        raise UsageError(f"compare {given}: name two or more different optimizers, as in compare adam adamw")
    specs = [task.spec(optimizer) for optimizer in chosen]
    check_device(device)
    from lrwd_sweep.store import open_store

    with open_store(storage, write=True) as store:
        names = [spec.default_name for spec in specs]
        for name, spec in zip(names, specs, strict=True):
            store.check_study(name, spec)  # before any of them trains
        trainer = Trainer(store, device, max_lanes)
        for name, spec in zip(names, specs, strict=True):
            trainer.grid(name, spec)
        store.record_comparison(names)
        show(store, names, specs[0].metric)
        refuse_failed(store, names)
