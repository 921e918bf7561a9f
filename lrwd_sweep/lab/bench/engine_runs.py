"""Runs of the engine as under `grid`: packs on every core, results and curves into an SQLite store."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from lrwd_sweep.engine.host import cores
from lrwd_sweep.lab.bench import workload
from lrwd_sweep.lab.bench.measurement import Measurement
from lrwd_sweep.lab.bench.workload import Curves, Lane, Timed, Train, timed
from lrwd_sweep.runner.execution import Execution
from lrwd_sweep.runner.sampler import grid_cells
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Trial, unfinished
from lrwd_sweep.spec.job import PackDone
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from lrwd_sweep.store import Store, open_store


def engine(task: Task, lanes: Sequence[Lane], device: torch.device) -> Timed:
    """Train packs of lanes with lrwd-sweep."""
    with engine_trainer(str(device)) as train:
        return timed(train, task, lanes)


def scaling(asked: Measurement) -> dict[str, Any]:
    """Time every number of lanes, in random order after a warm-up, and count the lanes that train at once."""
    seconds = {}
    with engine_trainer(asked.device) as train:
        train(asked.task, workload.choose_lanes(asked.lattice, cores()))
        for number in random.sample(asked.lanes, len(asked.lanes)):
            lanes = workload.choose_lanes(asked.lattice, number)
            began = time.perf_counter()
            train(asked.task, lanes)
            seconds[number] = time.perf_counter() - began
    at_once = Execution(asked.task, asked.device).lanes_at_once()
    return {"seconds": [seconds[number] for number in asked.lanes], "at_once": at_once}


def bookkeeping(asked: Measurement) -> dict[str, Any]:
    """Time sampler and store for a square lattice of at most so many lanes; all get one trained trial."""
    execution, axis = Execution(asked.task, "cpu"), tuple(np.geomspace(1e-4, 1, math.isqrt(asked.lanes[0])))
    lattice = Lattice(axis, axis)
    (trial,) = _trials(execution, {0: [next(asked.lattice.cells())]})
    with _new_store() as store:
        began = time.perf_counter()
        cells = grid_cells(lattice)
        sampled = time.perf_counter()
        store.begin_study("bench", _spec(asked.task, lattice, (0,)))
        packs = execution.plan(unfinished(cells, (0,), store.finished("bench")))
        planned = time.perf_counter()
        trials = [[replace(trial, cell=cell) for cell in pack.cells] for pack in packs]
        made = time.perf_counter()  # which is not part of the bookkeeping
        for each in trials:
            store.add_trials("bench", each)
        stored = time.perf_counter() - made + planned - sampled
    return {"lanes": len(cells), "sampler": sampled - began, "store": stored}


@contextmanager
def engine_trainer(device: str) -> Iterator[Train]:
    """Yield a function that trains lanes as a new study; it keeps a task's data and processes."""
    names, opened = map("study-{}".format, count()), cache(lambda task: Execution(task, device))
    with _new_store() as store:

        def train(task: Task, lanes: Sequence[Lane]) -> Curves:
            name, seeds = next(names), tuple(sorted({seed for _, seed in lanes}))
            axes = tuple(cell.lr for cell, _ in lanes), tuple(cell.weight_decay for cell, _ in lanes)
            store.begin_study(name, _spec(task, Lattice(*axes), seeds))
            todo = {seed: [cell for cell, own in lanes if own == seed] for seed in seeds}
            return {(t.cell, t.seed): _curve(t) for t in _trials(opened(task), todo, store, name)}

        yield train


def _trials(
    execution: Execution, todo: Mapping[int, Sequence[Cell]], store: Store | None = None, study: str = ""
) -> Iterator[Trial]:
    """Train cells by seed, and yield their trials, stored if there is a store."""
    for event in execution.train(workload.ADAMW, execution.plan(todo, optimizer=workload.ADAMW)):
        if isinstance(event, PackDone):
            if store is not None:
                store.add_trials(study, event.trials)
            yield from event.trials


@contextmanager
def _new_store() -> Iterator[Store]:
    with TemporaryDirectory() as folder, open_store(str(Path(folder) / "bench.db"), write=True) as store:
        yield store


def _spec(task: Task, lattice: Lattice, seeds: tuple[int, ...]) -> StudySpec:
    return StudySpec(Kind.GRID, workload.ADAMW, lattice, seeds, "val_loss", task)


def _curve(trial: Trial) -> list[float]:
    return [*trial.curves["val_loss"], trial.metrics.get("test_loss", math.nan)]
