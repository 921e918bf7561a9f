"""Lanes as tables: CSV and JSON, which `study import` reads without loss, and pandas frames."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lrwd_sweep.errors import HostError
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.notation import plain
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Direction, Status, Trial, says_higher
from lrwd_sweep.spec.study import Kind

if TYPE_CHECKING:
    from pandas import DataFrame

_PLACE = ("lr", "weight_decay", "seed")
_FORMULA_STARTS = tuple("=+-@＝＋－＠")


class _Lane(NamedTuple):
    """One row of a table."""

    place: tuple[float, float, int]  # α, λ and seed
    status: str
    value: float | None  # of the metric that ranks; None unless it is complete
    detail: str
    metrics: Mapping[str, float]


def _lanes(result: Result) -> Iterator[_Lane]:
    """Yield the lanes by α, λ and seed, then those that an imported study lacks: it cannot be finished."""
    spec, there = result.spec, set()
    for trial in sorted(result.trials, key=lambda trial: (trial.cell, trial.seed)):
        place, value = _place(trial.cell, trial.seed), trial.metrics.get(result.surface.metric)
        there.add(place)
        if trial.status is not Status.COMPLETE or value is not None:  # else it is older than this metric
            yield _Lane(place, str(trial.status), value, trial.detail, trial.metrics)
    if spec.kind is Kind.IMPORT and not spec.scattered:
        for cell, seed in product(spec.lattice.cells(), spec.seeds):
            if (place := _place(cell, seed)) not in there:
                yield _Lane(place, "missing", None, "", {})


def _place(cell: Cell, seed: int) -> tuple[float, float, int]:
    return cell.lr, cell.weight_decay, seed


def csv_table(results: Sequence[Result]) -> str:
    """Write `lr,weight_decay,seed,value`, `status`, `detail`, columns that an import needs, and every metric.

    An import needs `decay_rule` and, if they are not the default, `direction` and `cap`. Several studies have
    the column `study`. Numbers are written so that reading returns the same float. The value of a diverged
    lane is nan, that of a failed one empty. A missing lane has no row, except in an imported study, where its
    status is `missing`.
    """
    metrics = sorted({name for result in results for trial in result.trials for name in trial.metrics})
    chosen = {result.surface.metric for result in results}
    further = [name for name in metrics if chosen != {name}]
    detailed = any(trial.detail for result in results for trial in result.trials)
    optional = {
        "direction": any(map(_needs_direction, results)),
        "cap": any(result.spec.given_cap is not None for result in results),
        "study": len(results) > 1,
    }
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = [*_PLACE, "value", "status", *["detail"] * detailed, "decay_rule"]
    head += [name for name, needed in optional.items() if needed]
    writer.writerow([*head, *map(spreadsheet_text, further)])
    for result in results:
        known = {
            "direction": str(result.surface.direction),
            "cap": "" if result.spec.given_cap is None else repr(float(result.spec.given_cap)),
            "study": spreadsheet_text(result.name),
        }
        context = [str(result.spec.optimizer.rule), *(known[name] for name in optional if optional[name])]
        for lane in _lanes(result):
            value = "nan" if lane.status == "diverged" else ""
            if lane.value is not None:
                value = repr(float(lane.value))
            detail = [spreadsheet_text(lane.detail)] * detailed
            numbers = [repr(float(lane.metrics[m])) if m in lane.metrics else "" for m in further]
            writer.writerow([*map(repr, lane.place), value, lane.status, *detail, *context, *numbers])
    return out.getvalue()


def lane_records(result: Result) -> list[dict[str, Any]]:
    """Return an object per lane, JSON-ready, with the keys and the order of `csv_table`.

    The value of a lane that is not complete is None.
    """
    context: dict[str, Any] = {"decay_rule": str(result.spec.optimizer.rule)}
    if _needs_direction(result):
        context["direction"] = str(result.surface.direction)
    if result.spec.given_cap is not None:
        context["cap"] = result.spec.given_cap
    found = []
    for lane in _lanes(result):
        record = dict(zip(_PLACE, lane.place, strict=True)) | {"value": lane.value, "status": lane.status}
        if lane.detail:
            record["detail"] = lane.detail
        others = {name: x for name, x in sorted(lane.metrics.items()) if name != result.surface.metric}
        found.append({**record, **context, **others})
    return found


_WANDB_STATES = {"complete": "finished", "diverged": "finished", "failed": "failed", "missing": "killed"}


def wandb_table(result: Result) -> str:
    """Write a table of runs as Weights & Biases does: `Name`, `State`, the settings, then the metrics."""
    rows = []
    for record in lane_records(result):
        status, value = record.pop("status"), record.pop("value")
        place = {name: record.pop(name) for name in _PLACE}
        name = ",".join(f"{key}={number!r}" for key, number in place.items())
        value = math.nan if status == "diverged" else value
        rows.append(
            {"Name": name, "State": _WANDB_STATES[status], **place, result.surface.metric: value, **record}
        )
    header = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(map(spreadsheet_text, header))
    for row in rows:
        entries = (row.get(name) for name in header)
        writer.writerow(
            "" if x is None else spreadsheet_text(x) if isinstance(x, str) else repr(x) for x in entries
        )
    return out.getvalue()


def _needs_direction(result: Result) -> bool:
    """Test whether an import without a direction would ask, or assume the other one."""
    return result.surface.direction is Direction.MAXIMIZE or says_higher(result.surface.metric)


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
    ends = {"status": [str(trial.status) for _, trial in rows], "detail": [trial.detail for _, trial in rows]}
    numbers = {name: [trial.metrics.get(name, np.nan) for _, trial in rows] for name in names}
    return _frame(_places(studies, rows) | ends | numbers)


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
        padded = (
            (*(curve := trial.curves.get(name, ())), *[np.nan] * (length - len(curve)))
            for (_, trial), length in zip(rows, lengths, strict=True)
        )
        columns[name] = [value for curve in padded for value in curve]
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


def _frame(columns: Mapping[str, Any]) -> DataFrame:
    try:
        from pandas import DataFrame
    except ImportError:
        raise HostError("a frame needs pandas; run pip install 'lrwd-sweep[pandas]'") from None
    return DataFrame(dict(columns))
