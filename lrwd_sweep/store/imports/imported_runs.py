"""The rows of a table of runs, parsed: cells, seeds, and how the runs ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrwd_sweep.errors import shown
from lrwd_sweep.science.lattice import Cell, canonical
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store.imports.run_states import RunState, StateColumns, run_states, state_of
from lrwd_sweep.store.imports.run_table import BLOCK, RowFault, RunTable, Texts, is_number, number, numbers

Rows = NDArray[np.int64]

_STATUS = {
    RunState.COMPLETE: Status.COMPLETE,
    RunState.DIVERGED: Status.DIVERGED,
    RunState.FAILED: Status.FAILED,
}
_PLACEHOLDERS = {"", "none", "null", "na", "nil", "missing", "undefined", "empty"}  # letters of a text


@dataclass(frozen=True, slots=True)
class ImportedRuns:
    """Runs of a table in its order; each array has an entry per run."""

    table: RunTable
    row: Rows  # index in the table
    lr: NDArray[np.float64]  # canonical
    weight_decay: NDArray[np.float64]  # canonical
    seed: NDArray[np.int64]
    value: NDArray[np.float64]  # defined if complete
    state: NDArray[np.int8]  # RunState
    word: Texts  # text of the column of states
    detail: Texts | None

    def __len__(self) -> int:
        return len(self.row)

    @property
    def has_result(self) -> NDArray[np.bool_]:
        """True if the run ended by itself: complete or diverged."""
        return np.isin(self.state, (RunState.COMPLETE, RunState.DIVERGED))

    def select(self, chosen: NDArray[Any]) -> ImportedRuns:
        """Return some runs, given by index or as a mask."""
        if chosen.dtype == bool and chosen.all():
            return self
        names = ("row", "lr", "weight_decay", "seed", "value", "state", "word")
        detail = None if self.detail is None else self.detail[chosen]
        return replace(self, **{name: getattr(self, name)[chosen] for name in names}, detail=detail)

    def cell(self, k: int) -> Cell:
        """Return the cell of a run."""
        return Cell(float(self.lr[k]), float(self.weight_decay[k]))

    def place(self, k: int) -> str:
        """Return the place of a run in the source."""
        return self.table.place(int(self.row[k]))

    def texts(self, column: str) -> Texts:
        """Return the texts of the runs in a column of the table."""
        return self.table.columns()[column][self.row]

    def cells(self) -> NDArray[np.int64]:
        """Number the distinct cells, ascending; return the number of each run's cell."""
        rates, lr = np.unique(self.lr, return_inverse=True)
        values, decay = np.unique(self.weight_decay, return_inverse=True)
        lr *= len(values)
        lr += decay
        if (size := len(rates) * len(values)) > len(self):
            return np.unique(lr, return_inverse=True)[1]
        there = np.zeros(size, dtype=np.int64)  # without sorting
        there[lr] = 1
        return (np.cumsum(there) - 1)[lr]

    def lanes(self) -> NDArray[np.int64]:
        """Return a number for each run that is equal for runs of one lane."""
        lanes = self.cells()
        seeds, seed = np.unique(self.seed, return_inverse=True)
        lanes *= len(seeds)
        lanes += seed
        return lanes


@dataclass(frozen=True, slots=True)
class ImportedTrials:
    """Runs as trials, each built when it is asked for, because a million of them fill the memory.

    The value is the metric `metric`, with its learning curve if the table has one of the column `measured`;
    `numeric` columns are metrics too, and `constant` ones of every run.
    """

    runs: ImportedRuns
    metric: str
    numeric: Sequence[str]
    measured: str
    constant: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Trial]:
        for start in range(0, len(self), BLOCK):
            yield from self._built(self.runs.select(np.arange(start, min(start + BLOCK, len(self)))))

    def _built(self, runs: ImportedRuns) -> Iterator[Trial]:
        cell = lru_cache(BLOCK)(Cell)
        details = [""] * len(runs) if runs.detail is None else runs.detail
        every = self._metrics(runs)
        nothing: dict[Any, Any] = {}
        lists = (one.tolist() for one in (runs.lr, runs.weight_decay, runs.seed, runs.state))
        for k, (lr, weight_decay, seed, state) in enumerate(zip(*lists, strict=True)):
            detail, curves = details[k], self._curves(runs, k) if runs.table.curves else nothing
            metrics = nothing if state else every[k]
            if state and not detail:
                word = runs.word[k]
                plain = word.lower() in ("", *Status) or state_of(word) is RunState.COMPLETE
                detail = "" if plain else word
            yield Trial(cell(lr, weight_decay), seed, _STATUS[state], metrics, curves, detail, nothing)

    def _metrics(self, runs: ImportedRuns) -> list[dict[str, float]]:
        """Return the metrics of each run; they mean something if it is complete."""
        found = [{self.metric: value} for value in runs.value.tolist()]
        for name in self.numeric:
            values = numbers(texts := runs.texts(name))
            if values is None:  # of a run without a result
                values = np.array([number(text) if is_number(text) else math.nan for text in texts])
            finite = np.isfinite(values).tolist()
            for metrics, value, there in zip(found, values.tolist(), finite, strict=True):
                if there:
                    metrics[name] = value
        if self.constant:
            for metrics in found:
                metrics.update(self.constant)
        return found

    def _curves(self, runs: ImportedRuns, k: int) -> dict[str, tuple[float, ...]]:
        found = runs.table.curves.get((runs.place(k), self.measured)) or {}
        return {self.metric if name == "value" else name: tuple(values) for name, values in found.items()}


def parse_runs(
    table: RunTable, names: Mapping[str, str], states: StateColumns
) -> tuple[ImportedRuns, list[str], list[RowFault]]:
    """Parse all rows: the runs, the states of runs without a result whose rates are invalid, the faults.

    `names` maps known names to columns. The value of a run without a result is not parsed.
    """
    size = len(table.places)
    columns = table.columns()
    texts = {name: columns[column] for name, column in names.items()}
    state, word = run_states(states, columns, size)
    parser = _Parser(table)
    with_value = np.flatnonzero(state == RunState.COMPLETE)
    value = np.full(size, math.nan)
    found = numbers(texts["value"][with_value])
    if found is None or (texts["value"][with_value] == "").any():
        value = parser.parse("value", texts["value"], _value, math.nan, with_value)
    else:
        value[with_value] = found
    ended = state.copy()
    ended[with_value[~np.isfinite(value[with_value])]] = RunState.DIVERGED
    lr = parser.parse("lr", texts["lr"], _lr, math.nan)
    weight_decay = parser.parse("weight_decay", texts["weight_decay"], _weight_decay, math.nan)
    seed = np.zeros(size, dtype=np.int64)
    if "seed" in texts:
        seed = parser.parse("seed", texts["seed"], _seed, 0)
    runs = ImportedRuns(
        *(table, np.arange(size), lr, weight_decay, seed, value, ended, word), texts.get("detail")
    )
    faults: list[RowFault] = []
    left_out = []
    for row, in_row in sorted(parser.faults.items()):
        if state[row] in (RunState.UNFINISHED, RunState.FAILED):
            left_out.append(word[row])
        else:
            faults += in_row
    width = f"fields under a header of {len(table.header)}"
    faults += [RowFault(place, f"there are {len(found)} {width}", "fields") for place, found in table.ragged]
    if parser.faults:
        sound = np.ones(size, dtype=bool)
        sound[[*parser.faults]] = False
        runs = runs.select(sound)
    return runs, left_out, faults


class _Parser:
    """The faults of a table by row, in the order of parsing."""

    def __init__(self, table: RunTable) -> None:
        self.table = table
        self.faults: dict[int, list[RowFault]] = {}

    def parse(
        self, name: str, texts: Texts, parse: Callable[[str], Any], default: float, rows: Rows | None = None
    ) -> NDArray[Any]:
        """Parse the texts of some rows (default: all); return `default` for others and for faults."""
        found = np.full(len(texts), default)
        chosen = np.arange(len(texts)) if rows is None else rows
        for start in range(0, len(chosen), BLOCK):
            some = chosen[start : start + BLOCK]
            block = texts[some].tolist()
            known: dict[str, Any] = {}
            faults: dict[str, str] = {}
            for text in dict.fromkeys(block):
                try:
                    known[text] = parse(text)
                except ValueError as error:
                    known[text], faults[text] = default, str(error)
            found[some] = [*map(known.__getitem__, block)]
            for row, text in zip(some.tolist(), block, strict=True) if faults else ():
                if (fault := faults.get(text)) is not None:
                    what = name if name == "value" and not text else f"{name} {shown(text)}"
                    one = RowFault(self.table.place(row), f"{what} {fault}", f"{name} {fault}")
                    self.faults.setdefault(row, []).append(one)
        return found


def _value(text: str) -> float:
    if not text:
        raise ValueError("is empty; write nan for a diverged run")
    try:
        return number(text)
    except ValueError:
        if "".join(filter(str.isalnum, text.lower())) not in _PLACEHOLDERS:
            raise
    raise ValueError("is not a number; write nan for a diverged run, or missing in a column status")


def _lr(text: str) -> float:
    value = number(text)
    if not 0 < value < math.inf:
        raise ValueError("is not a learning rate; it must be positive and finite, and no logarithm")
    return canonical(value)


def _weight_decay(text: str) -> float:
    value = number(text)
    if not 0 <= value < math.inf:
        raise ValueError("is not a weight decay; it must be finite and not negative, and no logarithm")
    return canonical(value)


def _seed(text: str) -> int:
    value = number(text)
    if not value.is_integer() or abs(value) >= 2**53:
        raise ValueError("is not a seed; it must be a whole number")
    return int(value)
