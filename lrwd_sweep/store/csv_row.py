"""One row of a CSV sweep: its cell, its seed and how it ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store.csv_file import Fault
from lrwd_sweep.store.csv_text import number, shown
from lrwd_sweep.store.run_states import RunState

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """A row without fault."""

    line: int
    cell: Cell
    seed: int
    value: float  # means something when the status is complete
    status: Status | None  # None: the run did not finish, and has no trial
    word: str  # what the file's column of states says
    detail: str
    further: Mapping[str, str]  # the other columns' texts, by name

    @property
    def has_result(self) -> bool:
        """Whether the run came to an end of its own."""
        return self.status in (Status.COMPLETE, Status.DIVERGED)

    def trial(self, metric: str, numeric: list[str]) -> Trial:
        """The trial: `metric` is its value, and the `numeric` further columns are metrics too."""
        status = self.status or Status.FAILED
        if status is not Status.COMPLETE:
            plain = self.word.lower() in ("", *Status)
            return Trial(self.cell, self.seed, status, detail=self.detail or ("" if plain else self.word))
        others = {name: number(self.further[name]) for name in numeric if self.further[name]}
        finite = {name: value for name, value in others.items() if math.isfinite(value)}
        return Trial(self.cell, self.seed, status, {metric: self.value} | finite, detail=self.detail)


class Fields:
    """A row's texts by what they hold; `faults` says what is wrong with those read so far."""

    def __init__(self, line: int, texts: Mapping[str, str], further: Mapping[str, str]) -> None:
        self.line, self.texts, self.further = line, texts, further
        self.faults: list[Fault] = []

    def row(self, state: RunState | None = None, word: str = "") -> Row | None:
        """The row of a run that ended in `state`, or None when the row has faults.

        A run without a result has no value to read; where its rates are none, it has no place either.
        """
        value, status = self._outcome(state)
        lr = self._read("lr", _lr, math.nan)
        weight_decay = self._read("weight_decay", _weight_decay, math.nan)
        seed = self._read("seed", _seed, 0)
        detail = self.texts.get("detail", "")
        if self.faults:
            return None
        return Row(self.line, Cell(lr, weight_decay), seed, value, status, word, detail, self.further)

    def _read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self.texts.get(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self._refuse(f"{name} {shown(text)} {error}", f"{name} {error}")
            return default

    def _refuse(self, what: str, kind: str) -> None:
        self.faults.append(Fault(self.line, what, kind))

    def _outcome(self, state: RunState | None) -> tuple[float, Status | None]:
        """The value and the status; a run that finished with NaN diverged."""
        if state in _WITHOUT_VALUE:
            return math.nan, _WITHOUT_VALUE[state]
        nothing: float | None = math.nan
        value = self._read("value", _value, nothing)
        if value is None:
            self._refuse("value is empty; write nan for a run that diverged", "value is empty")
            return math.nan, None
        return value, Status.COMPLETE if math.isfinite(value) else Status.DIVERGED


_WITHOUT_VALUE: dict[RunState | None, Status | None] = {
    RunState.UNFINISHED: None,
    RunState.FAILED: Status.FAILED,
    RunState.DIVERGED: Status.DIVERGED,
}


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


_NOTHING = {"", "none", "null", "na", "nil", "missing", "undefined", "empty"}  # letters of a placeholder


def _value(text: str) -> float | None:
    if text and "".join(filter(str.isalnum, text.lower())) in _NOTHING:
        raise ValueError(
            "is not a number; write nan for a run that diverged, or add a column status that says missing"
        )
    return number(text) if text else None
