"""Studies as rows: verified when read, written with their checksum."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import LargeBinary, cast, select
from sqlalchemy.orm import Session

from lrwd_sweep import __version__
from lrwd_sweep.errors import LrwdError, UnknownName, brief
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store.schema import (
    ComparisonRow,
    Damaged,
    StudyRow,
    Unreadable,
    comparison_checksum,
    study_checksum,
)

_INSERT = """
    INSERT INTO studies (name, spec, created, version, lanes, lanes_checksum, checksum)
    VALUES (CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), 0, 0, 0)"""
_UPDATE = (
    "UPDATE studies SET spec = CAST(? AS TEXT), lanes = ?, lanes_checksum = ?, checksum = ? WHERE id = ?"
)
_UNFINISHED = -1  # number of trials of a study whose import has not finished; it has no checksum
# Raised by a specification of another program or version.
_SENSELESS = (LrwdError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A stored study without its trials."""

    name: str
    spec: StudySpec
    created: str  # ISO 8601, UTC
    version: str  # of the lrwd-sweep that created it; "" if a store of an older schema does not say
    seconds: float = 0.0  # that training took, in all sessions


@dataclass(frozen=True, slots=True)
class RawStudy:
    """A row of `studies` as read; texts are bytes, because damaged ones may not be UTF-8."""

    id: int
    name: bytes
    spec: bytes  # JSON
    created: bytes
    version: bytes
    lanes: int  # number of trials that were stored
    lanes_checksum: int
    checksum: int
    seconds: float = 0.0

    @property
    def shown(self) -> str:
        """The name as text, damaged or not."""
        return _text(self.name)

    @property
    def is_unfinished(self) -> bool:
        """True if its import has begun but not finished."""
        return (self.lanes, self.checksum) == (_UNFINISHED, 0)

    @property
    def is_import(self) -> bool:
        """True if no command can train its lanes again; defined for a verified row."""
        return bool(json.loads(self.spec)["kind"] == Kind.IMPORT)

    def verified(self) -> RawStudy:
        """Return this row. Raises Damaged, or Unreadable if it has no checksum."""
        if self.is_unfinished:
            raise Unreadable(
                f"the import of study {self.shown!r} has not finished: wait for it, repeat it, or remove it: "
                f"lrwd-sweep study delete {self.shown!r}"
            )
        if self.checksum == 0:
            raise Unreadable(
                f"study {self.shown!r} has no checksum: another program wrote it; {_remedy(self.shown)}"
            )
        if self.checksum != _checksum(self):
            raise Damaged(
                f"study {self.shown!r} is damaged: its specification is not what was stored; "
                f"{_remedy(self.shown)}"
            )
        return self

    def record(self) -> StudyRecord:
        """Parse the row. Raises Damaged or Unreadable."""
        self.verified()
        try:
            spec = StudySpec.from_dict(json.loads(self.spec))
        except _SENSELESS as error:
            raise Unreadable(
                f"study {self.shown!r} has a specification that this version cannot read ({brief(error)}); "
                f"use the lrwd-sweep that wrote it, or {_remedy(self.shown)}"
            ) from None
        seconds = self.seconds if isinstance(self.seconds, float) and 0 < self.seconds < math.inf else 0.0
        return StudyRecord(self.shown, spec, _text(self.created), _text(self.version), seconds)


def all_rows(session: Session) -> list[RawStudy]:
    """Return all studies, oldest first, unverified."""
    return [RawStudy(*row) for row in session.execute(_selected().order_by(StudyRow.id))]


def find_row(session: Session, name: str) -> RawStudy | None:
    """Return the verified study of a name, or None. Raises Damaged, also if a damaged name may have been it.

    SQLite compares the names one by one, because an index may be damaged too.
    """
    found = session.execute(_selected().where(_bytes(StudyRow.name) == _encoded(name))).first()
    if found is not None:
        return RawStudy(*found).verified()
    _refuse_damaged(all_rows(session))
    return None


def get_row(session: Session, name: str) -> RawStudy:
    """Return the verified study of a name. Raises UnknownName with the near names, or Damaged."""
    found = find_row(session, name)
    if found is None:
        raise UnknownName("study", name, [row.shown for row in all_rows(session)])
    return found


def get_unverified_row(session: Session, name: str) -> RawStudy:
    """Return the study that is listed under a name, damaged or not. Raises UnknownName."""
    rows = {row.shown: row for row in reversed(all_rows(session))}
    if name not in rows:
        raise UnknownName("study", name, reversed(rows))
    return rows[name]


def insert_study(session: Session, name: str, spec: StudySpec) -> RawStudy:
    """Insert a new study without trials."""
    return update_study(session, _insert(session, name, spec))


def begin_import(session: Session, name: str, spec: StudySpec) -> RawStudy:
    """Insert a new study that cannot be read until `update_study` gives it its trials and checksum."""
    new = _insert(session, name, spec)
    session.connection().exec_driver_sql("UPDATE studies SET lanes = ? WHERE id = ?", (_UNFINISHED, new.id))
    return new


def find_unfinished(session: Session, name: str) -> RawStudy | None:
    """Return the study of a name if its import has not finished."""
    found = session.execute(_selected().where(_bytes(StudyRow.name) == _encoded(name))).first()
    row = None if found is None else RawStudy(*found)
    return row if row is not None and row.is_unfinished else None


def _insert(session: Session, name: str, spec: StudySpec) -> RawStudy:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    texts = (_encoded(name), _json(spec.to_dict()), now.encode(), __version__.encode())
    key = session.connection().exec_driver_sql(_INSERT, texts).lastrowid
    return RawStudy(key, *texts, lanes=0, lanes_checksum=0, checksum=0)


def update_study(session: Session, row: RawStudy, spec: StudySpec | None = None) -> RawStudy:
    """Write a row, with another `spec` if given, and its checksum."""
    new = row if spec is None else replace(row, spec=_json(spec.to_dict()))
    new = replace(new, checksum=_checksum(new) or 0)
    values = (new.spec, new.lanes, new.lanes_checksum, new.checksum, new.id)
    session.connection().exec_driver_sql(_UPDATE, values)
    return new


def add_seconds(session: Session, row: RawStudy, seconds: float) -> None:
    """Add to the time that training took."""
    run = session.connection().exec_driver_sql
    run("UPDATE studies SET seconds = seconds + ? WHERE id = ?", (seconds, row.id))


def insert_comparison(session: Session, names: Sequence[str]) -> None:
    """Record these studies as the latest comparison."""
    text = _json(list(names))
    run = session.connection().exec_driver_sql
    key = run("INSERT INTO comparisons (names) VALUES (CAST(? AS TEXT))", (text,)).lastrowid
    run("UPDATE comparisons SET checksum = ? WHERE id = ?", (comparison_checksum(key, text), key))


def latest_comparison(session: Session) -> list[str]:
    """Return the names of the latest comparison whose studies all exist; [] if there is none.

    Raises Damaged if damage makes that uncertain.
    """
    rows = all_rows(session)
    existing = {row.shown for row in rows}
    selected = select(ComparisonRow.id, _bytes(ComparisonRow.names), ComparisonRow.checksum)
    found = session.execute(selected.order_by(ComparisonRow.id.desc())).all()
    for key, text, checksum in found:
        if text is None or checksum != comparison_checksum(key, text):
            break
        names: list[str] = json.loads(text)
        if existing.issuperset(names):
            return names
        _refuse_damaged(rows)  # a study was deleted, unless its name is damaged
    else:
        if found or not rows:
            return []
    raise Damaged(
        "the record of the latest report is damaged; name a study of study list, as in report STUDY"
    )


def _refuse_damaged(rows: Sequence[RawStudy]) -> None:
    for row in rows:
        if row.checksum != 0:
            row.verified()


def _selected() -> Any:
    texts = (StudyRow.name, StudyRow.spec, StudyRow.created, StudyRow.version)
    numbers = (StudyRow.lanes, StudyRow.lanes_checksum, StudyRow.checksum, StudyRow.seconds)
    return select(StudyRow.id, *map(_bytes, texts), *numbers)


def _bytes(column: Any) -> Any:
    return cast(column, LargeBinary)


def _checksum(row: RawStudy) -> int | None:
    """Compute a row's checksum; None if a value has the wrong type."""
    try:
        texts = (row.name, row.spec, row.created, row.version)
        return study_checksum(row.id, row.lanes, row.lanes_checksum, *texts)
    except (TypeError, struct.error):
        return None


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(found: bytes | None) -> str:
    return "" if found is None else found.decode("utf-8", "backslashreplace")


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _remedy(name: str) -> str:
    return f"name another study, or remove this one: lrwd-sweep study delete {name!r}"
