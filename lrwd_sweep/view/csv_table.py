"""Trials as CSV: what `study import` reads, one row per lane, without loss."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from lrwd_sweep.result import Result
from lrwd_sweep.trial import Status, Trial
from lrwd_sweep.view.plain import spreadsheet_text

_HEADER = ("lr", "weight_decay", "seed", "value")


def csv_table(results: Sequence[Result]) -> str:
    """Header `lr,weight_decay,seed,value`, then `status`, `study` if there are several, and every metric.

    Numbers are written so that reading gives the same float back. The value of a diverged lane is nan, that
    of a failed one empty; a missing lane has no row. What went wrong stands under `detail`.
    """
    several = len(results) > 1
    metrics = sorted({name for result in results for trial in result.trials for name in trial.metrics})
    chosen = {result.surface.metric for result in results}
    further = [name for name in metrics if chosen != {name}]
    detailed = any(trial.detail for result in results for trial in result.trials)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *_HEADER,
            "status",
            *(["detail"] * detailed),
            *(["study"] * several),
            *map(spreadsheet_text, further),
        ]
    )
    for result in results:
        name = [spreadsheet_text(result.name)] * several
        for trial in sorted(result.trials, key=lambda trial: (trial.cell, trial.seed)):
            value = trial.metrics.get(result.surface.metric)
            if trial.status is Status.COMPLETE and value is None:
                continue  # it was trained before this metric was recorded
            numbers = [repr(float(trial.metrics[m])) if m in trial.metrics else "" for m in further]
            place = [repr(trial.cell.lr), repr(trial.cell.weight_decay), str(trial.seed)]
            detail = [spreadsheet_text(trial.detail)] * detailed
            writer.writerow([*place, _value(trial, value), str(trial.status), *detail, *name, *numbers])
    return out.getvalue()


def _value(trial: Trial, value: float | None) -> str:
    if trial.status is Status.FAILED:
        return ""
    return "nan" if trial.status is Status.DIVERGED or value is None else repr(float(value))
