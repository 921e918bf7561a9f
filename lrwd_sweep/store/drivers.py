"""The process that trains a study: one at a time, told by host, boot and the time at which it started."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from lrwd_sweep.store.schema import DriverRow

PATIENCE = 60.0  # seconds without a sign of life, after which a process on another host counts as dead
BEAT = 15.0  # seconds between two signs of life
ENDED = -1
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Driver:
    """A process that trains a study."""

    host: str
    pid: int
    boot: str  # of the host; empty where that is unknown
    started: int  # of the process, in ticks since the boot; 0 where that is unknown, ENDED when it has ended
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
        if self.started == ENDED:
            return False
        mine = Driver.here()
        if (self.host, self.boot) != (mine.host, mine.boot):
            return mine.seen - self.seen < PATIENCE
        return _started(self.pid) == self.started

    def is_same(self, other: Driver) -> bool:
        """Return True for the same process."""
        return (self.host, self.boot, self.pid, self.started) == (
            other.host,
            other.boot,
            other.pid,
            other.started,
        )

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


def find_driver(session: Session, study: int) -> Driver | None:
    """Return the process that is noted for a study, alive or not."""
    row = session.get(DriverRow, study)
    if row is None:
        return None
    return Driver(row.host, row.pid, row.boot, row.started, row.since, row.seen)


def note_driver(session: Session, study: int, driver: Driver) -> None:
    """Note a process as the one that trains a study."""
    session.merge(DriverRow(study_id=study, **asdict(driver)))


def note_sign_of_life(session: Session, study: int, driver: Driver) -> None:
    """Note that a process is alive, if it still trains the study."""
    mine = (DriverRow.study_id == study, DriverRow.pid == driver.pid, DriverRow.boot == driver.boot)
    session.execute(update(DriverRow).where(*mine).values(seen=time.time()))


def note_end(session: Session, study: int, driver: Driver) -> None:
    """Note that a process has stopped training a study."""
    mine = (DriverRow.study_id == study, DriverRow.pid == driver.pid, DriverRow.boot == driver.boot)
    session.execute(update(DriverRow).where(*mine).values(seen=time.time(), started=ENDED))


def remove_driver(session: Session, study: int, driver: Driver) -> None:
    """Forget a process that imports a study."""
    mine = (DriverRow.study_id == study, DriverRow.pid == driver.pid, DriverRow.boot == driver.boot)
    session.execute(delete(DriverRow).where(*mine))
