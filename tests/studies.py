"""Studies whose surface is a formula."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from lrwd_sweep.report.result import Result, result
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task

Height = Callable[[float, float], float]  # of the surface at (log2 α, log2 λ), from the lattice's centre


def bowl(a: float, b: float) -> float:
    return 0.1 + 0.01 * (a**2 + b**2)


def ridge(a: float, b: float) -> float:
    return 0.1 + 0.01 * (a + b) ** 2 + 1e-4 * a**2


def study(
    height: Height = bowl,
    name: str = "mine",
    *,
    seeds: int = 3,
    lost: Mapping[tuple[int, int, int], Status] | None = None,  # by (i, j, seed)
    kind: Kind = Kind.GRID,
) -> Result:
    """Return a 7×7 study of `height`, each seed a little above the one before; MISSING lanes have no metrics.

    It is analysed once per process: do not change its trials.
    """
    return _study(height, name, seeds, frozenset((lost or {}).items()), kind)


@cache
def _study(
    height: Height, name: str, seeds: int, lost: frozenset[tuple[tuple[int, int, int], Status]], kind: Kind
) -> Result:
    lattice = Lattice(tuple(2.0 ** np.arange(-9, -2)), tuple(2.0 ** np.arange(-7, 0)))
    statuses = dict(lost)
    trials = []
    for k, cell in enumerate(lattice.cells()):
        i, j = divmod(k, 7)
        for seed in range(seeds):
            status = statuses.get((i, j, seed), Status.COMPLETE)
            value = height(i - 3, j - 3) + 1e-4 * seed
            metrics = {"val_loss": value} if status is Status.COMPLETE else {}
            trials.append(Trial(cell, seed, status, metrics, detail="" if metrics else "no memory"))
    spec = StudySpec(kind, Optimizer.parse("adamw"), lattice, tuple(range(seeds)), "val_loss", Task())
    return result(name, spec, "", trials)


def without(found: Result, *lanes: tuple[int, int, int]) -> Result:
    """Return the same study before those lanes were trained."""
    cells = list(found.spec.lattice.cells())
    gone = {(cells[7 * i + j], seed) for i, j, seed in lanes}
    left = [trial for trial in found.trials if (trial.cell, trial.seed) not in gone]
    return result(found.name, found.spec, found.created, left)


def mirrored(found: Result) -> Result:
    """Return the same study in a metric of which higher is better: every value is the negative."""
    trials = [
        replace(trial, metrics={name: -value for name, value in trial.metrics.items()})
        for trial in found.trials
    ]
    spec = replace(found.spec, kind=Kind.IMPORT, task=None, direction=Direction.MAXIMIZE)
    return result(found.name, spec, found.created, trials)


def plain(found: Result) -> Result:
    """Return the same study as an import, of which only the runs are known."""
    return result(found.name, replace(found.spec, kind=Kind.IMPORT, task=None), "", found.trials)
