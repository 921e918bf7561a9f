"""Trials as rows: a lane's outcome in one row of `trials`, each of its curves in one row of `curves`."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lrwd_sweep.lattice import Cell
from lrwd_sweep.store.schema import CurveRow, TrialRow
from lrwd_sweep.trial import Status, Trial

Lane = tuple[Cell, int]  # what a trial is unique by within its study: cell and seed
Curves = dict[str, tuple[float, ...]]

# Written out: SQLAlchemy takes longer to make up ten thousand rows of these than SQLite to store them.
_DELETE_FAILED = """
    DELETE FROM trials
    WHERE study_id = ? AND lr = ? AND weight_decay = ? AND seed = ? AND status = 'failed'"""
_INSERT_TRIAL = """
    INSERT INTO trials (id, study_id, lr, weight_decay, seed, status, metrics, detail, snapshots)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_INSERT_CURVE = 'INSERT INTO curves (trial_id, name, "values") VALUES (?, ?, ?)'


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
    connection = session.connection()
    lanes = [(study, trial.cell.lr, trial.cell.weight_decay, trial.seed) for trial in trials]
    connection.exec_driver_sql(_DELETE_FAILED, lanes)
    # The write lock is ours, so the next free ids are too, and curves need not ask for them row by row.
    first = (session.scalar(select(func.max(TrialRow.id))) or 0) + 1
    connection.exec_driver_sql(
        _INSERT_TRIAL, [_row(key, study, trial) for key, trial in enumerate(trials, start=first)]
    )
    if curves := [
        (key, name, _to_blob(values))
        for key, trial in enumerate(trials, start=first)
        for name, values in trial.curves.items()
    ]:
        connection.exec_driver_sql(_INSERT_CURVE, curves)


def _row(key: int, study: int, trial: Trial) -> tuple[object, ...]:
    """What _INSERT_TRIAL takes."""
    snapshots = {str(epoch): dict(found) for epoch, found in trial.snapshots.items()}
    metrics = json.dumps(dict(trial.metrics))
    return (
        *(key, study, trial.cell.lr, trial.cell.weight_decay, trial.seed, trial.status.value),
        *(metrics, trial.detail, json.dumps(snapshots)),
    )


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
