"""Trials of Optuna, from the tables of its RDB storage or the lines of its journal file.

Both are read without Optuna: a stored parameter is a number and a distribution, of which only a categorical
one turns the number into something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lrwd_sweep.errors import UsageError
from lrwd_sweep.store.imports.foreign_database import is_sqlite, is_url, queries, shown_name, tables_of
from lrwd_sweep.store.imports.json_reader import text_of
from lrwd_sweep.store.imports.run_table import RunTable
from lrwd_sweep.store.imports.source import ImportSource

TABLES = {"studies", "trials", "trial_params", "trial_values"}
_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")  # by Optuna's number
_DIRECTIONS = ("", "MINIMIZE", "MAXIMIZE")
_VALUES = {"INF_POS": "inf", "INF_NEG": "-inf", "NAN": "nan"}  # by the type of a value that is not finite


@dataclass(slots=True)
class _Trial:
    study: str
    directions: Sequence[str]
    number: int
    state: str
    values: dict[int, str] = field(default_factory=dict)  # by objective
    params: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)


def read_optuna(source: ImportSource) -> RunTable:
    """Read the trials of all studies. Parameters have their own names, whatever these are.

    Raises UsageError.
    """
    in_database = is_url(source.name) or is_sqlite(source.path)
    trials = _of_database(source) if in_database else _of_journal(source)
    if not trials:
        raise UsageError(f"{shown_name(source.name)}: there is no trial in it; name another file")
    params = dict.fromkeys(name for trial in trials for name in trial.params)
    attributes = dict.fromkeys(name for trial in trials for name in trial.attributes)
    objectives = max((len(trial.directions) for trial in trials), default=1)
    values = ["value"] if objectives == 1 else [f"values_{k}" for k in range(objectives)]
    own = ["study", "state", *values]
    chosen = _chosen_objective(source, values)
    if chosen is not None:
        own.append("direction")
    param_names = [f"params.{name}" if name in own else name for name in params]
    taken = {*own, *param_names}
    attribute_names = [f"user_attrs.{name}" if name in taken else name for name in attributes]
    rows = []
    for trial in trials:
        found = [trial.study, trial.state]
        found += [trial.values.get(k, "") for k in range(objectives)]
        if chosen is not None:
            found.append(trial.directions[chosen] if chosen < len(trial.directions) else "")
        found += [trial.params.get(name, "") for name in params]
        found += [trial.attributes.get(name, "") for name in attributes]
        rows.append((f"trial {trial.number}", found))
    header = [*own, *param_names, *attribute_names]
    return RunTable.of_rows(
        shown_name(source.name), header, rows, settings=frozenset(param_names), scope="study"
    )


def _chosen_objective(source: ImportSource, values: Sequence[str]) -> int | None:
    """Return the number of the objective that is imported; None if no option tells."""
    if len(values) == 1:
        return 0
    column = source.columns.get("value", "")
    return values.index(column) if column in values else None


def _of_database(source: ImportSource) -> list[_Trial]:
    if lacking := TABLES - tables_of(source.name):
        raise UsageError(
            f"{shown_name(source.name)} is not a storage of Optuna: there is no table {min(lacking)!r}; name "
            "another file, or its --format"
        )
    with queries(source.name) as rows:
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
    counts: dict[int, int] = {}
    for entry in _entries(source):
        code = entry["op_code"]
        if code == 0:
            if not any(study and study[0] == entry["study_name"] for study in studies):
                studies.append((entry["study_name"], [_DIRECTIONS[k] for k in entry["directions"]]))
        elif code == 1:
            studies[entry["study_id"]] = None
        elif code == 4:
            _begin(entry, studies, trials, counts)
        elif code in (5, 6, 8) and trials[entry["trial_id"]][1].state not in _STATES[1:4]:
            _update(entry, trials[entry["trial_id"]][1])
    return [trial for study, trial in trials if studies[study] is not None]


def _begin(
    entry: Mapping[str, Any],
    studies: Sequence[tuple[str, list[str]] | None],
    trials: list[tuple[int, _Trial]],
    counts: dict[int, int],
) -> None:
    """Add the trial of an entry; it may be complete at once."""
    key = entry["study_id"]
    study = studies[key]
    if study is None:
        return
    number = counts[key] = counts.get(key, -1) + 1
    trial = _Trial(study[0], study[1], number, _STATES[entry.get("state", 0)])
    trials.append((key, trial))
    distributions = entry.get("distributions", {})
    trial.params = {
        name: _parameter(value, distributions[name]) for name, value in entry.get("params", {}).items()
    }
    trial.attributes = {name: text_of(value) for name, value in entry.get("user_attrs", {}).items()}
    found = entry.get("values") or [entry.get("value")]
    trial.values = {k: text_of(value) for k, value in enumerate(found) if value is not None}


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
    """Return a parameter as text: a categorical one is stored by the number of its choice."""
    found = json.loads(distribution)
    attributes = found["attributes"]
    if "choices" in attributes:
        return text_of(attributes["choices"][int(value)])
    return text_of(int(value) if found["name"].startswith("Int") else value)
