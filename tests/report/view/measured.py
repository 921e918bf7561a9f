"""Studies whose lanes carry learning curves and diagnostics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lrwd_sweep.report.result import Result, result
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from tests.report.view.examples import study

EPOCHS = 10
DIAGNOSED = ("norm", "rotation", "effective_lr")


def measured(
    name: str = "study", optimizer: str = "adamw", *, kind: Kind = Kind.GRID, diagnosed: bool = True
) -> Result:
    """`study`, each lane with curves: an effective learning rate α/2ᵉ at epoch e, a norm λ·e, …"""
    found = study(name, optimizer, kind=kind)
    trials = [_with_curves(trial, diagnosed) for trial in found.trials]
    return result(found.name, found.spec, found.created, trials)


def _with_curves(trial: Trial, diagnosed: bool) -> Trial:
    epochs = np.arange(1.0, EPOCHS + 1)
    last = trial.metrics.get("val_loss", np.nan)
    curves = {"val_loss": last * (1 + 10 / epochs) / 2, "train_loss": last / epochs}
    metrics = dict(trial.metrics)
    if trial.status is Status.COMPLETE:
        metrics |= {"train_loss": last / EPOCHS, "test_error": last / 2, "val_error": last / 3}
    curves["val_error"] = curves["val_loss"] / 3
    if diagnosed:
        curves |= {
            "norm": trial.cell.weight_decay * epochs,
            "rotation": trial.cell.weight_decay + 0 * epochs,
            "effective_lr": trial.cell.lr * 2.0**-epochs,
        }
    return replace(trial, metrics=metrics, curves={name: tuple(map(float, c)) for name, c in curves.items()})
