"""One row of a CSV sweep: its cell, its seed and how it ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from lrwd_sweep.lattice import Cell, plain_float
from lrwd_sweep.trial import Status, Trial

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """A row without fault."""

    line: int
    cell: Cell
    seed: int
    value: float  # means something when the status is complete
    status: Status
    detail: str
    further: Mapping[str, str]  # the other columns' texts, by name

    def trial(self, metric: str, numeric: list[str]) -> Trial:
        """The trial: `metric` is its value, and the `numeric` further columns are metrics too."""
        if self.status is not Status.COMPLETE:
            return Trial(self.cell, self.seed, self.status, detail=self.detail)
        others = {name: number(self.further[name]) for name in numeric if self.further[name]}
        finite = {name: value for name, value in others.items() if math.isfinite(value)}
        return Trial(self.cell, self.seed, self.status, {metric: self.value} | finite, detail=self.detail)


class Fields:
    """A row's texts by what they hold; `faults` says what is wrong with those read so far."""

    def __init__(self, line: int, texts: Mapping[str, str], further: Mapping[str, str]) -> None:
        self.line, self.texts, self.further = line, texts, further
        self.faults: list[str] = []

    def row(self) -> Row | None:
        """The row, or None when it has faults."""
        value, status = self._outcome()
        lr = self._read("lr", _lr, math.nan)
        weight_decay = self._read("weight_decay", _weight_decay, math.nan)
        seed = self._read("seed", _seed, 0)
        detail = self.texts.get("detail", "")
        if self.faults:
            return None
        return Row(self.line, Cell(lr, weight_decay), seed, value, status, detail, self.further)

    def _read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self.texts.get(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self.faults.append(f"line {self.line}: {name} {text!r} {error}")
            return default

    def _outcome(self) -> tuple[float, Status]:
        value = self._read("value", _value, None)
        status = self._read("status", _status, None)
        if not self.faults and status in (None, Status.COMPLETE):
            if value is None:
                self.faults.append(f"line {self.line}: value is empty; write nan for a run that diverged")
            elif status and not math.isfinite(value):
                self.faults.append(f"line {self.line}: status is complete, but the value is {value}")
        found = math.nan if value is None else value
        return found, status or (Status.COMPLETE if math.isfinite(found) else Status.DIVERGED)


def number(text: str) -> float:
    """The number that `text` is, nan and inf included. Raises ValueError, saying what it is instead."""
    if not text:
        raise ValueError("is empty; it needs a number")
    try:
        return plain_float(text)
    except ValueError:
        raise ValueError("is not a number") from None


def is_number(text: str) -> bool:
    """Whether `number` reads it."""
    try:
        number(text)
    except ValueError:
        return False
    return True


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


def _value(text: str) -> float | None:
    return number(text) if text else None


def _status(text: str) -> Status | None:
    if text and text not in list(Status):
        raise ValueError(f"is none of {', '.join(Status)}")
    return Status(text) if text else None
