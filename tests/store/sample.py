"""Small studies and trials to put into a store."""

from __future__ import annotations

from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task


def spec(
    optimizer: str = "adamw",
    *,
    kind: Kind = Kind.GRID,
    lr: tuple[float, ...] = (0.01, 0.1),
    weight_decay: tuple[float, ...] = (0.0, 0.001),
    seeds: int = 2,
    epochs: int = 60,
    metric: str = "val_loss",
) -> StudySpec:
    lattice = Lattice(lr, weight_decay)
    task = Task(epochs=epochs)
    return StudySpec(kind, Optimizer.parse(optimizer), lattice, tuple(range(seeds)), metric, task)


def complete(cell: Cell, seed: int = 0, value: float = 0.1) -> Trial:
    """A complete trial with a curve of three epochs, its numbers not exact in float32."""
    curves = {"val_loss": (2.3, 1.1, value), "train_loss": (2.2, 1.0, value / 3)}
    return Trial(cell, seed, Status.COMPLETE, {"val_loss": value, "val_error": value / 7}, curves)


def lattice_trials(of: StudySpec) -> list[Trial]:
    """Every lane of a spec, complete."""
    return [
        complete(cell, seed, 0.1 + cell.lr + seed / 3) for cell in of.lattice.cells() for seed in of.seeds
    ]
