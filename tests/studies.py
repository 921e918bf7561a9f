"""Studies whose surface is a formula."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

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


def study(
    height: Height = bowl,
    name: str | None = "mine",  # None: the default name
    *,
    lost: Mapping[tuple[int, int, int], Status] | None = None,  # by (i, j, seed)
    **others: Any,
) -> Result:
    """Return a study of `height`, each seed a little above the one before; MISSING lanes have no metrics.

    NaN diverges, infinity is not trained. It is analysed once per process: do not change its trials.
    """
    return _study(height, name, frozenset((lost or {}).items()), **others)


@cache
def _study(
    height: Height,
    name: str | None,
    lost: frozenset[tuple[tuple[int, int, int], Status]],
    seeds: int = 3,
    kind: Kind = Kind.GRID,
    lattice: Lattice = LATTICE,
    optimizer: str = "adamw",
    noise: float = 0.0,  # of every lane
    stream: int = 0,
) -> Result:
    statuses, random, trials = dict(lost), np.random.default_rng(stream), []
    lr, decay = (np.log2([value for value in axis if value]) for axis in (lattice.lr, lattice.weight_decay))
    for k, cell in enumerate(lattice.cells()):
        i, j = divmod(k, len(lattice.weight_decay))
        b = np.log2(cell.weight_decay) - decay.mean() if cell.weight_decay else -np.inf
        for seed in range(seeds):
            value = float(height(np.log2(cell.lr) - lr.mean(), b) + 1e-4 * seed + noise * random.normal())
            if np.isinf(value):
                continue
            status = Status.DIVERGED if np.isnan(value) else statuses.get((i, j, seed), Status.COMPLETE)
            metrics = {"val_loss": value} if status is Status.COMPLETE else {}
            trials.append(Trial(cell, seed, status, metrics, detail="" if metrics else "no memory"))
    task = None if kind is Kind.IMPORT else Task()
    spec = StudySpec(kind, Optimizer.parse(optimizer), lattice, tuple(range(seeds)), "val_loss", task)
    return result(name or spec.default_name, spec, "", trials)


def without(found: Result, *lanes: tuple[int, int, int]) -> Result:
    """Return the same study before those lanes were trained."""
    cells = list(found.spec.lattice.cells())
    gone = {(cells[7 * i + j], seed) for i, j, seed in lanes}
    left = [trial for trial in found.trials if (trial.cell, trial.seed) not in gone]
    return result(found.name, found.spec, found.created, left)


def mirrored(found: Result) -> Result:
    """Return the same study in a metric of which higher is better: every value is the negative."""
    trials = [replace(one, metrics={k: -v for k, v in one.metrics.items()}) for one in found.trials]
    return result(found.name, replace(plain(found).spec, direction=Direction.MAXIMIZE), "", trials)


def plain(found: Result) -> Result:
    """Return the same study as an import, of which only the runs are known."""
    return result(found.name, replace(found.spec, kind=Kind.IMPORT, task=None), "", found.trials)
