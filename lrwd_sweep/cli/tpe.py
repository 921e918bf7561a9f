"""`lrwd-sweep tpe`: Optuna's TPE over the continuous box of the same axes."""

from __future__ import annotations

from typing import Annotated

import typer

from lrwd_sweep.cli import options
from lrwd_sweep.cli.parse import whole
from lrwd_sweep.cli.study_run import refuse_failed, show
from lrwd_sweep.cli.task import takes_task
from lrwd_sweep.runner.runner import Runner, check_device
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.preset import MOST_TRIALS, TRIALS
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import Kind


@takes_task
def tpe(
    optimizer: options.OptimizerName = None,
    trials: Annotated[
        int,
        typer.Option(
            "--trials",
            metavar="N",
            parser=whole("--trials", most=MOST_TRIALS),
            help="Points (α, λ) in all, those of earlier runs included; each trains all seeds.",
        ),
    ] = TRIALS,
    request: Request = Request(),  # noqa: B008 - never the default: takes_task puts it in
    device: options.Device = "auto",
    max_lanes: options.MaxLanes = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    study_name: options.StudyName = None,
    storage: options.Storage = None,
    retrain_damaged: options.RetrainDamaged = False,
) -> None:
    """Search (α, λ) with Optuna's TPE inside the box of the axes, a batch of points at a time.

    The result is drawn on the lattice, each point in its nearest cell, with the best points listed. The
    same command with a larger --trials searches on from there.
    """
    variant = request.variant(optimizer)
    spec = request.spec(variant, Kind.TPE)
    files = DataFiles(data_dir, download)
    files.check([spec])
    check_device(device)
    from lrwd_sweep.store import check_name, open_store

    name = request.name(spec) if study_name is None else study_name
    check_name(name)
    with open_store(storage, write=True) as store:
        Runner(store, device, max_lanes, files, retrain_damaged=retrain_damaged).tpe(name, spec, trials)
        show(store, [name], spec.metric, data_dir=data_dir)
        refuse_failed(store, [name])
