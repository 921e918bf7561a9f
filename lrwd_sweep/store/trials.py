"""Trials as rows: a lane's outcome in one row of `trials`, each of its curves in one row of `curves`.

Whatever is read of a study's lanes is read here, whole and verified: each lane against its checksum, and all
of them against the number and the sum that the study holds, so that a lost row is noticed too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, LargeBinary, cast, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lrwd_sweep.errors import brief
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store import checksums
from lrwd_sweep.store.checksums import Damaged
from lrwd_sweep.store.schema import CurveRow, TrialRow
from lrwd_sweep.store.studies import Row, update_study

Lane = tuple[Cell, int]  # what a trial is unique by within its study: cell and seed
Curves = list[tuple[bytes, bytes]]  # name and values

# Written out: SQLAlchemy takes longer to make up ten thousand rows of these than SQLite to store them.
FIND_LANE = """
    SELECT id, status = 'failed', checksum FROM trials
    WHERE study_id = ? AND lr = ? AND weight_decay = ? AND seed = ?"""
_INSERT_TRIAL = """
    INSERT INTO trials (
        id, study_id, lr, weight_decay, seed, status, metrics, detail, snapshots, curves_checksum, checksum)
    VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), ?, ?)"""
_INSERT_CURVE = 'INSERT INTO curves (trial_id, name, "values") VALUES (?, CAST(? AS TEXT), ?)'

_COLUMNS: tuple[Any, ...] = (
    *(TrialRow.id, TrialRow.study_id, TrialRow.lr, TrialRow.weight_decay, TrialRow.seed),
    *(TrialRow.curves_checksum, TrialRow.checksum),
    *(cast(c, LargeBinary) for c in (TrialRow.status, TrialRow.metrics, TrialRow.detail, TrialRow.snapshots)),
)
# What a value of another type raises, and one that makes no sense, written before there were checksums.
_SENSELESS = (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, struct.error)

_STATUS = {status.value.encode(): status for status in Status}
_Read = TypeVar("_Read")


class _Row(NamedTuple):
    """A row of `trials` as it was read; texts are bytes, since damaged ones need not be UTF-8."""

    id: int
    study: int
    lr: float
    weight_decay: float
    seed: int
    curves_checksum: int
    checksum: int
    status: bytes
    metrics: bytes  # JSON
    detail: bytes
    snapshots: bytes  # JSON


@dataclass(frozen=True, slots=True)
class _Found(Generic[_Read]):
    """What is there of a study's lanes."""

    sound: list[_Read]
    checksums: list[int]  # of the same
    damaged: list[_Row]

    def is_all_of(self, study: Row) -> bool:
        """Whether these are the lanes that were stored, every one."""
        counted = (len(self.sound), checksums.total(self.checksums))
        return not self.damaged and counted == (study.lanes, study.lanes_checksum)


def read_trials(session: Session, study: Row, *, curves: bool) -> list[Trial]:
    """A study's trials in the order of storing; `curves` adds learning curves. Raises Damaged."""
    return _read_all(session, study, _trial, curves=curves)


def finished_lanes(session: Session, study: Row) -> set[Lane]:
    """The lanes that are complete or diverged. Raises Damaged."""
    lanes = _read_all(session, study, _outcome)
    return {(Cell(lr, wd), seed) for lr, wd, seed, status in lanes if status is not Status.FAILED}


def count_outcomes(session: Session, study: Row) -> dict[Cell, dict[Status, int]]:
    """How many seeds of every cell ended in which way. Raises Damaged."""
    points: dict[tuple[float, float], dict[Status, int]] = {}
    for lr, weight_decay, _, status in _read_all(session, study, _outcome):
        counts = points.setdefault((lr, weight_decay), {})
        counts[status] = counts.get(status, 0) + 1
    return {Cell(*point): counts for point, counts in points.items()}


def insert_trials(session: Session, study: Row, trials: Sequence[Trial]) -> list[Lane]:
    """Insert trials and their curves, in place of failed trials of the same lanes.

    A lane that is there, complete or diverged, stays as it is; these are given back. `trials` hold no lane
    twice.
    """
    there = _stored_lanes(session, study, trials)
    kept = {lane: None for lane, (_, failed, _) in there.items() if not failed}
    new = [trial for trial in trials if (trial.cell, trial.seed) not in kept]
    replaced = [(key, checksum) for key, failed, checksum in there.values() if failed]
    if new:
        _delete(session, [key for key, _ in replaced])
        added = _insert(session, study.id, new)
        whole = checksums.total([study.lanes_checksum, *added, *(-checksum for _, checksum in replaced)])
        lanes = study.lanes + len(added) - len(replaced)
        update_study(session, replace(study, lanes=lanes, lanes_checksum=whole))
    return list(kept)


def drop_damaged(session: Session, study: Row) -> int:
    """Remove the lanes that are not what was stored, curves included; how many the study lacks by that."""
    mine = TrialRow.study_id + 0 == study.id  # which no index can answer; these may be damaged too
    found = _find(session, mine, _trial, _read_curves(session, CurveRow.trial_id + 0 == TrialRow.id, mine))
    _remove(session, [row.id for row in found.damaged])
    lanes, whole = len(found.sound), checksums.total(found.checksums)
    update_study(session, replace(study, lanes=lanes, lanes_checksum=whole))
    return max(len(found.damaged), study.lanes - lanes)


def count_lanes(session: Session, study: int) -> int:
    """How many trials of a study are there, in whatever state."""
    where = TrialRow.study_id + 0 == study
    return session.scalar(select(func.count()).select_from(TrialRow).where(where)) or 0


def remove_lanes(session: Session, study: int) -> None:
    """Remove all the trials of a study, damaged as they may be."""
    _remove(session, list(session.scalars(select(TrialRow.id).where(TrialRow.study_id + 0 == study))))


def _remove(session: Session, keys: Sequence[int]) -> None:
    """Remove trials by row, though indexes may not say what the rows do; they are made anew."""
    mended = _reindexed(session)  # unless a damaged row has the lane of another one
    run = session.connection().exec_driver_sql
    run("PRAGMA writable_schema = ON")  # otherwise an index without the row's entry ends the deletion
    try:
        _delete(session, keys)
        run("DELETE FROM curves WHERE trial_id NOT IN (SELECT id FROM trials)")
    finally:
        run("PRAGMA writable_schema = OFF")
    if keys and not mended and not _reindexed(session):
        raise Damaged("more than this study is damaged; study list says what, remove that first")


def _reindexed(session: Session) -> bool:
    """Whether the indexes could be made anew, each key being there once."""
    try:
        with session.begin_nested():
            for table in ("studies", "trials", "curves"):
                session.connection().exec_driver_sql(f"REINDEX {table}")
    except IntegrityError:
        return False
    return True


def _stored_lanes(session: Session, study: Row, trials: Sequence[Trial]) -> dict[Lane, tuple[int, int, int]]:
    """Of the lanes that are there: row, whether it failed, checksum."""
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


def _insert(session: Session, study: int, trials: Sequence[Trial]) -> list[int]:
    """Insert trials whose lanes are free; their checksums."""
    # The write lock is ours, so the next free ids are too, and curves need not ask for them row by row.
    first = (session.scalar(select(func.max(TrialRow.id))) or 0) + 1
    rows, curves = [], []
    for key, trial in enumerate(trials, start=first):
        blobs = [(name.encode(), _to_blob(values)) for name, values in trial.curves.items()]
        curves += [(key, *curve) for curve in blobs]
        rows.append(_row(key, study, trial, checksums.of_curves(blobs)))
    connection = session.connection()
    connection.exec_driver_sql(_INSERT_TRIAL, rows)
    if curves:
        connection.exec_driver_sql(_INSERT_CURVE, curves)
    return [row[-1] for row in rows]


def _row(key: int, study: int, trial: Trial, curves: int) -> tuple[Any, ...]:
    """What _INSERT_TRIAL takes; the last of it is the checksum."""
    lane = (key, study, trial.cell.lr, trial.cell.weight_decay, trial.seed)
    snapshots = {str(epoch): dict(found) for epoch, found in trial.snapshots.items()}
    texts = (trial.status.value, json.dumps(dict(trial.metrics)), trial.detail, json.dumps(snapshots))
    encoded = [text.encode() for text in texts]
    return (*lane, *encoded, curves, checksums.of_trial(*lane, curves, *encoded))


def _read_all(
    session: Session, study: Row, read: Callable[[_Row, Curves], _Read], *, curves: bool = False
) -> list[_Read]:
    """What `read` makes of every lane. Raises Damaged, naming a lane."""
    mine = TrialRow.study_id == study.id
    curves_of = _read_curves(session, CurveRow.trial_id == TrialRow.id, mine) if curves else None
    found = _find(session, mine, read, curves_of)
    if found.is_all_of(study):
        return found.sound
    if not found.damaged:
        raise _damaged(study, f"{study.lanes} lanes were stored, {len(found.sound)} are there")
    row, count = found.damaged[0], len(found.damaged)
    lane = brief(f"lr {row.lr!r}, weight_decay {row.weight_decay!r}, seed {row.seed!r}")
    what = f"lane {lane}" if count == 1 else f"lane {lane}, and {count - 1} more,"
    raise _damaged(study, f"{what} {'is' if count == 1 else 'are'} not what was stored")


def _damaged(study: Row, what: str) -> Damaged:
    again = "train it again with --retrain-damaged added to the command that trained it, or remove the study"
    remedy = again if study.trained_here else "remove the study and import it again"
    return Damaged(
        f"study {study.shown!r} is damaged: {what}; {remedy}: lrwd-sweep study delete {study.shown!r}"
    )


def _find(
    session: Session,
    where: ColumnElement[bool],
    read: Callable[[_Row, Curves], _Read],
    curves_of: Mapping[int, Curves] | None,
) -> _Found[_Read]:
    """The lanes in the order of storing, told apart by their checksums, and by those of curves if given."""
    found: _Found[_Read] = _Found([], [], [])
    rows = session.connection().execute(select(*_COLUMNS).where(where).order_by(TrialRow.id))
    for row in map(_Row._make, rows):
        curves = [] if curves_of is None else sorted(curves_of.get(row.id, []))
        try:
            right = curves_of is None or row.curves_checksum == checksums.of_curves(curves)
            if not right or not _is_sound(row):
                found.damaged.append(row)
                continue
            found.sound.append(read(row, curves))
            found.checksums.append(row.checksum)
        except _SENSELESS:
            found.damaged.append(row)
    return found


def _is_sound(row: _Row) -> bool:
    numbers = (row.id, row.study, row.lr, row.weight_decay, row.seed, row.curves_checksum)
    return row.checksum == checksums.of_trial(*numbers, row.status, row.metrics, row.detail, row.snapshots)


def _outcome(row: _Row, _: Curves) -> tuple[float, float, int, Status]:
    return row.lr, row.weight_decay, row.seed, _STATUS[row.status]


def _trial(row: _Row, curves: Curves) -> Trial:
    snapshots = json.loads(row.snapshots.decode())
    return Trial(
        Cell(row.lr, row.weight_decay),
        row.seed,
        _STATUS[row.status],
        json.loads(row.metrics.decode()),
        {name.decode(): _from_blob(values) for name, values in curves},
        row.detail.decode(),
        {int(epoch): found for epoch, found in snapshots.items()},
    )


def _read_curves(session: Session, *where: ColumnElement[bool]) -> dict[int, Curves]:
    """Curves by trial; `where` joins the two tables."""
    rows = session.execute(
        select(CurveRow.trial_id, cast(CurveRow.name, LargeBinary), cast(CurveRow.values, LargeBinary)).where(
            *where
        )
    )
    found: dict[int, Curves] = {}
    for trial, name, values in rows:
        found.setdefault(trial, []).append((name, values))
    return found


def _to_blob(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def _from_blob(blob: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(blob) // 8}d", blob)
