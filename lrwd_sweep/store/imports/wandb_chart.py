"""The CSV of a chart panel of Weights & Biases: a column `RUN - metric` per run, a row per step.

The table of runs, with config, summary and `State`, is a plain CSV. A chart has only the runs' names; they
hold hyperparameters as `lr=0.1` or `lr: 0.1`, or as a template says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lrwd_sweep.errors import UsageError, arg, shown
from lrwd_sweep.store.imports.csv_reader import read_csv
from lrwd_sweep.store.imports.path_template import END, Curve, NamePattern
from lrwd_sweep.store.imports.run_table import RunTable, is_number, number
from lrwd_sweep.store.imports.source import ImportSource

_BOUNDS = ("__MIN", "__MAX")
_PAIR = re.compile(r"([A-Za-z_][\w./]*)\s*[=:]\s*([^\s,;|]+)")


def is_chart(header: Sequence[str]) -> bool:
    """Return whether the columns of a CSV are those of a chart panel."""
    names = set(header)
    return any(f"{name}{_BOUNDS[0]}" in names and " - " in name for name in header[1:])


def read_wandb_chart(source: ImportSource) -> RunTable:
    """Read a run per name and metric of a chart panel. Raises UsageError."""
    table = read_csv(source)
    if not is_chart(table.header):
        raise UsageError(f"{source.name} has no columns 'RUN - metric'; a table of runs is --format csv")
    texts = table.columns()
    pattern = NamePattern.of(source.template, source.columns) if source.template else None
    runs: dict[str, dict[str, str]] = {}
    settings: set[str] = set()
    curves: dict[tuple[str, str], Mapping[str, Sequence[float]]] = {}
    for column in table.header[1:]:
        name, dash, metric = column.rpartition(" - ")
        if not dash or column.endswith(_BOUNDS):
            continue
        parts = dict(_PAIR.findall(name)) if pattern is None else pattern.parts_of(name)
        if not parts:
            how = f"does not fit {source.template}" if pattern else "holds no lr=… and weight_decay=…"
            raise UsageError(
                f"{source.name}: the name of run {shown(name)} {how}; say where they are, as "
                f"{arg('from', 'lr{lr}_wd{weight_decay}_seed{seed}')}, or export the table of runs"
            )
        steps = [k for k, text in enumerate(texts[column]) if text]
        if bad := next((texts[column][k] for k in steps if not is_number(texts[column][k])), None):
            raise UsageError(f"{source.name}: {shown(column)}: {shown(bad)} is not a number")
        at = [texts[table.header[0]][k] for k in steps]
        known = [number(text) for text in at] if all(map(is_number, at)) else []
        curve = Curve([number(texts[column][k]) for k in steps], known, table.header[0].lower())
        value, end = curve.texts(source)
        curves[f"run {name}", metric] = curve.points
        runs.setdefault(name, {"run": name, END: end, **parts})[metric] = value
        settings |= parts.keys()
    header = list(dict.fromkeys(key for run in runs.values() for key in run))
    metrics = [key for key in header if key not in {"run", END, *settings}]
    rows = [(f"run {name}", [run.get(key, "") for key in header]) for name, run in runs.items()]
    if len(metrics) == 1 and "value" not in header:
        header[header.index(metrics[0])] = "value"
        curves = {(place, "value"): curve for (place, _), curve in curves.items()}
    measured = metrics[0] if len(metrics) == 1 else ""
    return RunTable.of_rows(
        *(source.name, header, rows),
        settings=frozenset(settings),
        progress=END,
        measured=measured,
        curves=curves,
    )
