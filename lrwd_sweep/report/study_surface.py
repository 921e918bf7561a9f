"""A study's trials laid out on its lattice, and the lanes that a refined lattice needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.refinement import Refinement, refine
from lrwd_sweep.science.separability.analysis import Settings
from lrwd_sweep.science.separability.verdict import MARGIN
from lrwd_sweep.science.surface import Surface
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import WHOLE, Shard
from lrwd_sweep.spec.study import StudySpec


def surface_of(trials: Iterable[Trial], spec: StudySpec) -> Surface:
    """Lay trials out on the study's lattice in its metric; those of a search in their nearest cells."""
    return Surface.from_trials(
        on_lattice(trials, spec.lattice, spec.metric) if spec.is_search else trials,
        spec.lattice,
        spec.seeds,
        metric=spec.metric,
        rule=spec.optimizer.rule,
        cap=spec.cap,
        normalized=spec.optimizer.normalized,
        direction=spec.direction,
        tau_of_one=spec.tau_of_one,
    )


def refinement(surface: Surface, spec: StudySpec) -> Refinement:
    """Return the state of a refined lattice; `surface` is in the study's own metric, of all its seeds."""
    assert spec.refine is not None, "the lattice is trained whole"
    margin = MARGIN if spec.refine.margin is None else spec.refine.margin
    with np.errstate(all="ignore"):  # absurdly large values overflow
        return refine(surface, budget=spec.refine.max_runs, settings=Settings(margin=margin))


def round_of(spec: StudySpec, trials: Sequence[Trial]) -> dict[int, list[Cell]]:
    """Return the lanes of a refined lattice's present round that did not end, cells by seed."""
    surface = surface_of(trials, spec)
    todo = refinement(surface, spec).todo
    cells = {seed: todo[..., r].nonzero() for r, seed in enumerate(spec.seeds)}
    found = {seed: [surface.cell(i, j) for i, j in zip(*at, strict=True)] for seed, at in cells.items()}
    return {seed: lanes for seed, lanes in found.items() if lanes}


def count_runs(spec: StudySpec, trials: Iterable[Trial], shard: Shard = WHOLE) -> int:
    """Count the runs of a lattice; of a refined one those that ended and those of the present round."""
    if spec.refine is None:
        return shard.count(spec.lattice, spec.seeds)
    surface = surface_of(trials, spec)
    return surface.runs[0] + int(refinement(surface, spec).todo.sum())


def on_lattice(trials: Iterable[Trial], lattice: Lattice, metric: str) -> list[Trial]:
    """Move trials of a continuous search to their nearest lattice cells in log distance.

    Completed trials are averaged per cell and seed; without any, the cell keeps the first trial's status.
    """
    groups: dict[tuple[Cell, int], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((nearest(trial.cell, lattice), trial.seed), []).append(trial)
    moved = []
    for (cell, seed), group in groups.items():
        values = [trial.metrics[metric] for trial in group if metric in trial.metrics]
        if values:
            moved.append(Trial(cell, seed, Status.COMPLETE, {metric: sum(values) / len(values)}))
        else:
            moved.append(replace(group[0], cell=cell))
    return moved


def nearest(cell: Cell, lattice: Lattice) -> Cell:
    """Return the lattice cell at the smallest log distance, axis by axis; 0 is near only to 0."""

    def near(value: float, axis: Sequence[float]) -> float:
        if value <= 0:
            return min(axis)
        return min((at for at in axis if at > 0), key=lambda at: abs(math.log(at / value)))

    return Cell(near(cell.lr, lattice.lr), near(cell.weight_decay, lattice.weight_decay))
