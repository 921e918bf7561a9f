"""Every call in an empty directory; a sweep of four cells, and what the store holds of it."""

from pathlib import Path
from typing import Any

import pytest

import lrwd_sweep
from lrwd_sweep import Study
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.store import open_store

TINY: dict[str, Any] = {"lr": "2^-7:2^-6", "weight_decay": [0.01, 0.1], "epochs": 2, "seeds": 2}
TINY["progress"] = False
NAME = "digits-mlp-norm-adamw-cosine-2ep-b64"


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRWD_STORAGE", raising=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A tiny study, of a store that stays where it is."""
    return tiny(storage=tmp_path_factory.mktemp("swept") / "here.db")


def tiny(optimizer: str = "adamw", **others: Any) -> Study:
    return lrwd_sweep.sweep(optimizer, **TINY | others)


def stored(storage: str = "lrwd-sweep.db", name: str = NAME) -> list[Trial]:
    with open_store(storage, write=False) as store:
        return sorted(store.trials(name, curves=True), key=lambda trial: (trial.cell, trial.seed))
