"""Readers of a run's points: the values that a training script has written so far, and at which step."""

import csv
import glob
import io
import json
import math
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrwd_sweep.science.trial import says_higher, says_lower
from lrwd_sweep.spec.user_command import AUTO, STEPS, Command

_NUMBER = (  # not the beginning of another, such as 1 of 1,5
    r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|nan|inf(?:inity)?)(?!\w|[.,]\d)"
)
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PAIR = re.compile(
    rf"(?<![\w.])([A-Za-z][\w/.@-]*+(?: [A-Za-z][\w/.@-]*+)?+)[\"']?\s*[:=]\s*({_NUMBER})", re.IGNORECASE
)
_COUNT = re.compile(r"\b(step|iteration|iter|epoch)\s*[:=]?\s*(\d+)(?!,?\d)", re.IGNORECASE)
_NAMED = (  # lines of known scripts: nanoGPT, nanochat, torchtitan
    re.compile(
        rf"^step (?P<step>\d+): train loss (?P<train_loss>{_NUMBER}), val loss (?P<val_loss>{_NUMBER})"
    ),
    re.compile(rf"^iter (?P<iter>\d+): loss (?P<loss>{_NUMBER})"),
    re.compile(rf"^Step (?P<step>\d+) \| Validation bpb: (?P<val_bpb>{_NUMBER})"),
    re.compile(rf"\bvalidate step:\s*(?P<step>\d+)\s+loss:\s*(?P<val_loss>{_NUMBER})", re.IGNORECASE),
)
# Of Hugging Face, Lightning, timm and open_clip.
_FILES = ("trainer_state.json", "metrics.csv", "summary.csv", "results.jsonl")
_TRAINING = re.compile(
    r"(train(ing)?([/_. -]\w+)?[/_. -])?loss([/_. -](train(ing)?|step|epoch))?", re.IGNORECASE
)
_SYNONYM = re.compile(r"eval(uation)?|validation|valid")

Record = Mapping[str, float]  # by key, with one of STEPS or without


@dataclass(slots=True)
class Readout:
    """The values of one run by metric, as far as it has come."""

    metric: str
    lower: bool = True  # a lower metric is better, so that a high one can mean divergence
    steps: list[float] = field(default_factory=list)  # of the points; NaN if unknown
    unit: str = ""  # of the steps: one of STEPS
    curves: dict[str, list[float]] = field(default_factory=dict)  # by name, each as long as `steps`
    latest: dict[str, float] = field(default_factory=dict)  # by name
    lost: str = ""  # the first value that is not finite, in words
    highest: float = -math.inf  # loss so far, training's too
    source: str = ""  # where the values are from, in words

    def add(self, record: Record) -> None:
        """Append a record; it is a point if it has the metric."""
        unit = next((name for name in STEPS if name in record), "")
        step = record[unit] if unit else math.nan
        values = {name: value for name, value in record.items() if name not in STEPS}
        for name, value in values.items():
            if name == self.metric or _TRAINING.fullmatch(name):
                if self.lower or name != self.metric:
                    self.highest = max(self.highest, value)
                if not self.lost and not math.isfinite(value):
                    at = f" at {unit} {step:g}" if unit else ""
                    self.lost = f"{name} {value:g}{at}"
        self.latest |= values
        if self.metric in values:
            self.unit = self.unit or unit
            self.steps.append(step)
            for name in self.curves | self.latest:
                curve = self.curves.setdefault(name, [math.nan] * (len(self.steps) - 1))
                curve.append(self.latest[name])

    @property
    def values(self) -> list[float]:
        """The metric at its points."""
        return self.curves.get(self.metric, [])


@dataclass(slots=True)
class _File:
    """A file that a run writes; tells what is new."""

    path: str
    state: tuple[int, int] | None = None
    offset: int = 0
    rest: str = ""

    def changed(self) -> bool:
        """Check if the file is other than at the last call."""
        state = _state(self.path)
        changed = state is not None and state != self.state
        self.state = state or self.state
        return changed

    def new_lines(self, *, end: bool) -> list[str]:
        """Return the whole lines since the last call; at the `end` of the run the rest too."""
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self.offset:  # begun again
                    self.offset, self.rest = 0, ""
                file.seek(self.offset)
                found = file.read()
        except OSError:
            return []
        self.offset += len(found)
        lines = re.split(r"[\r\n]+", self.rest + found.decode(errors="replace"))
        self.rest = "" if end else lines.pop()
        return [line for line in lines if line]


class RunReader:
    """The reader of one run's points: `poll` reads what is new into `readout`."""

    def __init__(
        self,
        command: Command,
        metric: str,
        out: str,
        result: str,  # the file $LRWD_RESULT
        stdout: str,
        path: str = "",  # of the command's `read`, filled in
        lower: bool = True,  # is better
    ) -> None:
        self.metric, self.out, self.lower = metric, out, lower
        self.kind, _, self.key = command.source
        self.pattern = path
        self.result, self.stdout = _File(result), _File(stdout)
        self.file: _File | None = None
        self.readout = Readout(metric, lower)
        self.seen: dict[str, None] = {}  # keys, in order
        # Files that are there before the run are those of another one, unless they change or lie in `out`.
        before = glob.iglob(path, recursive=True) if path else ()
        self.before = {path: _state(path) for path in before if not path.startswith(f"{out}/")}

    def poll(self, *, end: bool = False) -> Readout:
        """Read what the run has written since the last call."""
        if os.path.exists(self.result.path):
            self.key = ""  # it is for the file of `read`
            if self.result.changed() or end:
                self._replace(_any_json(_text(self.result.path), whole=end), "$LRWD_RESULT")
        elif self.kind in _READERS:
            self._of_file(_READERS[self.kind], self._newest([self.pattern]), end=end)
        else:
            if self.kind == AUTO:
                path = self._newest([f"{glob.escape(self.out)}/**/{name}" for name in _FILES])
                self._of_file(_READERS.get(Path(path).suffix[1:], _json), path, end=end)
            if self.file is None:
                self._of_stdout(end=end)
        return self.readout

    def _newest(self, patterns: Sequence[str]) -> str:
        """Find the file that this run wrote last; a relative path begins in its `out`, or else here."""
        found: dict[str, int] = {}
        for pattern in patterns:
            inside = [f"{glob.escape(self.out)}/{way}{pattern}" for way in ("", "**/")]
            for each in (*([] if os.path.isabs(pattern) else inside), pattern):
                for path in glob.iglob(each, recursive=True):
                    state = _state(path)
                    if state is not None and state != self.before.get(path):
                        found[path] = state[0]
        return max(found, key=lambda path: (found[path], path), default="")

    def _of_file(self, read: Callable[[str], Iterator[Record]], path: str, *, end: bool) -> None:
        """Read a file anew if it changed; in `auto` it counts once it has the metric."""
        known = self.file if self.file is not None and self.file.path == path else _File(path)
        if not path or not (known.changed() or end):
            return
        records: list[Record] = []
        with suppress(OSError, ValueError, KeyError, IndexError, csv.Error):
            for record in read(path):
                records.append(record)  # noqa: PERF402 - what precedes a half-written end counts
        if self.kind != AUTO or any(self.metric in self._renamed(record) for record in records):
            self.file = known
            self._replace(records, os.path.basename(path))
        else:
            self.seen |= dict.fromkeys(name for record in records for name in record)

    def _of_stdout(self, *, end: bool) -> None:
        for line in self.stdout.new_lines(end=end):
            text = _COLOUR.sub("", line)
            record = self._matched(text) if self.kind == "stdout" else _pairs(text)
            if self.kind == AUTO:  # a log also has settings, times and sizes
                telling = {name: value for name, value in record.items() if self._tells(name)}
                self._add(telling, "stdout")
            elif record and self.kind:
                self._add(record, "stdout")
            self.seen |= dict.fromkeys(record or _pairs(text))

    def _tells(self, name: str) -> bool:
        """Check if a value of a log is a step, the metric, or another metric by its name."""
        is_metric = says_lower(name) or says_higher(name)
        return name in STEPS or is_metric or self.metric in self._renamed({name: 0.0})

    def _matched(self, line: str) -> Record:
        found = re.search(self.key, line)
        groups = {} if found is None else found.groupdict()
        values = {self.metric if name == "value" else name: _number(text) for name, text in groups.items()}
        return {name: value for name, value in values.items() if value is not None}

    def _replace(self, records: Sequence[Record] | Iterator[Record], source: str) -> None:
        """Read all points anew: a file may have been rewritten."""
        self.readout = Readout(self.metric, self.lower)
        for record in records:
            self._add(record, source)

    def _add(self, record: Record, source: str) -> None:
        self.seen |= dict.fromkeys(name for name in record if name not in STEPS)
        before = len(self.readout.steps)
        self.readout.add(self._renamed(record))
        if len(self.readout.steps) > before:
            self.readout.source = source

    def _renamed(self, record: Record) -> Record:
        """Call the value that was asked for by the metric's name."""
        short = {name: _short(name) for name in record}
        if self.key and self.kind in _READERS:
            key = next((name for name in record if f".{name}".endswith(f".{self.key}")), None)
        else:
            key = self.metric if self.metric in record else None
            if key is None and self.kind == AUTO and self.metric not in short.values():
                wanted = _alike(self.metric)
                alike = [name for name in record if _alike(short[name]) == wanted]
                alike += [name for name in record if _alike(name.rpartition(" ")[2]) == wanted]
                key = alike[0] if alike else None  # `INFO val_loss: 3` too
        found = {short[name]: value for name, value in record.items()}
        return found if key is None else found | {self.metric: record[key]}


def _state(path: str) -> tuple[int, int] | None:
    """Return time and size of a file; None if there is none."""
    with suppress(OSError):
        found = os.stat(path)
        return (found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None
    return None


def _short(name: str) -> str:
    """Return the last part of a key of nested JSON."""
    return re.split(r"\]?\.", name)[-1] if "[]." in name else name


def _alike(name: str) -> str:
    """Return a name without its spelling: `Validation loss` and `eval_loss` are alike."""
    return _SYNONYM.sub("val", re.sub(r"[^a-z0-9]+", "_", name.lower()))


def _text(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8-sig", errors="replace")
    return ""


def _number(value: object) -> float | None:
    """Return a number, also of text; None for anything else and for an empty cell."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _pairs(line: str) -> Record:
    """Read a line of a known script, or all its `key: value`, also of JSON."""
    for pattern in _NAMED:
        if found := pattern.search(line):
            return {name: float(text) for name, text in found.groupdict().items()}
    record = {name.strip(): float(text) for name, text in _PAIR.findall(line)}
    for name, count in _COUNT.findall(line):
        record.setdefault(name.lower(), float(count))
    return {name.lower() if name.lower() in STEPS else name: value for name, value in record.items()}


def _flat(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a JSON object by dotted name, without those in its lists."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}" if name else str(key))
    elif (found := _number(value) if not isinstance(value, str) else None) is not None:
        yield name, found


def _records(value: object, name: str = "") -> Iterator[Record]:
    """Yield the objects of every list within a JSON value, then the object around them."""
    if isinstance(value, list):
        for each in value:
            if isinstance(each, dict):
                record = {f"{name}[].{key}" if name else key: number for key, number in _flat(each)}
                yield {_short(key) if _short(key) in STEPS else key: number for key, number in record.items()}
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _records(each, f"{name}.{key}" if name else str(key))
        if not name and (record := dict(_flat(value))):
            yield record


def _any_json(text: str, *, whole: bool) -> list[Record]:
    """Read a JSON document, or JSON lines of which the last may be half written."""
    with suppress(ValueError):
        return list(_records(json.loads(text)))
    lines = text.splitlines() if whole or text.endswith("\n") else text.splitlines()[:-1]
    return [record for line in lines for record in _json_line(line)]


def _json_line(line: str) -> Iterator[Record]:
    with suppress(ValueError):
        if record := dict(_flat(json.loads(line))):
            yield record


def _json(path: str) -> Iterator[Record]:
    yield from _records(json.loads(_text(path)))


def _jsonl(path: str) -> Iterator[Record]:
    for line in _text(path).splitlines():
        yield from _json_line(line)


def _csv(path: str) -> Iterator[Record]:
    """Read a table whose cells may be empty; a header that occurs again is no row."""
    for row in csv.DictReader(io.StringIO(_text(path))):
        record = {
            name: number for name, text in row.items() if name and (number := _number(text)) is not None
        }
        if record:
            yield record


def _tensorboard(path: str) -> Iterator[dict[str, float]]:
    """Yield the scalars of a TensorBoard event file; a record that is being written ends it."""
    data, at = Path(path).read_bytes(), 0
    while at + 12 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        if at + 12 + size > len(data):
            return
        event = dict(_fields(data[at + 12 : at + 12 + size]))
        at += size + 16  # the length, its checksum, and the checksum of the message
        for number, value in _fields(event.get(5, b"")):  # Summary
            if number == 1 and isinstance(value, bytes) and (found := _scalar(value)) is not None:
                yield {"step": float(event.get(2, 0)), found[0]: found[1]}


def _scalar(message: bytes) -> tuple[str, float] | None:
    """Read a Summary.Value: its tag, and simple_value or a tensor of one float."""
    parts: dict[int, Any] = dict(_fields(message))
    tag = parts.get(1, b"").decode(errors="replace")
    if len(parts.get(2, b"")) == 4:
        return tag, struct.unpack("<f", parts[2])[0]
    tensor: dict[int, Any] = dict(_fields(parts.get(8, b"")))
    content = tensor.get(5) or tensor.get(4) or b""  # float_val, tensor_content
    return (tag, struct.unpack("<f", content)[0]) if tensor.get(1) == 1 and len(content) == 4 else None


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a protobuf message: its number, and an int or the bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(key & 7)
        if size is None:
            size, at = _varint(message, at)
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


_READERS = {"json": _json, "jsonl": _jsonl, "csv": _csv, "tb": _tensorboard}
