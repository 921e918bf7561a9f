"""What a list of studies says of each: optimizer, age, and how its cells stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lrwd_sweep.lattice import Cell
from lrwd_sweep.spec import Kind, StudySpec
from lrwd_sweep.store.schema import TrialRow
from lrwd_sweep.trial import Status

Outcomes = Mapping[Status, int]  # of one cell: how many of its seeds ended so


@dataclass(frozen=True, slots=True)
class StudySummary:
    """One line of `study list`; `counts` are cells by the worst of their seeds, as a surface counts them."""

    name: str
    optimizer: str
    created: str  # ISO 8601, UTC
    counts: Mapping[str, int]  # cells, complete, diverged, failed, missing

    @classmethod
    def of(cls, name: str, spec: StudySpec, created: str, cells: Mapping[Cell, Outcomes]) -> Self:
        """Summarise a study whose trials ended as `cells` says; a TPE study has only the cells it visited."""
        expected = cells if spec.kind is Kind.TPE else list(spec.lattice.cells())
        found = Counter(_state(cells.get(cell, {}), len(spec.seeds)) for cell in expected)
        counts = {"cells": len(expected)} | {
            s: found[s] for s in ("complete", "diverged", "failed", "missing")
        }
        return cls(name, str(spec.optimizer), created, counts)


def _state(outcomes: Outcomes, seeds: int) -> str:
    for worst in (Status.DIVERGED, Status.FAILED):
        if outcomes.get(worst):
            return worst.value
    return "complete" if outcomes.get(Status.COMPLETE, 0) >= seeds else "missing"


def outcomes_by_study(session: Session) -> dict[int, dict[Cell, dict[Status, int]]]:
    """Trials counted by study id, cell and status."""
    key = (TrialRow.study_id, TrialRow.lr, TrialRow.weight_decay, TrialRow.status)
    found: dict[int, dict[Cell, dict[Status, int]]] = {}
    for study, lr, weight_decay, status, count in session.execute(select(*key, func.count()).group_by(*key)):
        found.setdefault(study, {}).setdefault(Cell(lr, weight_decay), {})[Status(status)] = count
    return found
