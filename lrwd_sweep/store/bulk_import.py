"""New studies with many trials, stored in several transactions, so that others can write between them.

Only the last transaction makes the studies readable; what an interrupted import leaves is removed when the
import is repeated, or the study deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from itertools import islice

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lrwd_sweep.errors import StoreError, UsageError, arg
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import studies, trials
from lrwd_sweep.store.drivers import Driver, find_driver, note_driver, note_sign_of_life, remove_driver
from lrwd_sweep.store.schema import StudyRow, checksum_sum
from lrwd_sweep.store.studies import RawStudy
from lrwd_sweep.store.trials import Lane

BATCH = 50_000  # trials that are stored in one transaction: about a second


class BulkImport:
    """Studies that are imported together by this process; `writing` opens a transaction."""

    def __init__(
        self,
        writing: Callable[[], AbstractContextManager[Session]],
        new: Mapping[str, tuple[StudySpec, Iterable[Trial]]],
    ) -> None:
        self._writing = writing
        self._new = new
        self._rows: dict[str, RawStudy] = {}
        self._driver = Driver.here()

    def store(self) -> None:
        """Store all studies, or nothing. Raises UsageError if a name is taken, StoreError."""
        self._remove_unfinished()
        try:
            self._begin()
            for batch in _batches({name: found for name, (_, found) in self._new.items()}):
                self._insert(batch)
            self._publish()
        except Exception:
            with suppress(StoreError):
                self._remove_unfinished()
            raise
        finally:  # at an interruption, the user deletes what is there or repeats the command
            with suppress(StoreError), self._writing() as session:
                for row in self._rows.values():
                    remove_driver(session, row.id, self._driver)

    def _begin(self) -> None:
        with self._writing() as session:
            for name in self._new:
                if studies.find_row(session, name) is not None:
                    raise UsageError(
                        f"study {name!r} exists; delete it first (study delete) or choose another "
                        f"{arg('study_name')}"
                    )
            begun = {name: studies.begin_import(session, name, spec) for name, (spec, _) in self._new.items()}
            for row in begun.values():
                note_driver(session, row.id, self._driver)
        self._rows = begun

    def _insert(self, batch: Sequence[tuple[str, Sequence[Trial]]]) -> None:
        rows = dict(self._rows)
        assert all(trial.cell.lr > 0 <= trial.cell.weight_decay for _, pack in batch for trial in pack)
        try:
            with self._writing() as session, _without_checks(session):
                for name, pack in batch:
                    row = rows[name]
                    added = trials.insert_new(session, row.id, pack)
                    total = checksum_sum([row.lanes_checksum, *added])
                    rows[name] = replace(row, lanes=row.lanes + len(added), lanes_checksum=total)
                    note_sign_of_life(session, row.id, self._driver)
        except StoreError as error:
            if isinstance(error.__cause__, IntegrityError):
                self._refuse_repeated(batch)
            raise
        self._rows = rows

    def _refuse_repeated(self, batch: Sequence[tuple[str, Sequence[Trial]]]) -> None:
        with self._writing() as session:
            for name, pack in batch:
                row = self._rows[name]
                stored = trials.stored_lanes(session, row, pack)
                refuse_repeated(row, [*stored, *((trial.cell, trial.seed) for trial in pack)])

    def _publish(self) -> None:
        with self._writing() as session:
            for name, row in self._rows.items():
                if (found := studies.find_unfinished(session, name)) is None or found.id != row.id:
                    raise StoreError(f"study {name!r} was deleted while it was imported; import it again")
                studies.update_study(session, row)
            studies.insert_comparison(session, [*self._new])

    def _remove_unfinished(self) -> None:
        """Remove what interrupted imports left. Raises UsageError for one that another process runs."""
        for name in self._new:
            while self._remove_batch(name):
                pass

    def _remove_batch(self, name: str) -> bool:
        """Remove a part of an unfinished study; return True if more is left."""
        with self._writing() as session:
            if (row := studies.find_unfinished(session, name)) is None:
                return False
            driver = find_driver(session, row.id)
            if driver is not None and driver.is_alive and not driver.is_same(self._driver):
                raise UsageError(
                    f"study {name!r} is being imported by {driver}; wait until it has finished, or choose "
                    f"another {arg('study_name')}"
                )
            if trials.delete_some(session, row.id, BATCH):
                return True
            session.execute(delete(StudyRow).where(StudyRow.id == row.id))
            return False


@contextmanager
def _without_checks(session: Session) -> Iterator[None]:
    """Leave out SQLite's CHECK constraints, which take it two of five microseconds per trial."""
    run = session.connection().exec_driver_sql
    run("PRAGMA ignore_check_constraints = ON")
    try:
        yield
    finally:
        run("PRAGMA ignore_check_constraints = OFF")


def refuse_repeated(row: RawStudy, lanes: Iterable[Lane]) -> None:
    """Raise StoreError if a lane occurs twice."""
    seen: set[Lane] = set()
    for cell, seed in lanes:
        if (cell, seed) in seen:
            raise StoreError(
                f"lr {cell.lr!r}, weight decay {cell.weight_decay!r}, seed {seed} occurs twice for study "
                f"{row.shown!r}; leave one out"
            )
        seen.add((cell, seed))


def _batches(found: Mapping[str, Iterable[Trial]]) -> Iterator[list[tuple[str, list[Trial]]]]:
    """Yield the trials of all studies by name, in batches that are stored at once."""
    batch: list[tuple[str, list[Trial]]] = []
    size = 0
    for name, some in found.items():
        left = iter(some)
        while pack := list(islice(left, BATCH - size)):
            batch.append((name, pack))
            size += len(pack)
            if size == BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch
