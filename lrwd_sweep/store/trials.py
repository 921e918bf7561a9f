"""Trials as rows: a lane's outcome in one row of `trials`, each of its curves in one row of `curves`.

Lanes are read whole and verified: each against its checksum, and all against the number and the sum of
checksums that the study holds, so that a lost row is noticed too.
"""

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from lrwd_sweep.errors import StoreError, brief
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store.schema import Damaged, checksum_sum, curves_checksum, trial_checksum
from lrwd_sweep.store.studies import RawStudy, update_study

Lane = tuple[Cell, int]  # cell and seed, by which a trial is unique within its study
Curves = list[tuple[bytes, bytes]]  # name and values
_Row = tuple[Any, ...]  # as selected; texts are bytes, because damaged ones may not be UTF-8

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
        CAST(detail AS BLOB), CAST(snapshots AS BLOB), checksum
    FROM trials WHERE study_id{} = ? ORDER BY id"""
_SELECT_CURVES = """
    SELECT trial_id, CAST(name AS BLOB), CAST("values" AS BLOB) FROM curves, trials
    WHERE trial_id{0} = id AND study_id{0} = ?"""
_INDEXED, _SCANNED = "", " + 0"  # no index answers an expression; it may be damaged too
# Raised by a value of the wrong type, and by a senseless one that was written before there were checksums.
_SENSELESS = (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, struct.error)

_WITHOUT_CURVES = curves_checksum([])
_STATUS = {status.value.encode(): status for status in Status}
_Read = TypeVar("_Read")


def read_trials(connection: Connection, study: RawStudy, *, curves: bool) -> list[Trial]:
    """Return a study's trials in the order of storing; `curves` adds learning curves. Raises Damaged."""
    return _read_all(connection, study, _trial, curves=curves)


def read_outcomes(connection: Connection, study: RawStudy) -> list[tuple[float, float, int, Status]]:
    """Return α, λ, seed and status of a study's lanes in the order of storing. Raises Damaged."""
    return _read_all(connection, study, lambda row, _: (*row[2:5], _STATUS[row[6]]))


def insert_trials(connection: Connection, study: RawStudy, trials: Sequence[Trial]) -> list[Lane]:
    """Insert trials of distinct lanes with their curves, and replace failed trials of the same lanes.

    A lane that is complete or diverged stays as it is; return these.
    """
    there = stored_lanes(connection, study, trials)
    kept = {lane: None for lane, (_, failed, _) in there.items() if not failed}
    new = [trial for trial in trials if (trial.cell, trial.seed) not in kept]
    replaced = [(key, checksum) for key, failed, checksum in there.values() if failed]
    if new:
        _delete(connection, [key for key, _ in replaced])
        added = insert_new(connection, study.id, new)
        total = checksum_sum([study.lanes_checksum, *added, *(-checksum for _, checksum in replaced)])
        lanes = study.lanes + len(added) - len(replaced)
        update_study(connection, replace(study, lanes=lanes, lanes_checksum=total))
    return list(kept)


def drop_damaged(connection: Connection, study: RawStudy) -> int:
    """Remove a study's damaged lanes with their curves; return the number of lanes that are now missing."""
    curves = _read_curves(connection, study, _SCANNED)
    _, checksums, damaged = _find(connection, study, _trial, curves, _SCANNED)
    _remove(connection, [row[0] for row in damaged])
    lanes = len(checksums)
    update_study(connection, replace(study, lanes=lanes, lanes_checksum=checksum_sum(checksums)))
    return max(len(damaged), study.lanes - lanes)


def count_lanes(connection: Connection, study: int) -> int:
    """Count the trials of a study, damaged or not."""
    count = "SELECT count(*) FROM trials WHERE study_id + 0 = ?"
    return int(connection.exec_driver_sql(count, (study,)).scalar_one())


def remove_lanes(connection: Connection, study: int) -> None:
    """Remove all trials of a study, damaged or not."""
    keys = connection.exec_driver_sql("SELECT id FROM trials WHERE study_id + 0 = ?", (study,)).scalars()
    _remove(connection, list(keys))


def _remove(connection: Connection, keys: Sequence[int]) -> None:
    """Remove trials by row id and rebuild the indexes, which may disagree with the rows."""
    mended = _reindexed(connection)  # fails if a damaged row repeats another row's lane
    run = connection.exec_driver_sql
    run("PRAGMA writable_schema = ON")  # else SQLite refuses to delete a row that an index lacks
    try:
        _delete(connection, keys)
        run("DELETE FROM curves WHERE trial_id NOT IN (SELECT id FROM trials)")
    finally:
        run("PRAGMA writable_schema = OFF")
    if keys and not mended and not _reindexed(connection):
        raise Damaged("other studies are damaged too; study list names them, remove those first")


def _reindexed(connection: Connection) -> bool:
    """Rebuild the indexes; return False if a unique key occurs twice."""
    try:
        with connection.begin_nested():
            for table in ("studies", "trials", "curves"):
                connection.exec_driver_sql(f"REINDEX {table}")
    except IntegrityError:
        return False
    return True


def stored_lanes(
    connection: Connection, study: RawStudy, trials: Sequence[Trial]
) -> dict[Lane, tuple[int, int, int]]:
    """Find the lanes that are stored: row id, whether it failed, checksum."""
    if not study.lanes:
        return {}
    cursor = connection.connection.cursor()
    found = {}
    for trial in trials:
        cursor.execute(FIND_LANE, (study.id, trial.cell.lr, trial.cell.weight_decay, trial.seed))
        if (row := cursor.fetchone()) is not None:
            found[trial.cell, trial.seed] = row
    return found


def refuse_repeated(study: str, lanes: Iterable[Lane]) -> None:
    """Raise StoreError if a lane occurs twice."""
    seen: set[Lane] = set()
    for cell, seed in lanes:
        if (cell, seed) in seen:
            raise StoreError(
                f"lr {cell.lr!r}, weight decay {cell.weight_decay!r}, seed {seed} occurs twice for study "
                f"{study!r}; leave one out"
            )
        seen.add((cell, seed))


def _delete(connection: Connection, keys: Sequence[int]) -> None:
    if keys:
        connection.exec_driver_sql("DELETE FROM trials WHERE id = ?", [(key,) for key in keys])


def insert_new(connection: Connection, study: int, trials: Sequence[Trial]) -> list[int]:
    """Insert trials whose lanes are free; return their checksums. Raises IntegrityError."""
    # This transaction holds the write lock: the next ids are free, and curves need not query them row by row.
    first = (connection.exec_driver_sql("SELECT max(id) FROM trials").scalar_one() or 0) + 1
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


def _read_all(
    connection: Connection,
    study: RawStudy,
    read: Callable[[_Row, Curves], _Read],
    *,
    curves: bool = False,
) -> list[_Read]:
    """Apply `read` to every lane. Raises Damaged, naming a lane."""
    by_trial = _read_curves(connection, study, _INDEXED) if curves else None
    sound, checksums, damaged = _find(connection, study, read, by_trial, _INDEXED)
    if not damaged and (len(sound), checksum_sum(checksums)) == (study.lanes, study.lanes_checksum):
        return sound
    if damaged:
        lr, weight_decay, seed = damaged[0][2:5]
        lane = brief(f"lr {lr!r}, weight_decay {weight_decay!r}, seed {seed!r}")
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
    connection: Connection,
    study: RawStudy,
    read: Callable[[_Row, Curves], _Read],
    by_trial: Mapping[int, Curves] | None,
    by: str,
) -> tuple[list[_Read], list[int], list[_Row]]:
    """Return the sound lanes in the order of storing, their checksums, and the damaged rows.

    Curves are verified too if given, by trial.
    """
    sound: list[_Read] = []
    checksums: list[int] = []
    damaged: list[_Row] = []
    cursor = connection.connection.cursor()  # SQLAlchemy takes longer for a row than SQLite
    cursor.execute(_SELECT.format(by), (study.id,))
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
        damaged.append(row)
    return sound, checksums, damaged


def _trial(row: _Row, curves: Curves) -> Trial:
    _, _, lr, weight_decay, seed, _, status, metrics, detail, snapshots, _ = row
    by_epoch = {} if snapshots == b"{}" else json.loads(snapshots.decode())
    return Trial(
        cell_of(lr, weight_decay),
        seed,
        _STATUS[status],
        _parsed(metrics.decode())[0],
        {name.decode(): struct.unpack(f"<{len(blob) // 8}d", blob) for name, blob in curves},
        detail.decode(),
        {int(epoch): found for epoch, found in by_epoch.items()},
    )


_parsed = json.JSONDecoder().raw_decode  # the text is verified
cell_of = lru_cache(1 << 14)(Cell)  # equal cells are one object, which dictionaries compare sooner


def _read_curves(connection: Connection, study: RawStudy, by: str) -> dict[int, Curves]:
    """Read the curves of a study by trial."""
    found: dict[int, Curves] = {}
    for trial, name, values in connection.exec_driver_sql(_SELECT_CURVES.format(by), (study.id,)):
        found.setdefault(trial, []).append((name, values))
    return found
