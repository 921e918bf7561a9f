"""Small studies and trials to put into a store, ways to damage it, and the reading of a sweep."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import open_store
from lrwd_sweep.store import studies as rows
from lrwd_sweep.store.imports import ImportedSweep, ImportSource, read_table, to_sweeps
from tests import specs


def spec(optimizer: str = "adamw", *, seeds: int = 2, **changes: Any) -> StudySpec:
    axes = changes.pop("lr", (0.01, 0.1)), changes.pop("weight_decay", (0.0, 0.001))
    return specs.spec(optimizer=optimizer, lattice=Lattice(*axes), seeds=tuple(range(seeds)), **changes)


SPEC = spec()


def complete(cell: Cell, seed: int = 0, value: float = 0.1) -> Trial:
    """A complete trial with a curve of three epochs, its numbers not exact in float32."""
    curves = {"val_loss": (2.3, 1.1, value), "train_loss": (2.2, 1.0, value / 3)}
    return Trial(cell, seed, Status.COMPLETE, {"val_loss": value, "val_error": value / 7}, curves)


def lattice_trials(of: StudySpec) -> list[Trial]:
    lanes = product(of.lattice.cells(), of.seeds)
    return [complete(cell, seed, 0.1 + cell.lr + seed / 3) for cell, seed in lanes]


def filled(path: Path, *names: str, of: StudySpec = SPEC, trials: Sequence[Trial] | None = None) -> Path:
    """Make a store of studies, with all their lanes unless others are given."""
    with open_store(str(path), write=True) as store:
        for name in names or ("a",):
            store.begin_study(name, of)
            store.add_trials(name, lattice_trials(of) if trials is None else trials)
    return path


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def rewrite_spec(path: Path, name: str, change: Callable[[dict[str, Any]], object] | bytes) -> None:
    """Change or replace the specification of a study, with the checksum that belongs to it."""
    with open_store(str(path), write=True) as store, store._writing() as connection:
        row = rows.get_row(connection, name)
        if not isinstance(change, bytes):
            change(found := json.loads(row.spec))
            change = json.dumps(found).encode()
        rows.update_study(connection, replace(row, spec=change))


def read_sweep(path: Path | str, template: str = "", *, where: Any = (), **options: Any) -> ImportedSweep:
    source = ImportSource(str(path), template, **options)
    return to_sweeps(read_table([source], where=where), source)[""]
