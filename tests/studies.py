"""Studies whose surface is a formula."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from lrwd_sweep.report.result import Result, result
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task

LATTICE = Lattice(tuple(2.0 ** np.arange(-9, -2)), tuple(2.0 ** np.arange(-7, 0)))
Height = Callable[[float, float], float]  # of the surface at (log2 α, log2 λ), from the lattice's centre


def bowl(a: float, b: float) -> float:
    return 0.1 + 0.01 * (a**2 + b**2)


def ridge(a: float, b: float) -> float:
    return 0.1 + 0.01 * (a + b) ** 2 + 1e-4 * a**2


@cache
def study(
    height: Height = bowl,
    name: str | None = "mine",  # None: the default name
    *,
    seeds: int = 3,
    kind: Kind = Kind.GRID,
    lattice: Lattice = LATTICE,
    optimizer: str = "adamw",
    noise: float = 0.0,  # of every lane
    stream: int = 0,
) -> Result:
    """Return a study of `height`, each seed a little above the one before.

    NaN diverges, infinity is not trained. It is analysed once per process: do not change its trials.
    """
    random, trials = np.random.default_rng(stream), []
    lr, decay = (np.log2([value for value in axis if value]) for axis in (lattice.lr, lattice.weight_decay))
    for cell in lattice.cells():
        b = np.log2(cell.weight_decay) - decay.mean() if cell.weight_decay else -np.inf
        for seed in range(seeds):
            value = float(height(np.log2(cell.lr) - lr.mean(), b) + 1e-4 * seed + noise * random.normal())
            if np.isinf(value):
                continue
            ended = Trial(cell, seed, Status.COMPLETE, {"val_loss": value})
            trials.append(Trial(cell, seed, Status.DIVERGED) if np.isnan(value) else ended)
    task = None if kind is Kind.IMPORT else Task()
    spec = StudySpec(kind, Optimizer.parse(optimizer), lattice, tuple(range(seeds)), "val_loss", task)
    return result(name or spec.default_name, spec, "", trials)


def without(found: Result, *lanes: tuple[int, ...], status: Status | None = None) -> Result:
    """Return the same 7×7 study before those lanes (i, j, seed) were trained, or had they ended otherwise."""
    cells = list(found.spec.lattice.cells())
    gone = {(cells[7 * i + j], seed) for i, j, seed in lanes}
    left = [trial for trial in found.trials if (trial.cell, trial.seed) not in gone]
    left += [Trial(cell, seed, status, {}, detail="no memory") for cell, seed in gone if status]
    return result(found.name, found.spec, found.created, left)


def mirrored(found: Result) -> Result:
    """Return the same study in a metric of which higher is better: every value is the negative."""
    trials = [replace(one, metrics={k: -v for k, v in one.metrics.items()}) for one in found.trials]
    return result(found.name, replace(plain(found).spec, direction=Direction.MAXIMIZE), "", trials)


def plain(found: Result) -> Result:
    """Return the same study as an import, of which only the runs are known."""
    return result(found.name, replace(found.spec, kind=Kind.IMPORT, task=None), "", found.trials)
