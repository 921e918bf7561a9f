"""Trials as CSV, one row per lane, which `study import` reads without loss."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.notation import plain
from lrwd_sweep.science.direction import says_higher
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.study import Kind

_HEADER = ("lr", "weight_decay", "seed", "value")
_FORMULA_STARTS = tuple("=+-@＝＋－＠")


def csv_table(results: Sequence[Result]) -> str:
    """Write `lr,weight_decay,seed,value`, then `status`, `detail`, what an import needs, and every metric.

    An import needs `decay_rule` and, if they are not the default, `direction` and `cap`. Several studies have
    the column `study`. Numbers are written so that reading returns the same float. The value of a diverged
    lane is nan, that of a failed one empty. A missing lane has no row, except in an imported study, which
    cannot be finished: its row says `missing`.
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
    """Test whether an import without a direction would ask, or assume the other one."""
    return result.surface.direction is Direction.MAXIMIZE or says_higher(result.surface.metric)


def _missing(result: Result) -> list[tuple[Cell, int]]:
    """List the lanes that an imported study lacks."""
    if result.spec.kind is not Kind.IMPORT:
        return []
    there = {(trial.cell, trial.seed) for trial in result.trials}
    lanes = ((cell, seed) for cell in result.spec.lattice.cells() for seed in result.spec.seeds)
    return [lane for lane in lanes if lane not in there]


def _value(trial: Trial, value: float | None) -> str:
    if trial.status is Status.FAILED:
        return ""
    return "nan" if trial.status is Status.DIVERGED or value is None else repr(float(value))


def spreadsheet_text(text: str) -> str:
    """Make `text` harmless in a spreadsheet: an apostrophe precedes what would start a formula.

    >>> spreadsheet_text("=cmd()")
    "'=cmd()"
    """
    harmless = plain(text)
    return f"'{harmless}" if harmless.lstrip().startswith(_FORMULA_STARTS) else harmless
