"""Runs in a CSV file, a row per run, or in JSON or JSON lines: records with dotted keys, `config.lr`.

A CSV is separated by commas, semicolons or tabs. JSON records are a list, or in one: `results[].config.lr`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrwd_sweep.errors import UsageError, arg, shown
from lrwd_sweep.store.imports.run_table import (
    BLOCK,
    REQUIRED,
    ImportSource,
    RunTable,
    as_texts,
    find_column,
    some,
)

if TYPE_CHECKING:
    import _csv

_SHARED = 50_000  # distinct texts of a column up to which equal ones are one object
_SETTINGS = {"config", "params", "param", "parameters", "hparams", "hyperparameters", "hyperparams", "args"}
_SHORT = 8  # elements of a list that are shown as one text, such as betas

Record = dict[str, str]


def read_csv(source: ImportSource) -> RunTable:
    """Read the header and all rows that are not blank. Raises UsageError."""
    path = source.path
    try:
        with path.open("rb") as raw:
            whole = raw if raw.seekable() else io.BytesIO(raw.read())
            file = io.TextIOWrapper(whole, "utf-8-sig", newline="")
            try:
                return _table(path, file)
            except UnicodeDecodeError:  # its position is that in a part of the file
                whole.seek(0)
                fault = _first_fault(whole.read())
                raise UsageError(f"{path}: byte {fault} is not UTF-8; save the file as UTF-8 CSV") from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name a CSV file that can be read") from None


def _table(path: Path, file: io.TextIOWrapper) -> RunTable:
    first = next((line.strip("\n") for line in file if line.strip()), "")
    file.seek(0)
    delimiter = max(",;\t", key=first.count)  # a comma if in doubt; rows may hold decimal commas
    lines = csv.reader(file, delimiter=delimiter, strict=True)
    places = array("q")
    ragged: list[tuple[str, list[str]]] = []
    try:
        header = next(([*map(str.strip, fields)] for fields in lines if any(map(str.strip, fields))), [])
        columns = [_Column() for _ in header]
        rows = _whole_rows(lines, len(header), places, ragged)
        while block := list(islice(rows, BLOCK)):
            for column, texts in zip(columns, zip(*block, strict=True), strict=True):
                column.extend(texts)
    except csv.Error as error:
        raise UsageError(f"{path}: line {lines.line_num}: {error}; check the quotes") from None
    if not places and not ragged:
        fault = "there are no rows below the header" if header else "the file is empty"
        raise UsageError(f"{path}: {fault}; write lr,weight_decay,seed,value and a row per run")
    columns.reverse()
    found = [as_texts(columns.pop().texts) for _ in header]  # one at a time, to save memory
    return RunTable(path, header, found, np.array(places), ragged, written=True)


def _whole_rows(
    lines: _csv.Reader, width: int, places: array[int], ragged: list[tuple[str, list[str]]]
) -> Iterator[list[str]]:
    """Yield the rows of `width` fields and note their lines; keep others, unless blank, in `ragged`."""
    for fields in lines:
        if len(fields) == width and (fields[0].strip() or any(map(str.strip, fields))):
            places.append(lines.line_num)
            yield fields
        elif len(fields) != width and any(map(str.strip, fields)):
            ragged.append((f"line {lines.line_num}", [*map(str.strip, fields)]))


class _Column:
    """The texts of a column; equal ones are one object if there are few distinct ones."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._known: dict[str, str] = {}

    def extend(self, texts: Sequence[str]) -> None:
        """Add texts without the blanks around them."""
        stripped = [*map(str.strip, texts)]
        if len(self._known) <= _SHARED:
            stripped = [*map(self._known.setdefault, stripped, stripped)]
        self.texts += stripped


def _first_fault(raw: bytes) -> int:
    try:
        raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return error.start
    return 0


def read_json(source: ImportSource) -> RunTable:
    """Read all records; facts outside of their list belong to each. Raises UsageError."""
    document = load(source.path)
    records = _records(source, document)
    if not records:
        raise UsageError(f"{source.name}: there are no records in it; write a list of objects, one per run")
    places = [f"record {k}" for k in range(1, len(records) + 1)]
    table = RunTable.of_records(source.name, records, places)
    return replace(table, settings=frozenset(filter(_is_setting, table.header)))


def load(path: Path) -> Any:
    """Return the document of a JSON file, the list of those of JSON lines. Raises UsageError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name a JSON file that can be read") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        lines = [(k, line) for k, line in enumerate(text.splitlines(), 1) if line.strip()]
        if error.msg != "Extra data" or not _is_json(lines[0][1]):
            at = f"line {error.lineno}, column {error.colno}"
            raise UsageError(f"{path}: {at}: {error.msg}; the file is not JSON") from None
    found = []
    for k, line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}: line {k}: {error.msg}; write a JSON object per line") from None
    return found


def text_of(value: object) -> str:
    """Return a JSON value as the text of a table: null is empty, a number is exact."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    return repr(value) if isinstance(value, float) else json.dumps(value)


def flat(value: object, prefix: str = "") -> Record:
    """Return the scalars of nested objects by dotted key; of a list of numbers its last, `curve[-1]`.

    >>> flat({"optim": {"lr": 0.1}, "loss": [2.5, 1.5]})
    {'optim.lr': '0.1', 'loss': '[2.5, 1.5]', 'loss[-1]': '1.5'}
    """
    if isinstance(value, Mapping):
        if "value" in value and not set(value) - {"value", "desc"}:  # a config of Weights & Biases
            return flat(value["value"], prefix)
        found: Record = {}
        for key, part in value.items():
            found |= flat(part, f"{prefix}.{key}" if prefix else str(key))
        return found
    if not isinstance(value, list):
        return {prefix: text_of(value)}
    if not all(map(_is_scalar, value)):
        return {}
    short = {prefix: json.dumps(value)} if len(value) <= _SHORT else {}
    numbers = value and all(_is_number(part) for part in value)
    return short | ({f"{prefix}[-1]": text_of(value[-1])} if numbers else {})


def _is_setting(column: str) -> bool:
    """Return whether a dotted name says that it is a hyperparameter."""
    return any(part.rstrip("[]") in _SETTINGS for part in column.replace("/", ".").split(".")[:-1])


def _records(source: ImportSource, document: object) -> list[Record]:
    if isinstance(document, Mapping):
        document = _by_run(document)
    if isinstance(document, list):
        if document and not all(isinstance(item, Mapping) for item in document):
            raise UsageError(f"{source.name}: its list does not hold objects; write one object per run")
        opened = _named_lists(source)
        return [record for item in document for record in _expanded(item, "", opened)]
    if not isinstance(document, Mapping):
        raise UsageError(f"{source.name} holds {shown(document)}; write a list of objects, one per run")
    opened = _named_lists(source) or _only_list(source, document)
    return list(_expanded(document, "", opened))


def _by_run(document: Mapping[str, Any]) -> Any:
    """Return the records of a table that pandas wrote by columns, or of named runs; else the document."""
    values = list(document.values())
    if {"columns", "data"} <= document.keys() and isinstance(document["data"], list):
        return [dict(zip(document["columns"], row, strict=False)) for row in document["data"]]
    if all(isinstance(value, list) and all(map(_is_scalar, value)) for value in values):
        if len({len(value) for value in values}) == 1 and len(values) > 1:
            return [dict(zip(document, row, strict=True)) for row in zip(*values, strict=True)]
    elif all(isinstance(value, Mapping) and value for value in values) and len(values) > 1:
        if all(key.isdecimal() for value in values for key in value):
            return [{name: document[name].get(key) for name in document} for key in values[0]]
        if all(any(map(_is_scalar, value.values())) and len(value) > 1 for value in values):
            return [{"key": key, **value} for key, value in document.items()]
    return document


def _named_lists(source: ImportSource) -> set[str]:
    """Return the lists in the user's names of columns: `a[]` and `a[].b[]` of `a[].b[].lr`."""
    found = set()
    for column in source.columns.values():
        parts = column.split("[].")
        found |= {"[].".join(parts[:k]) + "[]" for k in range(1, len(parts))}
    return found


def _only_list(source: ImportSource, document: Mapping[str, Any]) -> set[str]:
    """Return the list of a document that holds its records; none if the document is a record itself."""

    def has_rates(record: Mapping[str, Any]) -> bool:
        wanted = [source.columns.get(name, name) for name in REQUIRED[:2]]
        return all(find_column([*flat(record)], name) for name in wanted)

    if has_rates(document):
        return set()
    lists = dict(_lists(document))
    found = [path for path, items in lists.items() if len(lists) == 1 or has_rates(items[0])]
    if len(found) > 1 or (lists and not found):
        raise UsageError(
            f"{source.name} holds {len(lists)} lists of records, {some(map(shown, lists))}; name the one as "
            f"{arg('columns', f'lr={next(iter(lists))}.KEY')}"
        )
    return set(found)


def _lists(value: object, prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield the lists of objects by dotted key, not those within lists."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _lists(part, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        yield f"{prefix}[]", value


def _expanded(item: Mapping[str, Any], prefix: str, opened: set[str]) -> Iterator[Record]:
    """Yield a record for each element of the lists that are `opened`, with the facts around them."""
    facts = {f"{prefix}{key}": value for key, value in flat(item).items()}
    within = [(path, items) for path, items in _lists(item) if prefix + path in opened]
    if not within:
        yield facts
    for path, items in within:
        for part in items:
            for record in _expanded(part, f"{prefix}{path}.", opened):
                yield facts | record


def curve_of(document: object, key: str) -> list[float]:
    """Return the numbers at a dotted key: of one object, a list in it, or each object of a list.

    >>> curve_of({"log": [{"eval_loss": 2}, {"loss": 3}, {"eval_loss": 1}]}, "log[].eval_loss")
    [2.0, 1.0]
    """
    found: Sequence[object] = document if isinstance(document, list) else [document]
    for part in key.split("."):
        name = part.removesuffix("[]")
        values = [item[name] for item in found if isinstance(item, Mapping) and name in item]
        found = [x for value in values for x in (value if isinstance(value, list) else [value])]
    if not found and isinstance(document, list | Mapping):  # a key with dots in it
        items = document if isinstance(document, list) else [document]
        found = [item[key] for item in items if isinstance(item, Mapping) and key in item]
    return [
        math.nan if value is None else float(str(value))
        for value in found
        if value is None or _is_number(value)
    ]


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_number(value: object) -> bool:
    if isinstance(value, str):  # some encoders write "NaN" in quotes
        return value.lower().strip("-+") in ("nan", "inf", "infinity")
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True
