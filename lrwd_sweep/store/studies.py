"""Studies as rows: found by name, verified whenever they are read, written with their checksum."""

from __future__ import annotations

import json
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
from lrwd_sweep.store import checksums
from lrwd_sweep.store.checksums import Damaged, Unreadable
from lrwd_sweep.store.schema import ComparisonRow, StudyRow

_INSERT = """
    INSERT INTO studies (name, spec, created, version, lanes, lanes_checksum, checksum)
    VALUES (CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), 0, 0, 0)"""
# What a specification raises that another program wrote, or another version.
_SENSELESS = (LrwdError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError, RecursionError)
_UPDATE = (
    "UPDATE studies SET spec = CAST(? AS TEXT), lanes = ?, lanes_checksum = ?, checksum = ? WHERE id = ?"
)


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as the store knows it."""

    name: str
    spec: StudySpec
    created: str  # ISO 8601, UTC
    version: str  # of lrwd-sweep, which began it; "" where a store of an older schema did not say


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `studies` as it was read; texts are bytes, since damaged ones need not be UTF-8."""

    id: int
    name: bytes
    spec: bytes  # JSON
    created: bytes
    version: bytes
    lanes: int  # how many trials there are to be
    lanes_checksum: int
    checksum: int

    @property
    def shown(self) -> str:
        """The name, whatever became of it."""
        return _text(self.name)

    @property
    def trained_here(self) -> bool:
        """Whether a command can train its lanes again. Only of a verified row."""
        return bool(json.loads(self.spec)["kind"] != Kind.IMPORT)

    def verified(self) -> Row:
        """This row. Raises Damaged, or Unreadable when it never had a checksum."""
        if self.checksum == 0:
            raise Unreadable(
                f"study {self.shown!r} has no checksum: another program wrote it; {_otherwise(self.shown)}"
            )
        if self.checksum != _checksum(self):
            raise Damaged(
                f"study {self.shown!r} is damaged: its specification is not what was stored; "
                f"{_otherwise(self.shown)}"
            )
        return self

    def record(self) -> StudyRecord:
        """What it says. Raises Damaged or Unreadable."""
        self.verified()
        try:
            spec = StudySpec.from_dict(json.loads(self.spec))
        except _SENSELESS as error:
            raise Unreadable(
                f"study {self.shown!r} has a specification that makes no sense here ({brief(error)}); "
                f"use the lrwd-sweep that wrote it, or {_otherwise(self.shown)}"
            ) from None
        return StudyRecord(self.shown, spec, _text(self.created), _text(self.version))


def all_rows(session: Session) -> list[Row]:
    """Every study, oldest first, as it was read."""
    return [Row(*row) for row in session.execute(_selected().order_by(StudyRow.id))]


def find_row(session: Session, name: str) -> Row | None:
    """The verified study of that name, or None. Raises Damaged, also when a damaged one may have had it.

    The names are compared one by one: an index may be damaged too.
    """
    found = session.execute(_selected().where(_bytes(StudyRow.name) == _encoded(name))).first()
    if found is not None:
        return Row(*found).verified()
    _refuse_damaged(all_rows(session))
    return None


def get_row(session: Session, name: str) -> Row:
    """The verified study of that name. Raises UnknownName with the near names, or Damaged."""
    found = find_row(session, name)
    if found is None:
        raise UnknownName("study", name, [row.shown for row in all_rows(session)])
    return found


def get_listed(session: Session, name: str) -> Row:
    """The study that is listed under that name, whatever its state. Raises UnknownName."""
    rows = all_rows(session)
    for row in rows:
        if row.shown == name:
            return row
    raise UnknownName("study", name, [row.shown for row in rows])


def insert_study(session: Session, name: str, spec: StudySpec) -> Row:
    """A study that was not there, without trials."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    texts = (_encoded(name), _json(spec.to_dict()), now.encode(), __version__.encode())
    key = session.connection().exec_driver_sql(_INSERT, texts).lastrowid
    return update_study(session, Row(key, *texts, lanes=0, lanes_checksum=0, checksum=0))


def update_study(session: Session, row: Row, spec: StudySpec | None = None) -> Row:
    """Write a row with the checksum that belongs to it."""
    new = row if spec is None else replace(row, spec=_json(spec.to_dict()))
    new = replace(new, checksum=_checksum(new) or 0)
    values = (new.spec, new.lanes, new.lanes_checksum, new.checksum, new.id)
    session.connection().exec_driver_sql(_UPDATE, values)
    return new


def insert_comparison(session: Session, names: Sequence[str]) -> None:
    """Remember that these studies are looked at together, last of all."""
    text = _json(list(names))
    connection = session.connection()
    insert = "INSERT INTO comparisons (names) VALUES (CAST(? AS TEXT))"
    key = connection.exec_driver_sql(insert, (text,)).lastrowid
    connection.exec_driver_sql(
        "UPDATE comparisons SET checksum = ? WHERE id = ?", (checksums.of_comparison(key, text), key)
    )


def latest_comparison(session: Session) -> list[str]:
    """The names looked at together last of which every study is still there; [] when there are none.

    Raises Damaged when damage leaves that open.
    """
    rows = all_rows(session)
    existing = {row.shown for row in rows}
    found = session.execute(
        select(ComparisonRow.id, _bytes(ComparisonRow.names), ComparisonRow.checksum).order_by(
            ComparisonRow.id.desc()
        )
    ).all()
    for key, text, checksum in found:
        if text is None or checksum != checksums.of_comparison(key, text):
            break
        names: list[str] = json.loads(text)
        if existing.issuperset(names):
            return names
        _refuse_damaged(rows)  # it was deleted, unless its name is damaged
    else:
        if found or not rows:
            return []
    raise Damaged("what was looked at last is damaged; name a study of study list, as in report STUDY")


def _refuse_damaged(rows: Sequence[Row]) -> None:
    for row in rows:
        if row.checksum != 0:
            row.verified()


def _selected() -> Any:
    texts = (StudyRow.name, StudyRow.spec, StudyRow.created, StudyRow.version)
    numbers = (StudyRow.lanes, StudyRow.lanes_checksum, StudyRow.checksum)
    return select(StudyRow.id, *map(_bytes, texts), *numbers)


def _bytes(column: Any) -> Any:
    return cast(column, LargeBinary)


def _checksum(row: Row) -> int | None:
    """What its checksum has to be; None where a value is of no type that it can have."""
    try:
        texts = (row.name, row.spec, row.created, row.version)
        return checksums.of_study(row.id, row.lanes, row.lanes_checksum, *texts)
    except (TypeError, struct.error):
        return None


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(found: bytes | None) -> str:
    return "" if found is None else found.decode("utf-8", "backslashreplace")


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _otherwise(name: str) -> str:
    return f"name another study, or remove this one: lrwd-sweep study delete {name!r}"
