"""Methods that look for flat minima, or average what a run passes: SAM, SWA, EMA and snapshot ensembles.

Their fields in a task, and what follows from them. `engine.sharpness` trains by them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.field import OPTIMIZER, SCHEDULE, declared

SWA, EMA, ENSEMBLE = KINDS = ("swa", "ema", "ensemble")  # beginnings of their metrics' names
ETA = 0.01  # η of ASAM, added to |w| so that weights of 0 move too
_LARGEST = 1e6  # ρ, epoch or half-life


class FlatMinimaOptions(TypedDict, total=False):
    """The same fields as keywords of a call."""

    sam: float
    sam_adaptive: bool
    swa: float
    ema: float
    ensemble: int


@dataclass(frozen=True, slots=True)
class FlatMinima:
    """The fields of a task that ask for SAM, for averages of weights, and for an ensemble."""

    sam: float = declared(  # of a lane's weights, in their norm
        0.0,
        "ρ of SAM's ascent before every step [no SAM]",
        panel=OPTIMIZER,
        metavar="RHO",
        below=_LARGEST,
        rare=True,
        mark="sam{:g}",
        words="SAM with ρ {:g}",
    )
    sam_adaptive: bool = declared(
        False,
        "Measure SAM's ascent by |w|, as ASAM; --no-sam-adaptive [no]",
        panel=OPTIMIZER,
        rare=True,
        mark="asam",
        words="adaptive SAM",
    )
    swa: float | None = declared(  # share of the run if it is below 1
        None,
        "Average weights from this epoch, or share, on [no]",
        kind=float,
        panel=SCHEDULE,
        metavar="START",
        below=_LARGEST,
        rare=True,
        mark="swa{:g}",
        words="SWA from {:g} on",
    )
    ema: float | None = declared(
        None,
        "Half-life of an average of weights, epochs [none]",
        kind=float,
        panel=SCHEDULE,
        metavar="HALF_LIFE",
        below=_LARGEST,
        rare=True,
        mark="ema{:g}",
        words="EMA of half-life {:g}",
    )
    ensemble: int | None = declared(
        None,
        "Join the last N snapshots of restarts [none]",
        kind=int,
        panel=SCHEDULE,
        least=2,
        rare=True,
        mark="ens{}",
        words="ensemble of {} snapshots",
    )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The weights that are evaluated beside the last weights."""
        return tuple(kind for kind in KINDS if getattr(self, kind) is not None)


def of_last_weights(metric: str) -> str:
    """Return the metric of the last weights that an average's metric is like.

    >>> of_last_weights("swa_val_loss"), of_last_weights("val_loss")
    ('val_loss', 'val_loss')
    """
    kind, _, rest = metric.partition("_")
    return rest if kind in KINDS and rest.startswith(("val_", "test_")) else metric


def averaged_epochs(start: float, epochs: int, snapshots: Sequence[int]) -> tuple[int, ...]:
    """Return the epochs, from 1, whose last weights SWA averages: from `start` on, or its share of the run.

    Under restarts they are the ends of cycles.

    >>> averaged_epochs(0.75, 8, ()), averaged_epochs(7, 8, ()), averaged_epochs(2, 8, (1, 3, 7))
    ((6, 7, 8), (7, 8), (3, 7))
    """
    first = start if start >= 1 else math.ceil(start * epochs - 1e-9)
    return tuple(epoch for epoch in snapshots or range(1, epochs + 1) if epoch >= first)


def refuse_impossible_averages(task: Any) -> None:  # a Task, which inherits from this module
    """Raise UsageError for fields that have no effect, or for which the run is too short."""
    if task.sam_adaptive and not task.sam:
        raise UsageError(f"{arg('sam_adaptive', True)} has no effect without SAM; add {arg('sam', 0.5)}")
    if task.sizes is None:  # of the data; then the length of an epoch is not known
        return
    snapshots = task.timetable.snapshots
    if task.swa is not None:
        _refuse_start(task.swa, task.epochs, snapshots)
    if task.ema == 0:
        raise UsageError(f"{arg('ema', 0)} keeps nothing but the last weights; choose more than 0 epochs")
    if task.ensemble is not None and task.schedule is Schedule.RESTARTS:
        if len(snapshots) < task.ensemble:
            few = f"the run has {_counted(len(snapshots), 'snapshot')} of restarts"
            raise UsageError(f"{arg('ensemble', task.ensemble)}: {few}; choose fewer, or more epochs")
        if task.loss not in ("cross-entropy", "nll"):
            raise UsageError(
                f"{arg('ensemble', task.ensemble)} averages probabilities of classes, which "
                f"{arg('loss', task.loss)} does not train; leave it out"
            )


def _refuse_start(start: float, epochs: int, snapshots: Sequence[int]) -> None:
    if start >= 1 and start != int(start):
        raise UsageError(f"{arg('swa', start)} is neither a share of the run below 1 nor a whole epoch")
    found = averaged_epochs(start, epochs, snapshots)
    if len(found) < 2:  # one is no average
        ends = snapshots or range(1, epochs + 1)
        what = f"{_counted(len(ends), 'snapshot')} of restarts" if snapshots else _counted(epochs, "epoch")
        remedy = f"choose at most {ends[-2]}" if len(ends) > 1 else "train for more epochs"
        given = arg("swa", int(start) if start >= 1 else start)
        raise UsageError(f"{given} leaves {len(found)} of {what} to average; {remedy}")


def refuse_early(metric: str, task: Any, restart: int, epoch: int) -> None:
    """Raise UsageError for the metric of an average that had not begun at the end of a cycle."""
    if metric.startswith(f"{SWA}_") and epoch < task.swa_epochs[0]:
        first = task.timetable.snapshots.index(task.swa_epochs[0]) + 1
        raise UsageError(
            f"{arg('at_restart', restart)} is after epoch {epoch}, before {arg('swa')} averages; choose at "
            f"least {first}"
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
