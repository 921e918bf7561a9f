"""`lrwd-sweep grid`: one lattice."""

from __future__ import annotations

from lrwd_sweep.cli import options
from lrwd_sweep.cli.study_run import Task, Trainer, check_device, refuse_failed, show
from lrwd_sweep.decay import Optimizer


def grid(
    optimizer: options.OptimizerName = options.DEFAULT_OPTIMIZER,
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
    study_name: options.StudyName = None,
    storage: options.Storage = None,
) -> None:
    """Train one optimizer's (α, λ) lattice, several seeds per cell, and report it.

    What the store already holds is not trained again: the same command finishes what is missing, and a
    larger lattice or more seeds extend the study.
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
    spec = task.spec(Optimizer.parse(optimizer))
    check_device(device)
    from lrwd_sweep.store import check_name, open_store

    name = spec.default_name if study_name is None else study_name
    check_name(name)
    with open_store(storage, write=True) as store:
        Trainer(store, device, max_lanes).grid(name, spec)
        show(store, [name], spec.metric)
        refuse_failed(store, [name])
