"""Small studies and trials to put into a store, ways to damage it, and sweeps of other tools."""

import json
import sqlite3
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import product
from math import inf
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


TOOLS = Path(__file__).parent / "imports" / "tools.txt"  # each file after a line with its name


def write_tools(root: Path) -> None:
    """Write a sweep of every tool into a folder, under the names that the guide gives them.

    It has 2 × 2 cells, of which one diverged and one did not finish.
    """
    for file in TOOLS.read_text(encoding="utf-8").split("=== ")[1:]:
        name, _, text = file.partition("\n")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.executescript((root / "mlflow.sql").read_text())
    write_optuna(root)


def write_optuna(root: Path) -> None:
    """Write the same two studies in both storages of Optuna."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState, create_trial

    box = {
        "optim.lr": FloatDistribution(1e-3, 1, log=True),
        "optim.weight_decay": CategoricalDistribution([0.02, 0.01]),
        "depth": IntDistribution(1, 9),
    }
    create = partial(create_trial, distributions=box, user_attrs={"note": "first"})
    with warnings.catch_warnings(action="ignore"):
        journal = optuna.storages.JournalStorage(JournalFileBackend(str(root / "journal.log")))
    for storage in (f"sqlite:///{root}/optuna.db", journal):
        one = optuna.create_study(storage=storage, study_name="one", direction="maximize")
        for lr, wd, value, depth, state in (
            *((0.1, 0.01, 0.5, 3, TrialState.COMPLETE), (0.1, 0.02, 0.4, 3, TrialState.COMPLETE)),
            *((0.2, 0.01, 9.0, 4, TrialState.PRUNED), (0.2, 0.02, inf, 4, TrialState.COMPLETE)),
        ):
            params = {"optim.lr": lr, "optim.weight_decay": wd, "depth": depth}
            one.add_trial(create(state=state, value=value, params=params))
        one.enqueue_trial({"optim.lr": 0.5})
        sampler = optuna.samplers.RandomSampler(seed=0)
        two = optuna.create_study(storage=storage, study_name="two", sampler=sampler)
        for _ in range(2):
            asked = two.ask(box)
            asked.set_user_attr("seed", 0)
            two.tell(asked, asked.params["depth"])
        two.ask(box)
