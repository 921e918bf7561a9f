"""Studies as rows: verified when read, written with their checksum; and the process that trains a study."""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from lrwd_sweep import __version__
from lrwd_sweep.errors import LrwdError, UnknownName, brief
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store.schema import Damaged, Unreadable, comparison_checksum, study_checksum

_SELECT = """
    SELECT id, CAST(name AS BLOB), CAST(spec AS BLOB), CAST(created AS BLOB), CAST(version AS BLOB), lanes,
        lanes_checksum, checksum, seconds FROM studies"""
_INSERT = """
    INSERT INTO studies (name, spec, created, version, lanes, lanes_checksum, checksum)
    VALUES (CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), 0, 0, 0)"""
_UPDATE = (
    "UPDATE studies SET spec = CAST(? AS TEXT), lanes = ?, lanes_checksum = ?, checksum = ? WHERE id = ?"
)
_UNFINISHED = -1  # number of trials of a study whose import has not finished; it has no checksum
# Raised by a specification of another program or version.
_SENSELESS = (LrwdError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError, RecursionError)

PATIENCE = 60.0  # seconds without a sign of life, after which a process on another host counts as dead
BEAT = 15.0  # seconds between two signs of life
_ENDED = -1
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_OF_DRIVER = "WHERE study_id = ? AND pid = ? AND boot = ?"


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

    @property
    def _remedy(self) -> str:
        return f"name another study, or remove this one: lrwd-sweep study delete {self.shown!r}"

    def computed_checksum(self) -> int | None:
        """Return the checksum that the row should have; None if a value has the wrong type."""
        try:
            texts = (self.name, self.spec, self.created, self.version)
            return study_checksum(self.id, self.lanes, self.lanes_checksum, *texts)
        except (TypeError, struct.error):
            return None

    def verified(self) -> RawStudy:
        """Return this row. Raises Damaged, or Unreadable if it has no checksum."""
        if self.is_unfinished:
            raise Unreadable(
                f"the import of study {self.shown!r} has not finished: wait for it, repeat it, or remove it: "
                f"lrwd-sweep study delete {self.shown!r}"
            )
        if self.checksum == 0:
            raise Unreadable(
                f"study {self.shown!r} has no checksum: another program wrote it; {self._remedy}"
            )
        if self.checksum != self.computed_checksum():
            raise Damaged(
                f"study {self.shown!r} is damaged: its specification is not what was stored; {self._remedy}"
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
                f"use the lrwd-sweep that wrote it, or {self._remedy}"
            ) from None
        seconds = self.seconds if isinstance(self.seconds, float) and 0 < self.seconds < math.inf else 0.0
        return StudyRecord(self.shown, spec, _text(self.created), _text(self.version), seconds)


def all_rows(connection: Connection) -> list[RawStudy]:
    """Return all studies, oldest first, unverified."""
    return [RawStudy(*row) for row in connection.exec_driver_sql(f"{_SELECT} ORDER BY id")]


def _row_of(connection: Connection, name: str) -> RawStudy | None:
    """Return the study of a name, unverified; compare names one by one, as an index may be damaged too."""
    select = f"{_SELECT} WHERE CAST(name AS BLOB) = ?"
    found = connection.exec_driver_sql(select, (_encoded(name),)).first()
    return None if found is None else RawStudy(*found)


def find_row(connection: Connection, name: str) -> RawStudy | None:
    """Return the verified study of a name, or None. Raises Damaged, also if a damaged name may be its."""
    if (found := _row_of(connection, name)) is not None:
        return found.verified()
    _refuse_damaged(all_rows(connection))
    return None


def get_row(connection: Connection, name: str) -> RawStudy:
    """Return the verified study of a name. Raises UnknownName with the near names, or Damaged."""
    found = find_row(connection, name)
    if found is None:
        raise UnknownName("study", name, [row.shown for row in all_rows(connection)])
    return found


def get_unverified_row(connection: Connection, name: str) -> RawStudy:
    """Return the study that is listed under a name, damaged or not. Raises UnknownName."""
    rows = {row.shown: row for row in reversed(all_rows(connection))}
    if name not in rows:
        raise UnknownName("study", name, reversed(rows))
    return rows[name]


def insert_study(connection: Connection, name: str, spec: StudySpec, *, unfinished: bool = False) -> RawStudy:
    """Insert a new study without trials.

    An `unfinished` one cannot be read until `update_study` gives it its trials and checksum.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    texts = (_encoded(name), _json(spec.to_dict()), now.encode(), __version__.encode())
    key = connection.exec_driver_sql(_INSERT, texts).lastrowid
    row = RawStudy(key, *texts, lanes=0, lanes_checksum=0, checksum=0)
    if not unfinished:
        return update_study(connection, row)
    connection.exec_driver_sql("UPDATE studies SET lanes = ? WHERE id = ?", (_UNFINISHED, key))
    return row


def find_unfinished(connection: Connection, name: str) -> RawStudy | None:
    """Return the study of a name if its import has not finished."""
    row = _row_of(connection, name)
    return row if row is not None and row.is_unfinished else None


def update_study(connection: Connection, row: RawStudy, spec: StudySpec | None = None) -> RawStudy:
    """Write a row, with another `spec` if given, and its checksum."""
    new = row if spec is None else replace(row, spec=_json(spec.to_dict()))
    new = replace(new, checksum=new.computed_checksum() or 0)
    values = (new.spec, new.lanes, new.lanes_checksum, new.checksum, new.id)
    connection.exec_driver_sql(_UPDATE, values)
    return new


def delete_row(connection: Connection, row: RawStudy) -> None:
    """Delete a study, and with it its trials and driver."""
    connection.exec_driver_sql("DELETE FROM studies WHERE id = ?", (row.id,))


def insert_comparison(connection: Connection, names: Sequence[str]) -> None:
    """Record these studies as the latest comparison."""
    text = _json(list(names))
    run = connection.exec_driver_sql
    key = run("INSERT INTO comparisons (names) VALUES (CAST(? AS TEXT))", (text,)).lastrowid
    run("UPDATE comparisons SET checksum = ? WHERE id = ?", (comparison_checksum(key, text), key))


def latest_comparison(connection: Connection) -> list[str]:
    """Return the names of the latest comparison whose studies all exist; [] if there is none.

    Raises Damaged if damage makes that uncertain.
    """
    rows = all_rows(connection)
    existing = {row.shown for row in rows}
    select = "SELECT id, CAST(names AS BLOB), checksum FROM comparisons ORDER BY id DESC"
    found = connection.exec_driver_sql(select).all()
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


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(found: bytes | None) -> str:
    return "" if found is None else found.decode("utf-8", "backslashreplace")


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@dataclass(frozen=True, slots=True)
class Driver:
    """A process that trains a study: one at a time, told by host, boot and the time at which it started."""

    host: str
    pid: int
    boot: str  # of the host; empty where that is unknown
    started: int  # of the process, in ticks since the boot; 0 where that is unknown, −1 when it has ended
    since: str  # ISO 8601, UTC
    seen: float  # Unix time of the last sign of life

    @classmethod
    def here(cls) -> Driver:
        """Describe this process, now."""
        boot = ""
        with suppress(OSError):
            boot = _BOOT.read_text(encoding="ascii").strip()
        pid, now = os.getpid(), time.time()
        since = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), pid, boot, _started(pid) or 0, since, now)

    @property
    def is_alive(self) -> bool:
        """True if it runs on this host, or has given a sign of life from another one."""
        if self.started == _ENDED:
            return False
        mine = Driver.here()
        if (self.host, self.boot) != (mine.host, mine.boot):
            return mine.seen - self.seen < PATIENCE
        return _started(self.pid) == self.started

    def is_same(self, other: Driver) -> bool:
        """Return True for the same process."""
        return replace(other, since=self.since, seen=self.seen) == self

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def last(self) -> str:
        """When it last gave a sign of life, and which process it was."""
        seen = datetime.fromtimestamp(self.seen, UTC).isoformat(timespec="minutes")
        return f"{seen.removesuffix('+00:00')} by process {self.pid} on {self.host}"


def _started(pid: int) -> int | None:
    """Return when a process started, in ticks since the boot; 0 where that is unknown, None if it is gone."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:
            return 0
        return 0
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return None if state in "ZX" else int(fields[18])


def last_driver(connection: Connection, study: int) -> Driver | None:
    """Return the process that is noted for a study, alive or not."""
    select = "SELECT host, pid, boot, started, since, seen FROM drivers WHERE study_id = ?"
    row = connection.exec_driver_sql(select, (study,)).first()
    return None if row is None else Driver(*row)


def find_driver(connection: Connection, study: int) -> Driver | None:
    """Return the process that trains a study now."""
    found = last_driver(connection, study)
    return found if found is not None and found.is_alive else None


def note_driver(connection: Connection, study: int, driver: Driver) -> None:
    """Note a process as the one that trains a study."""
    insert = "INSERT OR REPLACE INTO drivers VALUES (?, ?, ?, ?, ?, ?, ?)"
    connection.exec_driver_sql(insert, (study, *astuple(driver)))


def note_sign_of_life(connection: Connection, study: int, driver: Driver) -> None:
    """Note that a process is alive, if it still trains the study."""
    update = f"UPDATE drivers SET seen = ? {_OF_DRIVER}"
    connection.exec_driver_sql(update, (time.time(), study, driver.pid, driver.boot))


def note_end(connection: Connection, study: int, driver: Driver) -> None:
    """Note that a process has stopped training a study."""
    update = f"UPDATE drivers SET seen = ?, started = {_ENDED} {_OF_DRIVER}"
    connection.exec_driver_sql(update, (time.time(), study, driver.pid, driver.boot))


def remove_driver(connection: Connection, study: int, driver: Driver) -> None:
    """Forget a process that imports a study."""
    connection.exec_driver_sql(f"DELETE FROM drivers {_OF_DRIVER}", (study, driver.pid, driver.boot))
