"""`lrwd-sweep grid`: one lattice."""

from __future__ import annotations

from lrwd_sweep.cli import options
from lrwd_sweep.cli.study_run import refuse_failed, show
from lrwd_sweep.cli.task import takes_task
from lrwd_sweep.runner.runner import Runner, check_device
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.request import Request


@takes_task
def grid(
    optimizer: options.OptimizerName = None,
    request: Request = Request(),  # noqa: B008 - never the default: takes_task puts it in
    device: options.Device = "auto",
    max_lanes: options.MaxLanes = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    study_name: options.StudyName = None,
    storage: options.Storage = None,
    retrain_damaged: options.RetrainDamaged = False,
) -> None:
    """Train one optimizer's (α, λ) lattice, several seeds per cell, and report it.

    What the store already holds is not trained again: the same command finishes what is missing, and a
    larger lattice or more seeds extend the study.
    """
    variant = request.variant(optimizer)
    spec = request.spec(variant)
    files = DataFiles(data_dir, download)
    files.check([spec])
    check_device(device)
    from lrwd_sweep.store import check_name, open_store

    name = request.name(spec) if study_name is None else study_name
    check_name(name)
    with open_store(storage, write=True) as store:
        Runner(store, device, max_lanes, files, retrain_damaged=retrain_damaged).grid(name, spec)
        show(store, [name], spec.metric, request.pictures, data_dir)
        refuse_failed(store, [name])
