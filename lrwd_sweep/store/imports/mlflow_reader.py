"""Runs of MLflow, from its folder of files or its database; read without MLflow.

Columns are those of MLflow's search: `params.lr`, `metrics.val_loss`, `tags.name`, `status`, `experiment`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lrwd_sweep.errors import UsageError
from lrwd_sweep.store.imports.foreign_database import is_url, queries, shown_name, tables_of
from lrwd_sweep.store.imports.json_reader import text_of
from lrwd_sweep.store.imports.run_table import RunTable
from lrwd_sweep.store.imports.source import ImportSource

TABLES = {"experiments", "runs", "params", "metrics"}
_STATES = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
_PARENT = "mlflow.parentRunId"
_META = "meta.yaml"

Point = tuple[float, float, float]  # step, time stamp, value


@dataclass(slots=True)
class _Run:
    key: str
    experiment: str
    state: str
    name: str = ""
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[Point]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def is_file_store(path: Path) -> bool:
    """Return whether a folder is MLflow's `mlruns`, or one of its experiments."""
    return any(path.glob(f"*/{_META}")) and not (path / "artifacts").is_dir()


def read_mlflow(source: ImportSource) -> RunTable:
    """Read all runs that were not deleted; a metric is the last or the best of its points.

    A run that only groups others is left out. Raises UsageError.
    """
    in_files = not is_url(source.name) and source.path.is_dir()
    runs = list(_of_files(source.path) if in_files else _of_database(source.name))
    parents = {run.tags.get(_PARENT, "") for run in runs}
    groups = sum(run.key in parents for run in runs)
    runs = [run for run in runs if run.key not in parents]
    for run in runs:
        for points in run.metrics.values():
            points.sort(key=lambda point: point[:2])
    if not runs:
        raise UsageError(f"{shown_name(source.name)}: there is no run of MLflow in it; name another source")
    texts = [_texts(run, source) for run in runs]
    header = list(dict.fromkeys(name for found in texts for name in found))
    count = Counter(run.name for run in runs)
    places = [f"run {run.name if count[run.name] == 1 else run.key}" for run in runs]
    rows = [
        (place, [found.get(name, "") for name in header]) for place, found in zip(places, texts, strict=True)
    ]
    curves = {
        (place, f"metrics.{name}"): {
            "value": [value for *_, value in points],
            "step": [step for step, *_ in points],
        }
        for place, run in zip(places, runs, strict=True)
        for name, points in run.metrics.items()
    }
    settings = frozenset(name for name in header if name.startswith("params."))
    notes = (f"left out, as they only group others: {groups} run{'s' * (groups > 1)}",) * bool(groups)
    return RunTable.of_rows(
        *(shown_name(source.name), header, rows),
        settings=settings,
        scope="experiment",
        notes=notes,
        curves=curves,
    )


def _texts(run: _Run, source: ImportSource) -> dict[str, str]:
    """Return a run's texts by column."""
    found = {"run_id": run.key, "run_name": run.name, "experiment": run.experiment, "status": run.state}
    found |= {f"params.{name}": text for name, text in run.params.items()}
    for name, points in run.metrics.items():
        if curve := [value for *_, value in points]:
            found[f"metrics.{name}"] = text_of(source.value_of(curve))
    return found | {f"tags.{name}": text for name, text in run.tags.items() if not name.startswith("mlflow.")}


def _of_files(root: Path) -> Iterator[_Run]:
    experiments = (
        [root] if _is_experiment(root) else [path.parent for path in sorted(root.glob(f"*/{_META}"))]
    )
    for experiment in experiments:
        about = _meta(experiment / _META)
        for path in sorted(experiment.glob(f"*/{_META}")):
            meta = _meta(path)
            if "status" not in meta or meta.get("lifecycle_stage", "active") != "active":
                continue
            folder = path.parent
            state = _STATES.get(meta["status"], meta["status"])
            run = _Run(meta.get("run_id", folder.name), about.get("name", experiment.name), state)
            run.name = meta.get("run_name", "")
            run.params = {name: _text(file) for name, file in _named(folder / "params")}
            run.tags = {name: _text(file) for name, file in _named(folder / "tags")}
            run.metrics = {name: list(_points(file)) for name, file in _named(folder / "metrics")}
            yield run


def _is_experiment(folder: Path) -> bool:
    return (folder / _META).is_file() and "experiment_id" in _meta(folder / _META)


def _meta(path: Path) -> dict[str, str]:
    try:
        found: Any = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise UsageError(f"{path} cannot be read; repair it, or move its folder away") from None
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _named(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a folder by name; a name with a slash is one in a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()


def _points(path: Path) -> Iterator[Point]:
    """Yield the points of a metric; a line is `time value step`, once without a step."""
    for k, line in enumerate(_text(path).splitlines(), 1):
        parts = line.split()
        if len(parts) < 2:
            raise UsageError(f"{path}: line {k}: {line!r} is not TIME VALUE STEP; repair it")
        yield float(parts[2]) if len(parts) > 2 else k, float(parts[0]), float(parts[1])


def _of_database(name: str) -> Sequence[_Run]:
    if lacking := TABLES - tables_of(name):
        raise UsageError(
            f"{shown_name(name)} is not a store of MLflow: there is no table {min(lacking)!r}; name another"
        )
    with queries(name) as rows:
        experiments = dict(map(tuple, rows("SELECT experiment_id, name FROM experiments")))
        runs = {
            key: _Run(key, str(experiments.get(experiment, experiment)), str(state), str(run_name or ""))
            for key, experiment, state, run_name in rows(
                "SELECT run_uuid, experiment_id, status, name FROM runs "
                "WHERE lifecycle_stage = 'active' ORDER BY start_time, run_uuid"
            )
        }
        for table in ("params", "tags"):
            for key, param, value in rows(f"SELECT run_uuid, key, value FROM {table}"):
                if key in runs:
                    getattr(runs[key], table)[param] = str(value)
        for key, metric, value, step, time, is_nan in rows(
            "SELECT run_uuid, key, value, step, timestamp, is_nan FROM metrics"
        ):
            if key in runs:
                point = (step or 0, time or 0, math.nan if is_nan else value)
                runs[key].metrics.setdefault(metric, []).append(point)
    return [*runs.values()]
