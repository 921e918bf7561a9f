"""Proposals of Optuna for the next cells to train, and export of a study to Optuna.

Every call fills a new in-memory study and asks it: proposals follow only from the arguments, and Optuna is
not told thousands of trials one by one.
"""

import math
import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from lrwd_sweep.errors import NothingToReport, UsageError
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Direction, Status, Trial

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every new study on stderr

SEPARATION = 0.02  # least distance between cells of one batch, in log axes, the box's sides being 1
PATIENCE = 20  # cells per proposal that may be turned down because they are too near

_Box = dict[str, FloatDistribution]


def grid_cells(lattice: Lattice, only: Collection[Cell] | None = None) -> list[Cell]:
    """Return every cell of the lattice once, row by row, as Optuna's GridSampler enumerates them.

    `only` some: as Optuna's study hands them out that they were enqueued in.
    """
    axes = {"lr": lattice.lr, "weight_decay": lattice.weight_decay}
    box: _Box = {name: FloatDistribution(min(values), max(values)) for name, values in axes.items()}
    # Never told: at every `tell` GridSampler scans all trials.
    study = optuna.create_study(sampler=optuna.samplers.GridSampler(axes, seed=0))
    for cell in only or ():
        study.enqueue_trial({"lr": cell.lr, "weight_decay": cell.weight_decay})
    return sorted(_cell(study.ask({**box})) for _ in range(len(lattice if only is None else only)))


def propose_cells(
    lattice: Lattice,
    trials: Iterable[Trial],
    count: int,
    *,
    seeds: Sequence[int],
    metric: str,
    direction: Direction = Direction.MINIMIZE,
    seed: int = 0,
) -> list[Cell]:
    """Return `count` new cells, spread out, from Optuna's TPE on the lattice's log-uniform box (λ > 0).

    TPE is told the mean of `metric` of a cell whose `seeds` are all finished, its negative if higher is
    better; if one diverged, that the cell
    is infeasible and worse than the worst. Any other cell of `trials` counts as running. `trials` are in the
    order of storing, which TPE's weights follow. The same arguments give the same cells.
    """
    bounds = {
        "lr": (min(lattice.lr), max(lattice.lr)),
        "weight_decay": (min(v for v in lattice.weight_decay if v > 0), max(lattice.weight_decay)),
    }
    box: _Box = {name: FloatDistribution(low, high, log=True) for name, (low, high) in bounds.items()}
    sign = -1 if direction is Direction.MAXIMIZE else 1
    observed = _observed(trials, box, set(seeds), metric, sign)
    # TPE draws its first trials at random: another batch needs another seed.
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=_seed(seed, len(observed))))
    study.add_trials(observed)
    batch: list[Cell] = []
    turned_down = 0
    while len(batch) < count:
        # Even if turned down it stays "running", so that the constant liar keeps the next ones away.
        cell = _cell(study.ask({**box}))
        if turned_down < PATIENCE * count and any(_distance(cell, c, bounds) < SEPARATION for c in batch):
            turned_down += 1
        else:
            batch.append(cell)
    return batch


def export_to_optuna(
    trials: Sequence[Trial],
    path: Path,
    study_name: str,
    *,
    metric: str,
    direction: Direction = Direction.MINIMIZE,
) -> None:
    """Write trials into a new SQLite file as a study in Optuna's own format, one Optuna trial for each lane.

    A lane that did not complete is a failed trial. Seed, status and all metrics are user attributes; the
    curve of `metric` is the intermediate values, by epoch from 1. Raises UsageError when the file exists or
    cannot be written.
    """
    if path.exists():
        raise UsageError(f"{str(path)!r} exists already; name a new file")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"{str(path)!r}: {str(path.parent)!r} is not a directory that can be written; name another"
        )
    if set("?%") & set(str(path)):
        raise UsageError(
            f"{str(path)!r} has a ? or % in it, which Optuna's storage URLs take apart; name another"
        )
    if not trials:
        raise NothingToReport(f"study {study_name!r} has no trials to export")
    axes = {name: [getattr(trial.cell, name) for trial in trials] for name in ("lr", "weight_decay")}
    box = {name: FloatDistribution(min(v), max(v), log=min(v) > 0) for name, v in axes.items()}
    draft = path.with_name(path.name + ".part")  # an interrupted export must not look like a finished one
    draft.unlink(missing_ok=True)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{draft}")
        study = optuna.create_study(
            storage=storage, study_name=study_name, direction=StudyDirection[direction.name]
        )
        study.set_user_attr("metric", metric)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([metric])  # the dashboard says it instead of "Objective 0"
        study.add_trials(_exported(trial, box, metric) for trial in trials)
        storage.remove_session()
        storage.engine.dispose()
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


def _observed(
    trials: Iterable[Trial], box: _Box, seeds: set[int], metric: str, sign: int
) -> list[FrozenTrial]:
    """Make an Optuna trial for each cell of `trials`, with lower values as better."""
    lanes: dict[Cell, dict[int, Trial]] = {}
    for trial in trials:
        if trial.seed in seeds:
            lanes.setdefault(trial.cell, {})[trial.seed] = trial
    means: dict[Cell, float] = {}  # of finished cells; infinite if a lane diverged
    for cell, found in lanes.items():
        if seeds == found.keys() and all(trial.status is not Status.FAILED for trial in found.values()):
            values = [
                sign * trial.metrics[metric] if trial.status is Status.COMPLETE else math.inf
                for trial in found.values()
            ]
            means[cell] = math.fsum(values) / len(values)
    worst = max(filter(math.isfinite, means.values()), default=0.0)
    observed = []
    for cell in lanes:
        told: dict[str, Any] = {"state": TrialState.RUNNING}
        if cell in means:
            told = {"value": means[cell]}
            if not math.isfinite(means[cell]):
                told = {"value": worst + 1, "constraints": {"diverged": 1.0}}
        params = {name: min(max(getattr(cell, name), side.low), side.high) for name, side in box.items()}
        observed.append(create_trial(params=params, distributions={**box}, **told))
    return observed


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _distance(a: Cell, b: Cell, bounds: Mapping[str, tuple[float, float]]) -> float:
    """Compute the Euclidean distance in log axes where each side of the box is 1."""
    sides = ((getattr(a, name), getattr(b, name), high / low) for name, (low, high) in bounds.items())
    return math.hypot(*(math.log(x / y) / math.log(ratio) for x, y, ratio in sides))


def _exported(trial: Trial, box: _Box, metric: str) -> FrozenTrial:
    complete = trial.status is Status.COMPLETE
    attributes = {"seed": trial.seed, "status": str(trial.status)}
    attributes |= {"detail": trial.detail} if trial.detail else {}
    attributes |= {name: value for name, value in trial.metrics.items() if name != "value"}
    return create_trial(
        state=TrialState.COMPLETE if complete else TrialState.FAIL,
        value=trial.metrics[metric] if complete else None,
        params={"lr": trial.cell.lr, "weight_decay": trial.cell.weight_decay},
        distributions={**box},
        user_attrs=attributes,
        intermediate_values={
            epoch: value
            for epoch, value in enumerate(trial.curves.get(metric, ()), start=1)
            if math.isfinite(value)
        },
    )


def _cell(trial: optuna.Trial) -> Cell:
    return Cell(trial.params["lr"], trial.params["weight_decay"])
