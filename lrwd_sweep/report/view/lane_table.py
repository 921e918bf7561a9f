"""Lanes as tables: CSV and JSON, which `study import` reads without loss, and pandas frames."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lrwd_sweep.errors import HostError
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.notation import plain
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Direction, Status, Trial, says_higher
from lrwd_sweep.spec.study import Kind

if TYPE_CHECKING:
    from pandas import DataFrame

_HEADER = ("lr", "weight_decay", "seed", "value")
_FORMULA_STARTS = tuple("=+-@＝＋－＠")


def csv_table(results: Sequence[Result]) -> str:
    """Write `lr,weight_decay,seed,value`, `status`, `detail`, columns that an import needs, and every metric.

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
    optional = {"direction": directed, "cap": capped, "study": several}
    head = [*_HEADER, "status", *["detail"] * detailed, "decay_rule"]
    head += [name for name, needed in optional.items() if needed]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*head, *map(spreadsheet_text, further)])
    for result in results:
        cap = "" if result.spec.given_cap is None else repr(float(result.spec.given_cap))
        known = {
            "direction": str(result.surface.direction),
            "cap": cap,
            "study": spreadsheet_text(result.name),
        }
        context = [str(result.spec.optimizer.rule), *(known[name] for name in optional if optional[name])]
        for trial in sorted(result.trials, key=lambda trial: (trial.cell, trial.seed)):
            value = trial.metrics.get(result.surface.metric)
            if trial.status is Status.COMPLETE and value is None:
                continue  # it was trained before this metric was recorded
            numbers = [repr(float(trial.metrics[m])) if m in trial.metrics else "" for m in further]
            detail = [spreadsheet_text(trial.detail)] * detailed
            found = [_value(trial, value), str(trial.status), *detail]
            writer.writerow([*_lane(trial.cell, trial.seed), *found, *context, *numbers])
        for cell, seed in _missing(result):
            empty = ["", "missing", *[""] * detailed]
            writer.writerow([*_lane(cell, seed), *empty, *context, *[""] * len(further)])
    return out.getvalue()


def lane_records(result: Result) -> list[dict[str, Any]]:
    """Return an object per lane, JSON-ready, with the keys and the order of `csv_table`.

    The value of a lane that is not complete is None.
    """
    spec, metric = result.spec, result.surface.metric
    context: dict[str, Any] = {"decay_rule": str(spec.optimizer.rule)}
    if _needs_direction(result):
        context["direction"] = str(result.surface.direction)
    if spec.given_cap is not None:
        context["cap"] = spec.given_cap
    found = []
    for trial in sorted(result.trials, key=lambda trial: (trial.cell, trial.seed)):
        value = trial.metrics.get(metric)
        if trial.status is Status.COMPLETE and value is None:
            continue  # it was trained before this metric was recorded
        place = {"lr": trial.cell.lr, "weight_decay": trial.cell.weight_decay, "seed": trial.seed}
        end = {"value": value, "status": str(trial.status)} | (
            {"detail": trial.detail} if trial.detail else {}
        )
        others = {name: number for name, number in sorted(trial.metrics.items()) if name != metric}
        found.append({**place, **end, **context, **others})
    for cell, seed in _missing(result):
        place = {"lr": cell.lr, "weight_decay": cell.weight_decay, "seed": seed}
        found.append({**place, "value": None, "status": "missing", **context})
    return found


_WANDB_STATES = {"complete": "finished", "diverged": "finished", "failed": "failed", "missing": "killed"}


def wandb_table(result: Result) -> str:
    """Write a table of runs as Weights & Biases does: `Name`, `State`, the settings, then the metrics."""
    records = lane_records(result)
    metric = result.surface.metric
    rows = []
    for record in records:
        status = record.pop("status")
        value = math.nan if status == "diverged" else record.pop("value")
        record.pop("value", None)
        place = {name: record.pop(name) for name in _HEADER[:3]}
        name = ",".join(f"{key}={number!r}" for key, number in place.items())
        rows.append({"Name": name, "State": _WANDB_STATES[status], **place, metric: value, **record})
    header = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(map(spreadsheet_text, header))
    for row in rows:
        writer.writerow([_text(row.get(name)) for name in header])
    return out.getvalue()


def _text(value: object) -> str:
    if value is None:
        return ""
    return spreadsheet_text(value) if isinstance(value, str) else repr(value)


def _lane(cell: Cell, seed: int) -> list[str]:
    return [repr(cell.lr), repr(cell.weight_decay), str(seed)]


def _needs_direction(result: Result) -> bool:
    """Test whether an import without a direction would ask, or assume the other one."""
    return result.surface.direction is Direction.MAXIMIZE or says_higher(result.surface.metric)


def _missing(result: Result) -> list[tuple[Cell, int]]:
    """List the lanes that an imported study lacks."""
    if result.spec.kind is not Kind.IMPORT or result.spec.scattered:
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

    Several studies have `study` as first column. A curve is NaN from the epoch that diverged,
    and a validation curve at epochs that were not evaluated. Raises
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
