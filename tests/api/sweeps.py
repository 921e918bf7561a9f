"""A sweep of four cells, and what the store holds of it."""

from __future__ import annotations

from typing import Any

import lrwd_sweep
from lrwd_sweep import Study
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.store import open_store

LR, WEIGHT_DECAY = "2^-7:2^-6", [0.01, 0.1]
NAME = "digits-mlp-norm-adamw-cosine-2ep-b64"


def tiny(optimizer: str = "adamw", **others: Any) -> Study:
    """Sweep four cells."""
    asked: dict[str, Any] = {"lr": LR, "weight_decay": WEIGHT_DECAY, "epochs": 2, "seeds": 2}
    return lrwd_sweep.sweep(optimizer, **{**asked, "progress": False, **others})


def stored(storage: str = "lrwd-sweep.db", name: str = NAME) -> list[Trial]:
    """Return every lane of a study from the store."""
    with open_store(storage, write=False) as store:
        return sorted(store.trials(name, curves=True), key=lambda trial: (trial.cell, trial.seed))
