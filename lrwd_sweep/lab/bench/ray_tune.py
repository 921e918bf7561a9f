"""Ray Tune with a trial per core, each on one thread."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch
from ray import tune

from lrwd_sweep.engine.host import cores
from lrwd_sweep.lab.bench.plain import train_lane
from lrwd_sweep.lab.bench.task import Lane, Outcome, data
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.spec.task import Task

_QUIET = {  # no log files per trial, nothing sent anywhere, nothing on the terminal
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}

_data = cache(data)  # an actor that is used again loads it once


def run(task: Task, lanes: Sequence[Lane], device: torch.device) -> Outcome:
    """Train a trial per lane, actors being used again.

    Tune starts its actors in every `fit`, so a lane per core comes first in the same one, to warm up. The
    clock runs from the beginning of the first other trial to the end of the last, as the actors see it.
    """
    warm_up = [lanes[0]] * cores()
    os.environ.update(_QUIET)
    ray.init(num_cpus=cores(), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        with TemporaryDirectory() as folder:
            tuner = tune.Tuner(
                tune.with_resources(partial(_trial, task, device), {"cpu": 1}),
                param_space={"lane": tune.grid_search([_plain(lane) for lane in (*warm_up, *lanes)])},
                tune_config=tune.TuneConfig(reuse_actors=True),
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            )
            results = tuner.fit()
    finally:
        ray.shutdown()
    found = [results[k].metrics or {} for k in range(len(warm_up), len(results))]
    curves = {lane: m["curve"] for lane, m in zip(lanes, found, strict=True)}
    return Outcome(curves, max(m["ended"] for m in found) - min(m["began"] for m in found))


def _plain(lane: Lane) -> tuple[float, float, int]:
    cell, seed = lane
    return cell.lr, cell.weight_decay, seed


def _trial(task: Task, device: torch.device, config: Mapping[str, Any]) -> None:
    torch.set_num_threads(1)
    splits = _data(task, device)
    lr, weight_decay, seed = config["lane"]
    began = time.time()
    curve = train_lane(task, splits, (Cell(lr, weight_decay), seed))
    tune.report({"curve": curve, "began": began, "ended": time.time()})
