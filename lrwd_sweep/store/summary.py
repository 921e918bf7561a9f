"""What a list of studies says of each: optimizer, age, and how its cells stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store.checksums import Damaged, Unreadable
from lrwd_sweep.store.studies import Row
from lrwd_sweep.store.trials import count_outcomes

Outcomes = Mapping[Status, int]  # of one cell: how many of its seeds ended so


_STATES = ("complete", "diverged", "failed", "missing")


@dataclass(frozen=True, slots=True)
class StudySummary:
    """One line of `study list`; `counts` are cells by the worst of their seeds, as a surface counts them."""

    name: str
    optimizer: str = ""  # and no counts, where it is unreadable
    created: str = ""  # ISO 8601, UTC
    counts: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(("cells", *_STATES), 0))
    unreadable: str = ""  # why it cannot be read, and the remedy
    damaged: bool = False  # because what is stored is not what was written


def summary(session: Session, row: Row) -> StudySummary:
    """A study as the list shows it, whether it can be read or not."""
    try:
        record = row.record()
        cells = count_outcomes(session, row)
    except (Damaged, Unreadable) as error:
        return StudySummary(row.shown, unreadable=str(error), damaged=isinstance(error, Damaged))
    return StudySummary(record.name, str(record.spec.optimizer), record.created, _counts(record.spec, cells))


def _counts(spec: StudySpec, cells: Mapping[Cell, Outcomes]) -> dict[str, int]:
    """Cells in all and by state; a TPE study has only the cells it visited."""
    expected = cells if spec.kind is Kind.TPE else list(spec.lattice.cells())
    found = Counter(_state(cells.get(cell, {}), len(spec.seeds)) for cell in expected)
    return {"cells": len(expected)} | {state: found[state] for state in _STATES}


def _state(outcomes: Outcomes, seeds: int) -> str:
    for worst in (Status.DIVERGED, Status.FAILED):
        if outcomes.get(worst):
            return worst.value
    return "complete" if outcomes.get(Status.COMPLETE, 0) >= seeds else "missing"
