"""Lanes and learning curves as pandas frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lrwd_sweep.errors import HostError
from lrwd_sweep.science.trial import Trial

if TYPE_CHECKING:
    from pandas import DataFrame

Trials = Mapping[str, Sequence[Trial]]  # by study


def lane_frame(studies: Trials, metric: str) -> DataFrame:
    """Return one row per lane: lr, weight_decay, seed, status, detail, then every metric, `metric` first.

    Several studies have `study` as first column. A metric is NaN if the lane did not complete; a missing
    lane has no row. Raises HostError without pandas.
    """
    rows = list(_rows(studies))
    names = sorted({name for _, trial in rows for name in trial.metrics}, key=lambda n: (n != metric, n))
    return _frame(
        _places(studies, rows)
        | {"status": [str(trial.status) for _, trial in rows]}
        | {"detail": [trial.detail for _, trial in rows]}
        | {name: [trial.metrics.get(name, np.nan) for _, trial in rows] for name in names}
    )


def curve_frame(studies: Trials) -> DataFrame:
    """Return one row per lane and epoch: lr, weight_decay, seed, epoch (from 1), then every curve.

    Several studies have `study` as first column. A curve is NaN from the epoch that diverged. Raises
    HostError without pandas.
    """
    rows = [(name, trial) for name, trial in _rows(studies) if trial.curves]
    lengths = [max(map(len, trial.curves.values())) for _, trial in rows]
    columns: dict[str, Any] = {
        name: np.repeat(values, lengths) for name, values in _places(studies, rows).items()
    }
    columns["epoch"] = [epoch for length in lengths for epoch in range(1, length + 1)]
    for name in sorted({name for _, trial in rows for name in trial.curves}):
        columns[name] = [
            value
            for (_, trial), length in zip(rows, lengths, strict=True)
            for value in _padded(trial.curves.get(name, ()), length)
        ]
    return _frame(columns)


def _rows(studies: Trials) -> Iterator[tuple[str, Trial]]:
    """Yield every trial with its study, by α, λ and seed."""
    for name, trials in studies.items():
        for trial in sorted(trials, key=lambda trial: (trial.cell, trial.seed)):
            yield name, trial


def _places(studies: Trials, rows: Sequence[tuple[str, Trial]]) -> dict[str, Any]:
    """Return the columns that identify a row's lane."""
    study = {"study": [name for name, _ in rows]} if len(studies) > 1 else {}
    return study | {
        "lr": [trial.cell.lr for _, trial in rows],
        "weight_decay": [trial.cell.weight_decay for _, trial in rows],
        "seed": [trial.seed for _, trial in rows],
    }


def _padded(values: Sequence[float], length: int) -> Sequence[float]:
    """Pad values with NaN to `length`."""
    return (*values, *[np.nan] * (length - len(values)))


def _frame(columns: Mapping[str, Any]) -> DataFrame:
    try:
        from pandas import DataFrame
    except ImportError:
        raise HostError("a frame needs pandas; run pip install 'lrwd-sweep[pandas]'") from None
    return DataFrame(dict(columns))
