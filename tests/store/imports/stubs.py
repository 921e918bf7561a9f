"""Sweeps as other tools write them: 2 × 2 cells, of which one diverged and one did not finish."""

import sqlite3
import warnings
from contextlib import closing
from functools import partial
from math import inf
from pathlib import Path

FILES = Path(__file__).with_name("tools.txt")  # each after a line with its name


def write(root: Path) -> None:
    """Write a sweep of every tool into a folder, under the names that the guide gives them."""
    for file in FILES.read_text(encoding="utf-8").split("=== ")[1:]:
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
