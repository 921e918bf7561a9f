"""What sampler and store cost for very many lanes, without training them: what its own process measures."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lrwd_sweep.lab.bench.order import Order
from lrwd_sweep.lab.bench.task import OPTIMIZER
from lrwd_sweep.runner.execution import Execution
from lrwd_sweep.runner.sampler import grid_cells
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Trial, unfinished
from lrwd_sweep.spec.job import Pack, PackDone
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store import open_store


def measure(order: Order) -> dict[str, Any]:
    """Seconds of everything that a sweep of one seed does besides training: one real trial stands for all."""
    optimizer, pool = Optimizer.parse(OPTIMIZER), Execution(order.task, "cpu")
    side = math.isqrt(order.lanes[0])
    lattice = Lattice(tuple(np.geomspace(1e-4, 1, side)), tuple(np.geomspace(1e-4, 1, side)))
    spec = StudySpec(Kind.GRID, optimizer, lattice, (0,), "val_loss", order.task)
    trial = _trial(pool, optimizer, order.lattice)
    with TemporaryDirectory() as folder, open_store(str(Path(folder) / "bench.db"), write=True) as store:
        began = time.perf_counter()
        cells = grid_cells(lattice)
        sampled = time.perf_counter()
        store.begin_study("bench", spec)
        packs = pool.plan(unfinished(cells, spec.seeds, store.finished("bench")))
        made = time.perf_counter()
        trials = [[replace(trial, cell=cell) for cell in pack.cells] for pack in packs]
        made = time.perf_counter() - made  # is no bookkeeping
        for each in trials:
            store.add_trials("bench", each)
        stored = time.perf_counter() - made
    return {"lanes": len(cells), "sampler": sampled - began, "store": stored - sampled}


def _trial(pool: Execution, optimizer: Optimizer, lattice: Lattice) -> Trial:
    """What training one cell gives."""
    pack = Pack((next(lattice.cells()),), seed=0)
    (trial,) = (
        trial
        for event in pool.train(optimizer, [pack])
        if isinstance(event, PackDone)
        for trial in event.trials
    )
    return trial
