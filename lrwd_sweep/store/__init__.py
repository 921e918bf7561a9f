"""The store: one SQLite file of studies, trials and learning curves, one transaction per finished pack."""

from __future__ import annotations

import os
import shlex
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Self

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from lrwd_sweep.errors import LrwdError, SpecMismatch, StoreError, UsageError, arg
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import delete_files, short_digest
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import studies, trials
from lrwd_sweep.store.bulk_import import BulkImport
from lrwd_sweep.store.database import (
    DEFAULT_FILE,
    IMMEDIATE,
    Inaccessible,
    check_same,
    check_writable,
    copy_to,
    explained,
    identity,
    open_database,
)
from lrwd_sweep.store.schema import Damaged, Unreadable
from lrwd_sweep.store.studies import Driver, RawStudy, StudyRecord
from lrwd_sweep.store.trials import Lane

__all__ = ["Lane", "Store", "StudyRecord", "StudySummary", "check_name", "open_store", "preview_store"]

_STATES = ("complete", "diverged", "failed", "missing")


def open_store(url: str | None = None, *, write: bool) -> Store:
    """Open the store at a path or `sqlite:///PATH`; None means LRWD_STORAGE, else `lrwd-sweep.db` here.

    Only `write` creates the file. Raises StoreError if it cannot be opened (or written, if asked), and
    NothingToReport if the default file is to be read but does not exist.
    """
    return Store(*open_database(url, write=write))


def preview_store(url: str | None = None) -> tuple[Path, Store | None]:
    """Return the file that a command would write, and the store in it to read, None if it has none yet.

    Raises StoreError as opening it to write would, and writes nothing.
    """
    path = check_writable(url)
    holds = path.exists() and path.stat().st_size > 0
    return path, open_store(url, write=False) if holds else None


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A line of `study list`; `counts` are cells by the worst of their seeds, as a surface counts them."""

    name: str
    optimizer: str = ""  # empty if unreadable, as are the counts
    created: str = ""  # ISO 8601, UTC
    counts: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(("cells", *_STATES), 0))
    training: str = ""  # the process that trains it now
    last_trained: str = ""  # when, and by which process, if none does
    unreadable: str = ""  # why it cannot be read, and the remedy
    damaged: bool = False  # unreadable because what is stored is not what was written
    refined: int | None = None  # lanes of a refined lattice, which are all that its verdict needed so far


class Store:
    """An open store; a context manager. Every method is one transaction and may raise StoreError."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._file = identity(path)
        self._specs: dict[str, StudySpec] = {}  # of the studies that were begun here, as they are stored
        self._known: tuple[tuple[int, int, int], list[Trial]] | None = None  # what was read last, and its sum
        self._in_hand: tuple[str, Sequence[Trial]] | None = None  # a trained pack that is not stored yet
        self._rescuing = Lock()
        self._reader = engine
        self._writer = engine.execution_options(**IMMEDIATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._reader.dispose()

    @property
    def storage(self) -> str | None:
        """The value of `storage` that opens this store again; None for the default file."""
        return None if self.path == Path(DEFAULT_FILE) else str(self.path)

    def find_study(self, name: str) -> StudyRecord | None:
        """Return the study of a name, or None."""
        with self._reading() as connection:
            row = studies.find_row(connection, name)
            return None if row is None else row.record()

    def get_study(self, name: str) -> StudyRecord:
        """Return the study of a name. Raises UnknownName with the near names."""
        with self._reading() as connection:
            return studies.get_row(connection, name).record()

    def check_study(self, name: str, spec: StudySpec) -> None:
        """Raise SpecMismatch, as `begin_study` would, if the name belongs to a study of another identity."""
        if (found := self.find_study(name)) is not None:
            _extended(found, spec)

    def begin_study(self, name: str, spec: StudySpec) -> StudyRecord:
        """Create the study, or extend an existing one by `spec`'s cells and seeds; it becomes `latest`.

        Raises SpecMismatch, naming the difference, if the name belongs to a study of another identity.
        """
        check_name(name)
        with self._writing() as connection:
            row = studies.find_row(connection, name)
            if row is None:
                row = studies.insert_study(connection, name, spec)
            else:
                row = studies.update_study(connection, row, _extended(row.record(), spec))
            studies.insert_comparison(connection, [name])
            record = row.record()
        self._specs[name] = record.spec
        return record

    def import_studies(self, new: Mapping[str, tuple[StudySpec, Iterable[Trial]]]) -> None:
        """Create studies with all their trials, or nothing; they become `latest`.

        Raises UsageError if a name is taken, StoreError if a lane occurs twice.
        """
        for name in new:
            check_name(name)
        BulkImport(self._writing, new).store()

    def count_lanes(self, name: str) -> int:
        """Count the stored lanes of a study, damaged or not. Raises UnknownName."""
        with self._reading() as connection:
            return trials.count_lanes(connection, studies.get_unverified_row(connection, name).id)

    def delete_study(self, name: str) -> None:
        """Remove a study with all its trials, damaged or not. Raises UnknownName."""
        try:
            self._delete_study(name)
        except StoreError:  # with a damaged index, SQLite does not find all rows of the study
            self._delete_study(name, damaged=True)

    def _delete_study(self, name: str, *, damaged: bool = False) -> None:
        with self._writing() as connection:
            row = studies.get_unverified_row(connection, name)
            if (driver := studies.find_driver(connection, row.id)) is not None:
                raise UsageError(f"study {name!r} is being trained by {driver}; stop it first")
            if damaged:
                trials.remove_lanes(connection, row.id)
            studies.delete_row(connection, row)
        self.delete_checkpoints(name)

    def drop_damaged(self, name: str) -> int:
        """Remove a study's damaged lanes with their curves; return the number of lanes that are now missing.

        Raises UnknownName, or Damaged if more than lanes is damaged.
        """
        with self._writing() as connection:
            return trials.drop_damaged(connection, studies.get_row(connection, name))

    def studies(self) -> list[StudySummary]:
        """Summarise all studies, oldest first, including those that cannot be read."""
        with self._reading() as connection:
            return [_summary(connection, row) for row in studies.all_rows(connection)]

    @contextmanager
    def driving(self, name: str, remedy: str = "") -> Iterator[None]:
        """Be the only process that trains a study. Raises StoreError if another one does."""
        mine = Driver.here()
        with self._writing() as connection:
            study = studies.get_row(connection, name).id
            found = studies.find_driver(connection, study)
            if found is not None and not found.is_same(mine):
                remedy = remedy or f"choose another {arg('study_name')}"
                raise StoreError(
                    f"study {name!r} is being trained by {found}; wait until it has finished, stop it, or "
                    f"{remedy}"
                )
            studies.note_driver(connection, study, mine)
        stopped = Event()
        beating = Thread(target=self._beat, args=(study, mine, stopped), daemon=True)
        beating.start()
        try:
            yield
        finally:
            stopped.set()
            if not isinstance(sys.exc_info()[1], Inaccessible):  # a locked store makes every write wait
                beating.join()
                with suppress(StoreError), self._writing() as connection:
                    studies.note_end(connection, study, mine)

    def _beat(self, study: int, driver: Driver, stopped: Event) -> None:
        while not stopped.wait(studies.BEAT):
            with suppress(StoreError), self._writing() as connection:  # locked, or lost: training will tell
                studies.note_sign_of_life(connection, study, driver)

    def driver(self, name: str) -> Driver | None:
        """Return the process that trains a study now. Raises UnknownName."""
        with self._reading() as connection:
            return studies.find_driver(connection, studies.get_row(connection, name).id)

    def delete_checkpoints(self, name: str) -> None:
        """Delete the files of a study's checkpoints; keep those that cannot be."""
        folder = Path(f"{self.path}.packs")
        delete_files(*folder.glob(f"{short_digest(name)}-*"))
        with suppress(OSError):
            folder.rmdir()

    def record_comparison(self, names: Sequence[str]) -> None:
        """Make these studies the `latest` comparison. Raises UnknownName."""
        with self._writing() as connection:
            for name in names:
                studies.get_row(connection, name)
            studies.insert_comparison(connection, names)

    def latest(self) -> list[str]:
        """Return the names of the latest study or comparison; [] if there is none."""
        with self._reading() as connection:
            return studies.latest_comparison(connection)

    def finished(self, name: str) -> set[Lane]:
        """Return the lanes that are complete or diverged. Raises UnknownName."""
        with self._reading() as connection:
            found = self._read(connection, studies.get_row(connection, name))
        return {(trial.cell, trial.seed) for trial in found if trial.status is not Status.FAILED}

    def add_trials(
        self, name: str, pack: Iterable[Trial], spec: StudySpec | None = None, seconds: float = 0.0
    ) -> list[Lane]:
        """Store a pack's trials with their curves, all or none, and replace failed trials of the same lanes.

        A lane that is complete or diverged stays as it is; return these. The pack was trained for `spec`, and
        the study was in training for `seconds` since the last one. Raises UnknownName, or StoreError if a
        lane occurs twice or the study has changed since training began, and Inaccessible: see `_rescue`.
        """
        found = list(pack)
        trials.refuse_repeated(name, [(trial.cell, trial.seed) for trial in found])
        self._in_hand, self._known = (name, found), None
        with self._writing() as connection:
            if spec is not None:
                self._check_unchanged(connection, name, spec)
            row = studies.get_row(connection, name)
            if seconds:
                add = "UPDATE studies SET seconds = seconds + ? WHERE id = ?"
                connection.exec_driver_sql(add, (seconds, row.id))
            kept = trials.insert_trials(connection, row, found)
        self._in_hand = None
        return kept

    def _check_unchanged(self, connection: Connection, name: str, spec: StudySpec) -> None:
        """Raise StoreError if the study was deleted during training, and perhaps created differently."""
        row = studies.find_row(connection, name)
        if row is None:
            raise StoreError(
                f"study {name!r} was deleted while it was being trained; repeat the command to train it again"
            )
        try:
            whole = _extended(known := row.record(), spec)
        except SpecMismatch as error:
            raise StoreError(f"while it was being trained, {error.text}") from None
        if (whole.lattice, whole.seeds) != (known.spec.lattice, known.spec.seeds):  # created again, smaller
            studies.update_study(connection, row, whole)

    def trials(self, name: str, *, curves: bool = False) -> list[Trial]:
        """Return the study's trials in the order of storing, `curves` with theirs. Raises UnknownName."""
        with self._reading() as connection:
            row = studies.get_row(connection, name)
            if curves:
                return trials.read_trials(connection, row, curves=True)
            return list(self._read(connection, row))

    def _read(self, connection: Connection, row: RawStudy) -> list[Trial]:
        """Return a study's trials without curves; read and verify them again only if others are stored."""
        state = row.id, row.lanes, row.lanes_checksum
        if self._known is None or self._known[0] != state:
            self._known = None  # frees memory first
            self._known = state, trials.read_trials(connection, row, curves=False)
        return self._known[1]

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            check_same(self.path, self._file)
            with explained(self.path), engine.begin() as connection:
                yield connection
        except Inaccessible as error:
            raise Inaccessible(error.text + self._rescue()) from error.__cause__

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._transaction(self._reader)

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._transaction(self._writer)

    def _rescue(self) -> str:
        """Keep a pack in hand and what a deleted file held, beside it; return how to add them to a store."""
        is_moved, hand = identity(self.path) != self._file, self._in_hand
        if not self._specs or not (is_moved or hand):
            return ""
        kept = self.path.with_name(f"{self.path.name}.rescue-{os.getpid()}.db")
        was_there = kept.exists()
        try:
            with self._rescuing:
                if is_moved and not was_there and not Path(f"{self.path}-journal").exists():
                    copy_to(kept, self._reader)
                    was_there = True
                if hand is not None:
                    name, trials = hand
                    with open_store(str(kept), write=True) as store:
                        store.begin_study(name, self._specs[name])
                        store._specs.clear()  # so that it rescues nothing itself
                        store.add_trials(name, trials)
        except (LrwdError, DBAPIError, sqlite3.Error, OSError, KeyError):
            delete_files(*[kept] * (not was_there))
            return ""
        again = shlex.join(["lrwd-sweep", "study", "merge", str(self.path), str(kept)])
        return f"; results are kept: {again}"


def check_name(name: str) -> None:
    """Raise UsageError if no study can have this name: it is blank, or holds bytes that are not text."""
    is_text = name.isascii() or name.encode(errors="ignore").decode() == name
    if not name.strip() or not is_text:
        like = arg("study_name", "my-sweep")
        raise UsageError(f"{arg('study_name', name)} is not a name; write for example {like}")


def _summary(connection: Connection, row: RawStudy) -> StudySummary:
    try:
        record = row.record()
        outcomes = trials.read_outcomes(connection, row)
    except (Damaged, Unreadable) as error:
        return StudySummary(row.shown, unreadable=str(error), damaged=isinstance(error, Damaged))
    spec = record.spec
    search = spec.is_search  # it has only the cells that it visited
    cells: dict[tuple[float, float], list[Status]] = {}
    if not search:
        cells = {cell: [] for cell in product(spec.lattice.lr, spec.lattice.weight_decay)}
    for lr, weight_decay, _, status in outcomes:
        if search or (lr, weight_decay) in cells:
            cells.setdefault((lr, weight_decay), []).append(status)
    found = Counter(_cell_state(statuses, len(spec.seeds)) for statuses in cells.values())
    counts = {"cells": len(cells)} | {state: found[state] for state in _STATES}
    driver = studies.last_driver(connection, row.id)
    training = str(driver) if driver is not None and driver.is_alive else ""
    last = "" if driver is None or training else driver.last
    refined = None if spec.refine is None else sum(map(len, cells.values()))
    optimizer = str(spec.optimizer)
    return StudySummary(record.name, optimizer, record.created, counts, training, last, refined=refined)


def _cell_state(statuses: Sequence[Status], seeds: int) -> str:
    for worst in (Status.DIVERGED, Status.FAILED):
        if worst in statuses:
            return worst.value
    return "complete" if len(statuses) >= seeds else "missing"


def _extended(stored: StudyRecord, spec: StudySpec) -> StudySpec:
    if differences := stored.spec.differences(spec):
        raise SpecMismatch(
            f"study {stored.name!r} exists with another specification ({'; '.join(differences)}: stored, "
            f"asked for); choose another {arg('study_name')}"
        )
    return stored.spec.extended(spec)
