"""Trials as rows: a lane's outcome in one row of `trials`, each of its curves in one row of `curves`."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from lrwd_sweep.lattice import Cell
from lrwd_sweep.store.schema import CurveRow, TrialRow
from lrwd_sweep.trial import Status, Trial

Lane = tuple[Cell, int]  # what a trial is unique by within its study: cell and seed
Curves = dict[str, tuple[float, ...]]


def finished_lanes(session: Session, study: int) -> set[Lane]:
    """The lanes that are complete or diverged."""
    rows = session.execute(
        select(TrialRow.lr, TrialRow.weight_decay, TrialRow.seed).where(
            TrialRow.study_id == study, TrialRow.status != Status.FAILED.value
        )
    )
    return {(Cell(lr, weight_decay), seed) for lr, weight_decay, seed in rows}


def insert_trials(session: Session, study: int, trials: Sequence[Trial]) -> None:
    """Insert trials and their curves, in place of failed trials of the same lanes.

    Raises sqlalchemy's IntegrityError when a lane is there already.
    """
    if not trials:
        return
    _delete_failed(session, study, {(trial.cell, trial.seed) for trial in trials})
    # The write lock is ours, so the next free ids are too, and curves need not ask for them row by row.
    first = (session.scalar(select(func.max(TrialRow.id))) or 0) + 1
    session.execute(
        insert(TrialRow),
        [
            {
                "id": key,
                "study_id": study,
                "lr": trial.cell.lr,
                "weight_decay": trial.cell.weight_decay,
                "seed": trial.seed,
                "status": trial.status.value,
                "metrics": dict(trial.metrics),
                "detail": trial.detail,
                "snapshots": {str(epoch): dict(found) for epoch, found in trial.snapshots.items()},
            }
            for key, trial in enumerate(trials, start=first)
        ],
    )
    if curves := [
        {"trial_id": key, "name": name, "values": _to_blob(values)}
        for key, trial in enumerate(trials, start=first)
        for name, values in trial.curves.items()
    ]:
        session.execute(insert(CurveRow), curves)


def _delete_failed(session: Session, study: int, lanes: set[Lane]) -> None:
    failed = session.execute(
        select(TrialRow.id, TrialRow.lr, TrialRow.weight_decay, TrialRow.seed).where(
            TrialRow.study_id == study, TrialRow.status == Status.FAILED.value
        )
    )
    for key, lr, weight_decay, seed in failed.all():
        if (Cell(lr, weight_decay), seed) in lanes:
            session.execute(delete(TrialRow).where(TrialRow.id == key))


def select_trials(session: Session, study: int, *, curves: bool) -> list[Trial]:
    """A study's trials in the order of storing, as plain rows: thousands of ORM objects would be slow."""
    rows = session.execute(
        select(
            TrialRow.id,
            TrialRow.lr,
            TrialRow.weight_decay,
            TrialRow.seed,
            TrialRow.status,
            TrialRow.metrics,
            TrialRow.detail,
            TrialRow.snapshots,
        )
        .where(TrialRow.study_id == study)
        .order_by(TrialRow.id)
    )
    curves_of = _select_curves(session, study) if curves else {}
    return [
        Trial(
            Cell(lr, weight_decay),
            seed,
            Status(status),
            metrics,
            curves_of.get(key, {}),
            detail,
            {int(epoch): found for epoch, found in snapshots.items()},
        )
        for key, lr, weight_decay, seed, status, metrics, detail, snapshots in rows
    ]


def _select_curves(session: Session, study: int) -> dict[int, Curves]:
    rows = session.execute(
        select(CurveRow.trial_id, CurveRow.name, CurveRow.values)
        .join(TrialRow, TrialRow.id == CurveRow.trial_id)
        .where(TrialRow.study_id == study)
        .order_by(CurveRow.trial_id, CurveRow.name)
    )
    found: dict[int, Curves] = {}
    for trial, name, blob in rows:
        found.setdefault(trial, {})[name] = _from_blob(blob)
    return found


def _to_blob(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def _from_blob(blob: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(blob) // 8}d", blob)
