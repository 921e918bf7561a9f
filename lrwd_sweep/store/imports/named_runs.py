"""Runs with hyperparameters in their names: files below a folder, and charts of Weights & Biases.

A template such as `lr{lr}/wd{weight_decay}_seed{seed}.csv:val_loss` gives the path below a folder and the
key of the value, which is the last or the best of a learning curve. `*` is any part of a name, `**/` any
folders. Hyperparameters may also lie in a file of settings beside a run.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lrwd_sweep.errors import UsageError, arg, brief, shown
from lrwd_sweep.spec.user_command import STEPS
from lrwd_sweep.store.imports.csv_and_json import curve_of, flat, load, read_csv, text_of
from lrwd_sweep.store.imports.run_table import ImportSource, RunTable, distinct, is_number, number, some

END = "last step"  # the column with the end of a curve
NO_VALUE, DIVERGED = "no value", "not finite"  # its text for a curve without an end
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS = ("lr", "weight_decay", "seed")
_TOKEN = re.compile(r"\{([^{}]+)\}|(\*\*/|\*\*|\*)")
_STEPS = ("step", "global_step", "_step", "iteration", "training_iteration", "iter", "epoch")
_SETTINGS = (  # of Lightning, Ray, Weights & Biases, Hydra and others
    *("hparams.yaml", "params.json", "config.yaml", "config.json", "args.yaml", "args.json"),
    *(".hydra/config.yaml", "training_args.json", "hparams.json"),
)
_BOUNDS = ("__MIN", "__MAX")  # of a chart, beside a column
_PAIR = re.compile(r"([A-Za-z_][\w./]*)\s*[=:]\s*([^\s,;|]+)")
_LIKE = "'lr{lr}_wd{weight_decay}_seed{seed}.csv:val_loss'"


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A name with `{…}` for its parts, as a regular expression."""

    names: tuple[str, ...]
    expression: re.Pattern[str]

    @classmethod
    def of(cls, text: str, columns: Mapping[str, str]) -> NamePattern:
        """Parse a pattern, in which lr, weight decay and seed are numbers, also under their `columns`.

        Raises UsageError if a part is named twice or not closed.
        """
        numbers = {*_NUMBERS, *(columns.get(name, name) for name in _NUMBERS)}
        parts, names, at = [], [], 0
        for token in _TOKEN.finditer(text):
            parts.append(re.escape(text[at : token.start()]))
            at = token.end()
            if token[1]:
                names.append(token[1].strip())
                parts.append(f"({_NUMBER})" if names[-1] in numbers else f"({_NUMBER}|[^/]+?)")
            else:
                parts.append({"**/": "(?:.*?/)?", "**": ".*?", "*": "[^/]*?"}[token[2]])
        parts.append(re.escape(text[at:]))
        if {"{", "}"} & set("".join(_TOKEN.sub("", text))) or len({*names}) < len(names):
            raise UsageError(
                f"{arg('from', text)} has a part twice, or one that is not closed; write for example {_LIKE}"
            )
        return cls(tuple(names), re.compile("".join(parts)))

    def parts_of(self, name: str) -> dict[str, str] | None:
        """Return the parts of a name; None if it does not fit."""
        found = self.expression.fullmatch(name)
        return None if found is None else dict(zip(self.names, found.groups(), strict=True))


@dataclass(slots=True)
class Curve:
    """The values of a run in their order, their steps if these are known, and what its file says besides."""

    values: list[float]
    steps: Sequence[float] = ()
    unit: str = "step"  # of the steps, as the file calls them
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def points(self) -> dict[str, Sequence[float]]:
        """The values and their steps by name, to store."""
        unit = self.unit.removeprefix("_").removeprefix("training_")
        return {"value": self.values} | ({unit: self.steps} if self.steps and unit in STEPS else {})

    def texts(self, source: ImportSource) -> tuple[str, str]:
        """Return the value and the end of the run, as texts."""
        if not self.values:
            return "", NO_VALUE
        last = f"{self.steps[-1]:.17g}" if self.steps else len(self.values)
        end = f"step {last}" if math.isfinite(self.values[-1]) else DIVERGED
        return text_of(source.value_of(self.values)), end


def read_paths(source: ImportSource) -> RunTable:
    """Read a run from every file below the folder that fits the template. Raises UsageError."""
    template, colon, key = source.template.rpartition(":")
    if not colon or not key or not template:
        raise UsageError(f"{arg('from', source.template)} is not TEMPLATE:KEY; write for example {_LIKE}")
    if not source.path.is_dir():
        raise UsageError(f"{source.name} is not a folder; name the one that the paths of --from begin in")
    template = template.removeprefix("./")
    pattern = NamePattern.of(template, source.columns)
    runs, others = [], 0
    for name in _files(source.path, None if "**" in template else template.count("/")):
        if (parts := pattern.parts_of(name)) is not None:
            runs.append((name, parts))
        elif Path(name).suffix == Path(template).suffix:
            others += 1
    if not runs:
        raise UsageError(
            f"{source.name}: no file below it fits {arg('from', source.template)}; it holds "
            f"{some(map(shown, _files(source.path, None)), 3) or 'no file'}"
        )
    known: dict[Path, dict[str, str]] = {}
    records, settings, curves = [], set(), {}
    for name, parts in runs:
        curve = _read_curve(source.path / name, key)
        value, end = curve.texts(source)
        named = {**_settings_of(source.path, Path(name).parent, known), **parts}
        records.append({**curve.facts, **named, "value": value, END: end})
        settings |= named.keys() - {"value", END}
        curves[name, "value"] = curve.points
    files = f"{others} more {Path(template).suffix or 'files'} there do not fit {template}"
    return RunTable.of_records(
        *(source.name, records, [name for name, _ in runs]),
        settings=frozenset(settings),
        progress=END,
        notes=(files,) * bool(others),
        measured=key,
        curves=curves,
    )


def _read_curve(path: Path, key: str) -> Curve:
    """Read the values of a key from a CSV, JSON or JSON lines file. Raises UsageError."""
    with path.open("rb") as file:
        beginning = file.read(256).lstrip()[:1]
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson") or beginning in (b"{", b"["):
        return _json_curve(path, key)
    return _csv_curve(path, key)


def _csv_curve(path: Path, key: str) -> Curve:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {brief(error)}") from None
    beginning = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=beginning.count))
    header = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = header
    if key not in header:
        columns = some(map(shown, header), 12) or "nothing"
        raise UsageError(
            f"{path}: there is no column {shown(key)}, only {columns}; name one in {arg('from')}"
        )
    rows = [{name: (value or "").strip() for name, value in row.items() if name in header} for row in reader]
    found = [row for row in rows if row.get(key)]  # the columns of some loggers are sparse
    if bad := next((row[key] for row in found if not is_number(row[key])), None):
        raise UsageError(f"{path}: {key} {shown(bad)} is not a number; name another key in {arg('from')}")
    step = next((name for name in _STEPS if name in header and name != key), None)
    texts = {name: distinct(row.get(name, "") for row in rows) for name in header if name not in (key, step)}
    facts = {name: words[0] for name, words in texts.items() if len(words) == 1}
    steps = [row.get(step, "") for row in found] if step else []
    known = [number(text) for text in steps] if all(map(is_number, steps)) else []
    return Curve([number(row[key]) for row in found], known, step or "step", facts)


def _json_curve(path: Path, key: str) -> Curve:
    document = load(path)
    items = document if isinstance(document, list) else [document]
    values = curve_of(document, key)
    last = next((item for item in reversed(items) if isinstance(item, Mapping)), {})
    if not values and items:
        known = [name for name in flat(last) if is_number(flat(last)[name])]
        raise UsageError(
            f"{path}: there is no number at {shown(key)}; there is {some(map(shown, known), 12) or 'none'}"
        )
    facts = {name: text for name, text in flat(last).items() if name != key and not name.endswith("[-1]")}
    prefix = key.rpartition(".")[0]
    steps = {name: curve_of(document, f"{prefix}.{name}" if prefix else name) for name in _STEPS}
    unit = next((name for name, found in steps.items() if len(found) >= len(values) > 1), "step")
    return Curve(
        values, steps[unit][-len(values) :] if len(steps[unit]) >= len(values) > 1 else (), unit, facts
    )


def _files(root: Path, depth: int | None) -> Iterator[str]:
    """Yield the files below a folder in order, as paths from it; at most `depth` folders down."""
    for folder, names, files in os.walk(root):
        place = Path(folder).relative_to(root)
        names.sort()
        if depth is not None and len(place.parts) >= depth:
            names.clear()
        if depth is None or len(place.parts) == depth:
            yield from ((place / name).as_posix() for name in sorted(files))


def _settings_of(root: Path, folder: Path, known: dict[Path, dict[str, str]]) -> dict[str, str]:
    """Return the settings in known files of a folder and those above it, the nearest first."""
    if folder not in known:
        above = _settings_of(root, folder.parent, known) if folder.parts else {}
        own: dict[str, str] = {}
        for name in reversed(_SETTINGS):
            path = root / folder / name
            if path.is_file():
                own |= flat(_document(path))
        known[folder] = {name: text for name, text in {**above, **own}.items() if name}
    return known[folder]


def _document(path: Path) -> Any:
    if path.suffix == ".json":
        return load(path)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {brief(error)}") from None


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
    steps = texts[table.header[0]]
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
        points = [(step, text) for step, text in zip(steps, texts[column], strict=True) if text]
        if bad := next((text for _, text in points if not is_number(text)), None):
            raise UsageError(f"{source.name}: {shown(column)}: {shown(bad)} is not a number")
        known = [number(step) for step, _ in points] if all(is_number(step) for step, _ in points) else []
        curve = Curve([number(text) for _, text in points], known, table.header[0].lower())
        value, end = curve.texts(source)
        curves[f"run {name}", metric] = curve.points
        runs.setdefault(name, {"run": name, END: end, **parts})[metric] = value
        settings |= parts.keys()
    metrics = {key for run in runs.values() for key in run} - {"run", END, *settings}
    measured = ""
    if len(metrics) == 1:
        (measured,) = metrics
        if not any("value" in run for run in runs.values()):
            runs = {
                name: {"value" if key == measured else key: text for key, text in run.items()}
                for name, run in runs.items()
            }
            curves = {(place, "value"): curve for (place, _), curve in curves.items()}
    return RunTable.of_records(
        *(source.name, [*runs.values()], [f"run {name}" for name in runs]),
        settings=frozenset(settings),
        progress=END,
        measured=measured,
        curves=curves,
    )
