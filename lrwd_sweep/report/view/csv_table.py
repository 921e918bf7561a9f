"""Trials as CSV: what `study import` reads, one row per lane, without loss."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.plain import spreadsheet_text
from lrwd_sweep.science.direction import says_higher
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.study import Kind

_HEADER = ("lr", "weight_decay", "seed", "value")


def csv_table(results: Sequence[Result]) -> str:
    """Header `lr,weight_decay,seed,value`, then `status`, what an import has to know, and every metric.

    That is `decay_rule`, and where they differ from the default `direction` and `cap`. `study` is named where
    there are several. Numbers are written so that reading gives the same float back. The value of a diverged
    lane is nan, that of a failed one empty. A missing lane has no row, unless its study is an import, which
    nobody can finish: its row says `missing`. What went wrong stands under `detail`.
    """
    several = len(results) > 1
    metrics = sorted({name for result in results for trial in result.trials for name in trial.metrics})
    chosen = {result.surface.metric for result in results}
    further = [name for name in metrics if chosen != {name}]
    directed = any(_needs_direction(result) for result in results)
    capped = any(result.spec.given_cap is not None for result in results)
    detailed = any(trial.detail for result in results for trial in result.trials)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *_HEADER,
            "status",
            *(["detail"] * detailed),
            "decay_rule",
            *(["direction"] * directed),
            *(["cap"] * capped),
            *(["study"] * several),
            *map(spreadsheet_text, further),
        ]
    )
    for result in results:
        cap = "" if result.spec.given_cap is None else repr(float(result.spec.given_cap))
        context = [
            str(result.spec.optimizer.rule),
            *([str(result.surface.direction)] * directed),
            *([cap] * capped),
            *([spreadsheet_text(result.name)] * several),
        ]
        for trial in sorted(result.trials, key=lambda trial: (trial.cell, trial.seed)):
            value = trial.metrics.get(result.surface.metric)
            if trial.status is Status.COMPLETE and value is None:
                continue  # it was trained before this metric was recorded
            numbers = [repr(float(trial.metrics[m])) if m in trial.metrics else "" for m in further]
            place = [repr(trial.cell.lr), repr(trial.cell.weight_decay), str(trial.seed)]
            detail = [spreadsheet_text(trial.detail)] * detailed
            writer.writerow([*place, _value(trial, value), str(trial.status), *detail, *context, *numbers])
        for cell, seed in _missing(result):
            empty = ["", "missing", *([""] * detailed)]
            writer.writerow(
                [repr(cell.lr), repr(cell.weight_decay), str(seed), *empty, *context, *([""] * len(further))]
            )
    return out.getvalue()


def _needs_direction(result: Result) -> bool:
    """Whether an import of this would ask, or choose otherwise."""
    return result.surface.direction is Direction.MAXIMIZE or says_higher(result.surface.metric)


def _missing(result: Result) -> list[tuple[Cell, int]]:
    """The lanes of an import that did not come to an end."""
    if result.spec.kind is not Kind.IMPORT:
        return []
    there = {(trial.cell, trial.seed) for trial in result.trials}
    lanes = ((cell, seed) for cell in result.spec.lattice.cells() for seed in result.spec.seeds)
    return [lane for lane in lanes if lane not in there]


def _value(trial: Trial, value: float | None) -> str:
    if trial.status is Status.FAILED:
        return ""
    return "nan" if trial.status is Status.DIVERGED or value is None else repr(float(value))
