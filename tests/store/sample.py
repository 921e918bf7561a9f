"""Small studies and trials to put into a store, and ways to damage it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from lrwd_sweep.store import open_store
from lrwd_sweep.store import studies as rows


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
    return [
        complete(cell, seed, 0.1 + cell.lr + seed / 3) for cell in of.lattice.cells() for seed in of.seeds
    ]


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def rewrite_spec(path: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the specification of a study, with the checksum that belongs to it."""
    with open_store(str(path), write=True) as store, store._writing() as connection:
        row = rows.get_row(connection, name)
        spec = json.loads(row.spec)
        change(spec)
        rows.update_study(connection, replace(row, spec=json.dumps(spec).encode()))
