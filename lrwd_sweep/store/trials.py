"""Trials as rows: a lane's outcome in one row of `trials`, each of its curves in one row of `curves`.

Lanes are read whole and verified: each against its checksum, and all against the number and the sum of
checksums that the study holds, so that a lost row is noticed too.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, LargeBinary, cast, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lrwd_sweep.errors import brief
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store.schema import CurveRow, Damaged, TrialRow, checksum_sum, curves_checksum, trial_checksum
from lrwd_sweep.store.studies import RawStudy, update_study

Lane = tuple[Cell, int]  # cell and seed, by which a trial is unique within its study
Curves = list[tuple[bytes, bytes]]  # name and values

# Written out, because SQLAlchemy takes longer to build ten thousand rows than SQLite to store them.
FIND_LANE = """
    SELECT id, status = 'failed', checksum FROM trials
    WHERE study_id = ? AND lr = ? AND weight_decay = ? AND seed = ?"""
_INSERT_TRIAL = """
    INSERT INTO trials (
        id, study_id, lr, weight_decay, seed, status, metrics, detail, snapshots, curves_checksum, checksum)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_INSERT_CURVE = 'INSERT INTO curves (trial_id, name, "values") VALUES (?, CAST(? AS TEXT), ?)'

_SELECT = """
    SELECT id, study_id, lr, weight_decay, seed, curves_checksum, CAST(status AS BLOB), CAST(metrics AS BLOB),
        CAST(detail AS BLOB), CAST(snapshots AS BLOB), checksum FROM trials WHERE {} ORDER BY id"""
_INDEXED = "study_id = ?"
_SCANNED = "study_id + 0 = ?"  # no index answers it, since an index may be damaged too
# Raised by a value of the wrong type, and by a senseless one that was written before there were checksums.
_SENSELESS = (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, struct.error)

_WITHOUT_CURVES = curves_checksum([])
_STATUS = {status.value.encode(): status for status in Status}
_Read = TypeVar("_Read")


class _RawTrial(NamedTuple):
    """A row of `trials` as read; texts are bytes, because damaged ones may not be UTF-8."""

    id: int
    study: int
    lr: float
    weight_decay: float
    seed: int
    curves_checksum: int
    status: bytes
    metrics: bytes  # JSON
    detail: bytes
    snapshots: bytes  # JSON
    checksum: int


def read_trials(session: Session, study: RawStudy, *, curves: bool) -> list[Trial]:
    """Return a study's trials in the order of storing; `curves` adds learning curves. Raises Damaged."""
    return _read_all(session, study, _trial, curves=curves)


def read_outcomes(session: Session, study: RawStudy) -> list[tuple[float, float, int, Status]]:
    """Return α, λ, seed and status of a study's lanes in the order of storing. Raises Damaged."""
    return _read_all(session, study, lambda row, _: (*row[2:5], _STATUS[row[6]]))


def insert_trials(session: Session, study: RawStudy, trials: Sequence[Trial]) -> list[Lane]:
    """Insert trials of distinct lanes with their curves, and replace failed trials of the same lanes.

    A lane that is complete or diverged stays as it is; return these.
    """
    there = stored_lanes(session, study, trials)
    kept = {lane: None for lane, (_, failed, _) in there.items() if not failed}
    new = [trial for trial in trials if (trial.cell, trial.seed) not in kept]
    replaced = [(key, checksum) for key, failed, checksum in there.values() if failed]
    if new:
        _delete(session, [key for key, _ in replaced])
        added = insert_new(session, study.id, new)
        total = checksum_sum([study.lanes_checksum, *added, *(-checksum for _, checksum in replaced)])
        lanes = study.lanes + len(added) - len(replaced)
        update_study(session, replace(study, lanes=lanes, lanes_checksum=total))
    return list(kept)


def drop_damaged(session: Session, study: RawStudy) -> int:
    """Remove a study's damaged lanes with their curves; return the number of lanes that are now missing."""
    mine = TrialRow.study_id + 0 == study.id
    curves = _read_curves(session, CurveRow.trial_id + 0 == TrialRow.id, mine)
    _, checksums, damaged = _find(session, study, _trial, curves, where=_SCANNED)
    _remove(session, [row.id for row in damaged])
    lanes = len(checksums)
    update_study(session, replace(study, lanes=lanes, lanes_checksum=checksum_sum(checksums)))
    return max(len(damaged), study.lanes - lanes)


def count_lanes(session: Session, study: int) -> int:
    """Count the trials of a study, damaged or not."""
    where = TrialRow.study_id + 0 == study
    return session.scalar(select(func.count()).select_from(TrialRow).where(where)) or 0


def remove_lanes(session: Session, study: int) -> None:
    """Remove all trials of a study, damaged or not."""
    _remove(session, list(session.scalars(select(TrialRow.id).where(TrialRow.study_id + 0 == study))))


def _remove(session: Session, keys: Sequence[int]) -> None:
    """Remove trials by row id and rebuild the indexes, which may disagree with the rows."""
    mended = _reindexed(session)  # fails if a damaged row repeats another row's lane
    run = session.connection().exec_driver_sql
    run("PRAGMA writable_schema = ON")  # else SQLite refuses to delete a row that an index lacks
    try:
        _delete(session, keys)
        run("DELETE FROM curves WHERE trial_id NOT IN (SELECT id FROM trials)")
    finally:
        run("PRAGMA writable_schema = OFF")
    if keys and not mended and not _reindexed(session):
        raise Damaged("other studies are damaged too; study list names them, remove those first")


def _reindexed(session: Session) -> bool:
    """Rebuild the indexes; return False if a unique key occurs twice."""
    try:
        with session.begin_nested():
            for table in ("studies", "trials", "curves"):
                session.connection().exec_driver_sql(f"REINDEX {table}")
    except IntegrityError:
        return False
    return True


def stored_lanes(
    session: Session, study: RawStudy, trials: Sequence[Trial]
) -> dict[Lane, tuple[int, int, int]]:
    """Find the lanes that are stored: row id, whether it failed, checksum."""
    if not study.lanes:
        return {}
    cursor = session.connection().connection.cursor()
    found = {}
    for trial in trials:
        cursor.execute(FIND_LANE, (study.id, trial.cell.lr, trial.cell.weight_decay, trial.seed))
        if (row := cursor.fetchone()) is not None:
            found[trial.cell, trial.seed] = row
    return found


def _delete(session: Session, keys: Sequence[int]) -> None:
    if keys:
        session.connection().exec_driver_sql("DELETE FROM trials WHERE id = ?", [(key,) for key in keys])


def insert_new(session: Session, study: int, trials: Sequence[Trial]) -> list[int]:
    """Insert trials whose lanes are free; return their checksums. Raises IntegrityError."""
    # This transaction holds the write lock: the next ids are free, and curves need not query them row by row.
    first = (session.scalar(select(func.max(TrialRow.id))) or 0) + 1
    rows: list[tuple[Any, ...]] = []
    curves: list[tuple[int, bytes, bytes]] = []
    for key, trial in enumerate(trials, start=first):
        checksum = _WITHOUT_CURVES
        if trial.curves:
            blobs = [(name.encode(), struct.pack(f"<{len(v)}d", *v)) for name, v in trial.curves.items()]
            curves += [(key, *curve) for curve in blobs]
            checksum = curves_checksum(blobs)
        lr, decay, seed = trial.cell.lr, trial.cell.weight_decay, trial.seed
        status, metrics, detail = trial.status._value_, _metrics_text(trial.metrics), trial.detail
        snapshots = "{}"
        if trial.snapshots:
            snapshots = json.dumps({str(epoch): dict(found) for epoch, found in trial.snapshots.items()})
        texts = status.encode(), metrics.encode(), detail.encode(), snapshots.encode()
        whole = trial_checksum(key, study, lr, decay, seed, checksum, *texts)
        rows.append((key, study, lr, decay, seed, status, metrics, detail, snapshots, checksum, whole))
    connection = session.connection()
    connection.exec_driver_sql(_INSERT_TRIAL, rows)
    if curves:
        connection.exec_driver_sql(_INSERT_CURVE, curves)
    return [row[-1] for row in rows]


def _metrics_text(metrics: Mapping[str, float]) -> str:
    """Return `json.dumps(metrics)`, sooner."""
    try:
        if math.isfinite(sum(metrics.values())):
            texts = [f"{_quoted(name)}: {_digits(value)}" for name, value in metrics.items()]
            return "{" + ", ".join(texts) + "}"
    except (TypeError, OverflowError):  # not all are floats
        pass
    return json.dumps(dict(metrics))


_digits = float.__repr__
_quoted = lru_cache(json.dumps)


def delete_some(session: Session, study: int, most: int) -> int:
    """Delete some trials of a study; return their number."""
    run = session.connection().exec_driver_sql
    some = "SELECT id FROM trials WHERE study_id = ? LIMIT ?"
    return run(f"DELETE FROM trials WHERE id IN ({some})", (study, most)).rowcount


def _read_all(
    session: Session,
    study: RawStudy,
    read: Callable[[tuple[Any, ...], Curves], _Read],
    *,
    curves: bool = False,
) -> list[_Read]:
    """Apply `read` to every lane. Raises Damaged, naming a lane."""
    by_trial = None
    if curves:
        by_trial = _read_curves(session, CurveRow.trial_id == TrialRow.id, TrialRow.study_id == study.id)
    sound, checksums, damaged = _find(session, study, read, by_trial)
    if not damaged and (len(sound), checksum_sum(checksums)) == (study.lanes, study.lanes_checksum):
        return sound
    if damaged:
        row = damaged[0]
        lane = brief(f"lr {row.lr!r}, weight_decay {row.weight_decay!r}, seed {row.seed!r}")
        several = len(damaged) > 1
        more = f", and {len(damaged) - 1} more, are" if several else " is"
        what = f"lane {lane}{more} not what was stored"
    else:
        what = f"{study.lanes} lanes were stored, {len(sound)} are there"
    again = "train it again with --retrain-damaged added to the command that trained it, or remove the study"
    remedy = "remove the study and import it again" if study.is_import else again
    raise Damaged(
        f"study {study.shown!r} is damaged: {what}; {remedy}: lrwd-sweep study delete {study.shown!r}"
    )


def _find(
    session: Session,
    study: RawStudy,
    read: Callable[[tuple[Any, ...], Curves], _Read],
    by_trial: Mapping[int, Curves] | None,
    *,
    where: str = _INDEXED,
) -> tuple[list[_Read], list[int], list[_RawTrial]]:
    """Return the sound lanes in the order of storing, their checksums, and the damaged lanes.

    Curves are verified too if given, by trial.
    """
    sound: list[_Read] = []
    checksums: list[int] = []
    damaged: list[_RawTrial] = []
    cursor = session.connection().connection.cursor()  # SQLAlchemy takes longer for a row than SQLite
    cursor.execute(_SELECT.format(where), (study.id,))
    curves: Curves = []
    for row in iter(cursor.fetchone, None):
        try:
            if by_trial is not None:
                curves = sorted(by_trial.get(row[0], []))
            if trial_checksum(*row[:-1]) == row[-1] and (
                by_trial is None or row[5] == curves_checksum(curves)
            ):
                sound.append(read(row, curves))
                checksums.append(row[-1])
                continue
        except _SENSELESS:
            pass
        damaged.append(_RawTrial._make(row))
    return sound, checksums, damaged


def _trial(values: tuple[Any, ...], curves: Curves) -> Trial:
    row = _RawTrial._make(values)
    snapshots = {} if row.snapshots == b"{}" else json.loads(row.snapshots.decode())
    return Trial(
        cell_of(row.lr, row.weight_decay),
        row.seed,
        _STATUS[row.status],
        _parsed(row.metrics.decode())[0],
        {name.decode(): struct.unpack(f"<{len(blob) // 8}d", blob) for name, blob in curves},
        row.detail.decode(),
        {int(epoch): found for epoch, found in snapshots.items()},
    )


_parsed = json.JSONDecoder().raw_decode  # the text is verified
cell_of = lru_cache(1 << 14)(Cell)  # equal cells are one object, which dictionaries compare sooner


def _read_curves(session: Session, *where: ColumnElement[bool]) -> dict[int, Curves]:
    """Read curves by trial; `where` joins the two tables."""
    columns = (CurveRow.trial_id, cast(CurveRow.name, LargeBinary), cast(CurveRow.values, LargeBinary))
    found: dict[int, Curves] = {}
    for trial, name, values in session.execute(select(*columns).where(*where)):
        found.setdefault(trial, []).append((name, values))
    return found
