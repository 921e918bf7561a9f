"""A row of a table of runs, parsed: cell, seed, and how the run ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lrwd_sweep.errors import shown
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store.imports.run_states import RunState, StateColumn, run_state, state_of
from lrwd_sweep.store.imports.run_table import RowFault, RunTable, number

T = TypeVar("T")

_PLACEHOLDERS = {"", "none", "null", "na", "nil", "missing", "undefined", "empty"}  # letters of a text
_WITHOUT_VALUE: dict[RunState | None, Status | None] = {
    RunState.UNFINISHED: None,
    RunState.FAILED: Status.FAILED,
    RunState.DIVERGED: Status.DIVERGED,
}


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """A run of a table."""

    place: str  # in the source
    cell: Cell
    seed: int
    value: float  # defined if complete
    status: Status | None  # None: the run did not finish, and has no trial
    word: str  # text of the column of states
    detail: str
    further: Mapping[str, str]  # texts of all columns by name

    @property
    def has_result(self) -> bool:
        """True if the run ended by itself: complete or diverged."""
        return self.status in (Status.COMPLETE, Status.DIVERGED)

    def trial(self, metric: str, numeric: Sequence[str], curve: Mapping[str, Sequence[float]]) -> Trial:
        """Return the run as a trial with its value as `metric`; `numeric` columns are metrics too."""
        status = self.status or Status.FAILED
        curves = {metric if name == "value" else name: tuple(values) for name, values in curve.items()}
        if status is not Status.COMPLETE:
            plain = self.word.lower() in ("", *Status) or state_of(self.word) is RunState.COMPLETE
            detail = self.detail or ("" if plain else self.word)
            return Trial(self.cell, self.seed, status, {}, curves, detail)
        others = {name: number(self.further[name]) for name in numeric if self.further[name]}
        finite = {name: value for name, value in others.items() if math.isfinite(value)}
        return Trial(self.cell, self.seed, status, {metric: self.value} | finite, curves, self.detail)


def parse_runs(
    table: RunTable, names: Mapping[str, str], states: Sequence[StateColumn]
) -> tuple[list[ImportedRun], list[str], list[RowFault]]:
    """Parse all rows: the runs, the states of runs without a result whose rates are invalid, the faults.

    `names` maps known names to columns. The value of a run without a result is not parsed.
    """
    runs: list[ImportedRun] = []
    left_out: list[str] = []
    faults: list[RowFault] = []
    for place, texts in table.rows:
        if len(texts) != len(table.header):
            fields = f"there are {len(texts)} fields under a header of {len(table.header)}"
            faults.append(RowFault(place, fields, "fields"))
            continue
        by_column = dict(zip(table.header, texts, strict=True))
        state, word = run_state(states, by_column)
        fields_of = _Fields(place, {name: by_column[column] for name, column in names.items()})
        value, status = fields_of.outcome(state)
        lr = fields_of.parse("lr", _lr, math.nan)
        weight_decay = fields_of.parse("weight_decay", _weight_decay, math.nan)
        seed = fields_of.parse("seed", _seed, 0)
        if not fields_of.faults:
            detail = fields_of.texts.get("detail", "")
            cell = Cell(lr, weight_decay)
            runs.append(ImportedRun(place, cell, seed, value, status, word, detail, by_column))
        elif state in (RunState.UNFINISHED, RunState.FAILED):
            left_out.append(word)
        else:
            faults += fields_of.faults
    return runs, left_out, faults


class _Fields:
    """A row's texts by known name, and the faults found in them."""

    def __init__(self, place: str, texts: Mapping[str, str]) -> None:
        self.place, self.texts = place, texts
        self.faults: list[RowFault] = []

    def parse(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """Parse a text; return `default` if there is none or it has a fault."""
        text = self.texts.get(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self.faults.append(RowFault(self.place, f"{name} {shown(text)} {error}", f"{name} {error}"))
            return default

    def outcome(self, state: RunState | None) -> tuple[float, Status | None]:
        """Return value and status; a run that finished with NaN diverged."""
        if state in _WITHOUT_VALUE:
            return math.nan, _WITHOUT_VALUE[state]
        if not self.texts["value"]:
            empty = "value is empty; write nan for a diverged run"
            self.faults.append(RowFault(self.place, empty, "value is empty"))
            return math.nan, None
        value = self.parse("value", _value, math.nan)
        return value, Status.COMPLETE if math.isfinite(value) else Status.DIVERGED


def _value(text: str) -> float:
    if "".join(filter(str.isalnum, text.lower())) in _PLACEHOLDERS:
        raise ValueError("is not a number; write nan for a diverged run, or missing in a column status")
    return number(text)


def _lr(text: str) -> float:
    value = number(text)
    if not 0 < value < math.inf:
        raise ValueError("is not a learning rate; it must be positive and finite")
    return value


def _weight_decay(text: str) -> float:
    value = number(text)
    if not 0 <= value < math.inf:
        raise ValueError("is not a weight decay; it must be finite and not negative")
    return value


def _seed(text: str) -> int:
    value = number(text)
    if not value.is_integer() or abs(value) >= 2**53:
        raise ValueError("is not a seed; it must be a whole number")
    return int(value)
