"""Trials of Optuna and runs of MLflow, from their databases and files; read without these programs.

A database is a file of SQLite or a URL of SQLAlchemy, opened for reading only. Columns of MLflow are those of
its search: `params.lr`, `metrics.val_loss`, `tags.name`, `status`, `experiment`.
"""

import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from sqlalchemy import Connection, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from lrwd_sweep.errors import UsageError, brief
from lrwd_sweep.store.imports.csv_and_json import text_of
from lrwd_sweep.store.imports.run_table import ImportSource, RunTable

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MAGIC = b"SQLite format 3\0"
OPTUNA_TABLES = {"studies", "trials", "trial_params", "trial_values"}
MLFLOW_TABLES = {"experiments", "runs", "params", "metrics"}

_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")  # by Optuna's number
_DIRECTIONS = ("", "MINIMIZE", "MAXIMIZE")
_VALUES = {"INF_POS": "inf", "INF_NEG": "-inf", "NAN": "nan"}  # by the type of a value that is not finite
_RUN_STATES = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}  # of MLflow
_PARENT = "mlflow.parentRunId"
_META = "meta.yaml"

Rows = Callable[[str], list[Any]]  # an SQL query → its rows
Point = tuple[float, float, float]  # step, time stamp, value


def is_url(name: str) -> bool:
    """Return whether a source is a URL, of a database or another."""
    return _URL.match(name) is not None


def is_sqlite(path: Path) -> bool:
    """Return whether a file is a database of SQLite."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def tables_of(name: str) -> set[str]:
    """Return the names of a database's tables. Raises UsageError."""
    with _connected(name) as connection:
        return set(inspect(connection).get_table_names())


def shown_name(name: str) -> str:
    """Return a source's name without its password."""
    try:
        return make_url(name).render_as_string(hide_password=True) if is_url(name) else name
    except ArgumentError:
        return name.partition("://")[0] + "://…"


@contextmanager
def _queries(name: str, tables: set[str], what: str) -> Iterator[Rows]:
    """Yield a function that runs queries on a database. Raises UsageError if it lacks one of `tables`."""
    if lacking := tables - tables_of(name):
        raise UsageError(f"{shown_name(name)} is not a {what.format(repr(min(lacking)))}")
    with _connected(name) as connection:
        yield lambda query: list(connection.execute(text(query)).all())


@contextmanager
def _connected(name: str) -> Iterator[Connection]:
    try:
        with _engine(name).connect() as connection:
            yield connection
    except ArgumentError:
        raise UsageError(
            f"{shown_name(name)!r} is not the URL of a database; write sqlite:///FILE.db or a path"
        ) from None
    except ModuleNotFoundError as error:
        raise UsageError(f"{shown_name(name)}: {error}; install the driver of this database") from None
    except (SQLAlchemyError, sqlite3.Error) as error:
        reason = brief(getattr(error, "orig", None) or error)
        raise UsageError(f"{shown_name(name)} cannot be read: {reason}; check the database") from None


def _engine(name: str) -> Engine:
    path = Path(name)
    if is_url(name):
        url = make_url(name)
        if not url.drivername.startswith("sqlite"):
            return create_engine(name, poolclass=NullPool)
        if not url.database or url.database == ":memory:":
            raise UsageError(f"{name!r} names no file; write sqlite:///FILE.db (three slashes)")
        path = Path(url.database)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; name a database that exists")
    if not is_sqlite(path):
        raise UsageError(f"{path} is not a database of SQLite; name another file")
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)


@dataclass(slots=True)
class _Trial:
    """A trial of Optuna."""

    study: str
    directions: Sequence[str]
    number: int
    state: str
    values: dict[int, str] = field(default_factory=dict)  # by objective
    params: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def objectives(self) -> list[str]:
        """The names of its study's values."""
        count = len(self.directions)
        return [f"values_{k}" for k in range(count)] if count > 1 else ["value"]


def read_optuna(source: ImportSource) -> RunTable:
    """Read the trials of all studies. Parameters have their own names, whatever these are.

    Raises UsageError.
    """
    in_database = is_url(source.name) or is_sqlite(source.path)
    trials = _of_database(source) if in_database else _of_journal(source)
    if not trials:
        raise UsageError(f"{shown_name(source.name)}: there is no trial in it; name another file")
    column = source.columns.get("value", "")
    values = list(dict.fromkeys(name for trial in trials for name in trial.objectives))
    own = ["study", "state", *sorted(values)]
    if column in values or "value" in values:
        own.append("direction")
    params = {name: f"params.{name}" if name in own else name for trial in trials for name in trial.params}
    taken = {*own, *params.values()}
    attributes = {
        name: f"user_attrs.{name}" if name in taken else name for trial in trials for name in trial.attributes
    }
    records = []
    for trial in trials:
        record = {"study": trial.study, "state": trial.state}
        for k, name in enumerate(trial.objectives):
            record[name] = trial.values.get(k, "")
            if name in ("value", column):
                record["direction"] = "".join(trial.directions[k : k + 1])
        record |= {params[name]: value for name, value in trial.params.items()}
        record |= {attributes[name]: value for name, value in trial.attributes.items()}
        records.append(record)
    return RunTable.of_records(
        *(shown_name(source.name), records, [f"trial {trial.number}" for trial in trials]),
        [*own, *params.values(), *attributes.values()],
        settings=frozenset(params.values()),
        scope="study",
    )


def _of_database(source: ImportSource) -> list[_Trial]:
    what = "storage of Optuna: there is no table {}; name another file, or its --format"
    with _queries(source.name, OPTUNA_TABLES, what) as rows:
        studies: dict[int, tuple[str, list[str]]] = {
            key: (name, []) for key, name in rows("SELECT study_id, study_name FROM studies")
        }
        for key, direction in rows("SELECT study_id, direction FROM study_directions ORDER BY objective"):
            studies[key][1].append(str(direction))
        trials = {}
        for key, study, number, state in rows(
            "SELECT trial_id, study_id, number, state FROM trials ORDER BY study_id, number, trial_id"
        ):
            if study in studies:
                trials[key] = _Trial(*studies[study], key if number is None else number, str(state))
        for row in rows("SELECT * FROM trial_values"):
            value = row._mapping
            if (trial := trials.get(value["trial_id"])) is not None:
                kind = value.get("value_type", "FINITE")
                trial.values[value["objective"]] = _VALUES.get(str(kind), text_of(value["value"]))
        for key, name, value, distribution in rows(
            "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params ORDER BY param_id"
        ):
            if key in trials:
                trials[key].params[name] = _parameter(value, distribution)
        for key, name, value in rows("SELECT trial_id, key, value_json FROM trial_user_attributes"):
            if key in trials:
                trials[key].attributes[name] = text_of(json.loads(value))
    return list(trials.values())


def _of_journal(source: ImportSource) -> list[_Trial]:
    studies: list[tuple[str, list[str]] | None] = []
    trials: list[tuple[int, _Trial]] = []
    counts: Counter[int] = Counter()
    for entry in _entries(source):
        code = entry["op_code"]
        if code == 0:
            if not any(study and study[0] == entry["study_name"] for study in studies):
                studies.append((entry["study_name"], [_DIRECTIONS[k] for k in entry["directions"]]))
        elif code == 1:
            studies[entry["study_id"]] = None
        elif code == 4:
            key = entry["study_id"]
            if (study := studies[key]) is not None:
                trials.append((key, _begun(entry, study, counts[key])))
                counts[key] += 1
        elif code in (5, 6, 8) and trials[entry["trial_id"]][1].state not in _STATES[1:4]:
            _update(entry, trials[entry["trial_id"]][1])
    return [trial for study, trial in trials if studies[study] is not None]


def _begun(entry: Mapping[str, Any], study: tuple[str, Sequence[str]], number: int) -> _Trial:
    """Return the trial of an entry; it may be complete at once."""
    distributions = entry.get("distributions", {})
    found = entry.get("values") or [entry.get("value")]
    return _Trial(
        *(*study, number, _STATES[entry.get("state", 0)]),
        {k: text_of(value) for k, value in enumerate(found) if value is not None},
        {name: _parameter(value, distributions[name]) for name, value in entry.get("params", {}).items()},
        {name: text_of(value) for name, value in entry.get("user_attrs", {}).items()},
    )


def _update(entry: Mapping[str, Any], trial: _Trial) -> None:
    if entry["op_code"] == 5:
        trial.params[entry["param_name"]] = _parameter(entry["param_value_internal"], entry["distribution"])
    elif entry["op_code"] == 6:
        trial.state = _STATES[entry["state"]]
        trial.values |= {k: text_of(value) for k, value in enumerate(entry["values"] or ())}
    else:
        trial.attributes |= {name: text_of(value) for name, value in entry["user_attr"].items()}


def _entries(source: ImportSource) -> Iterator[dict[str, Any]]:
    """Yield the entries of a journal; a last line that was cut off is none."""
    lines = source.path.read_text(encoding="utf-8").splitlines()
    for k, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            _ = entry["op_code"]
        except (ValueError, TypeError, KeyError):
            if k == len(lines):
                return
            raise UsageError(
                f"{source.name}: line {k} is not an entry of Optuna's journal; repair the line"
            ) from None
        yield entry


def _parameter(value: float, distribution: str) -> str:
    """Return a parameter, stored as a number: of a categorical one the number of its choice."""
    found = json.loads(distribution)
    if "choices" in found["attributes"]:
        return text_of(found["attributes"]["choices"][int(value)])
    return text_of(int(value) if found["name"].startswith("Int") else value)


@dataclass(slots=True)
class _Run:
    """A run of MLflow."""

    key: str
    experiment: str
    state: str
    name: str = ""
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[Point]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def is_mlflow_folder(path: Path) -> bool:
    """Return whether a folder is MLflow's `mlruns`, or one of its experiments."""
    return any(path.glob(f"*/{_META}")) and not (path / "artifacts").is_dir()


def read_mlflow(source: ImportSource) -> RunTable:
    """Read all runs that were not deleted; a metric is the last or the best of its points.

    A run that only groups others is left out. Raises UsageError.
    """
    in_files = not is_url(source.name) and source.path.is_dir()
    runs = list(_of_files(source.path)) if in_files else _of_tables(source.name)
    parents = {run.tags.get(_PARENT, "") for run in runs}
    groups = sum(run.key in parents for run in runs)
    runs = [run for run in runs if run.key not in parents]
    if not runs:
        raise UsageError(f"{shown_name(source.name)}: there is no run of MLflow in it; name another source")
    count = Counter(run.name for run in runs)
    places = [f"run {run.name if count[run.name] == 1 else run.key}" for run in runs]
    records, curves = [], {}
    for place, run in zip(places, runs, strict=True):
        record = {"run_id": run.key, "run_name": run.name, "experiment": run.experiment, "status": run.state}
        record |= {f"params.{name}": value for name, value in run.params.items()}
        for name, points in run.metrics.items():
            points.sort(key=lambda point: point[:2])
            values = [value for *_, value in points]
            curves[place, f"metrics.{name}"] = {"value": values, "step": [step for step, *_ in points]}
            if values:
                record[f"metrics.{name}"] = text_of(source.value_of(values))
        tags = {name: value for name, value in run.tags.items() if not name.startswith("mlflow.")}
        records.append(record | {f"tags.{name}": value for name, value in tags.items()})
    return RunTable.of_records(
        *(shown_name(source.name), records, places),
        settings=frozenset(name for record in records for name in record if name.startswith("params.")),
        scope="experiment",
        notes=(f"left out, as they only group others: {groups} run{'s' * (groups > 1)}",) * bool(groups),
        curves=curves,
    )


def _of_files(root: Path) -> Iterator[_Run]:
    is_experiment = (root / _META).is_file() and "experiment_id" in _meta(root / _META)
    for experiment in [root] if is_experiment else [path.parent for path in sorted(root.glob(f"*/{_META}"))]:
        name = _meta(experiment / _META).get("name", experiment.name)
        for path in sorted(experiment.glob(f"*/{_META}")):
            meta, folder = _meta(path), path.parent
            if "status" not in meta or meta.get("lifecycle_stage", "active") != "active":
                continue
            yield _Run(
                *(meta.get("run_id", folder.name), name, _RUN_STATES.get(meta["status"], meta["status"])),
                meta.get("run_name", ""),
                params={param: _text(file) for param, file in _named(folder / "params")},
                tags={tag: _text(file) for tag, file in _named(folder / "tags")},
                metrics={metric: list(_points(file)) for metric, file in _named(folder / "metrics")},
            )


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


def _of_tables(name: str) -> list[_Run]:
    with _queries(name, MLFLOW_TABLES, "store of MLflow: there is no table {}; name another") as rows:
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
