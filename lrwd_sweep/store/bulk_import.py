"""New studies with many trials, stored in several transactions, so that others can write between them.

Only the last transaction makes the studies readable; what an interrupted import leaves is removed when the
import is repeated, or the study deleted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from itertools import groupby, islice

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from lrwd_sweep.errors import StoreError, UsageError, arg
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import studies, trials
from lrwd_sweep.store.schema import checksum_sum
from lrwd_sweep.store.studies import Driver, RawStudy

BATCH = 50_000  # trials that are stored in one transaction: about a second


class BulkImport:
    """Studies that are imported together by this process; `writing` opens a transaction."""

    def __init__(
        self,
        writing: Callable[[], AbstractContextManager[Connection]],
        new: Mapping[str, tuple[StudySpec, Iterable[Trial]]],
    ) -> None:
        self._writing = writing
        self._new = new
        self._rows: dict[str, RawStudy] = {}
        self._driver = Driver.here()

    def store(self) -> None:
        """Store all studies, or nothing. Raises UsageError if a name is taken, StoreError."""
        left = ((name, trial) for name, (_, found) in self._new.items() for trial in found)
        self._remove_unfinished()
        try:
            self._begin()
            while batch := list(islice(left, BATCH)):
                self._insert(batch)
            self._publish()
        except Exception:
            with suppress(StoreError):
                self._remove_unfinished()
            raise
        finally:  # at an interruption, the user deletes what is there or repeats the command
            with suppress(StoreError), self._writing() as connection:
                for row in self._rows.values():
                    studies.remove_driver(connection, row.id, self._driver)

    def _begin(self) -> None:
        begun = {}
        with self._writing() as connection:
            for name, (spec, _) in self._new.items():
                if studies.find_row(connection, name) is not None:
                    raise UsageError(
                        f"study {name!r} exists; delete it first (study delete) or choose another "
                        f"{arg('study_name')}"
                    )
                begun[name] = studies.insert_study(connection, name, spec, unfinished=True)
                studies.note_driver(connection, begun[name].id, self._driver)
        self._rows = begun

    def _insert(self, batch: Sequence[tuple[str, Trial]]) -> None:
        packs = {
            name: [trial for _, trial in named] for name, named in groupby(batch, lambda named: named[0])
        }
        assert all(trial.cell.lr > 0 <= trial.cell.weight_decay for _, trial in batch)
        rows = dict(self._rows)
        try:
            with self._writing() as connection, _without_checks(connection):
                for name, pack in packs.items():
                    row = rows[name]
                    added = trials.insert_new(connection, row.id, pack)
                    total = checksum_sum([row.lanes_checksum, *added])
                    rows[name] = replace(row, lanes=row.lanes + len(added), lanes_checksum=total)
                    studies.note_sign_of_life(connection, row.id, self._driver)
        except StoreError as error:
            if isinstance(error.__cause__, IntegrityError):
                with self._writing() as connection:
                    for name, pack in packs.items():
                        stored = trials.stored_lanes(connection, self._rows[name], pack)
                        trials.refuse_repeated(name, [*stored, *((trial.cell, trial.seed) for trial in pack)])
            raise
        self._rows = rows

    def _publish(self) -> None:
        with self._writing() as connection:
            for name, row in self._rows.items():
                if (found := studies.find_unfinished(connection, name)) is None or found.id != row.id:
                    raise StoreError(f"study {name!r} was deleted while it was imported; import it again")
                studies.update_study(connection, row)
            studies.insert_comparison(connection, [*self._new])

    def _remove_unfinished(self) -> None:
        """Remove what interrupted imports left. Raises UsageError for one that another process runs."""
        for name in self._new:
            while self._remove_batch(name):
                pass

    def _remove_batch(self, name: str) -> bool:
        """Remove a part of an unfinished study; return True if more is left."""
        with self._writing() as connection:
            if (row := studies.find_unfinished(connection, name)) is None:
                return False
            driver = studies.find_driver(connection, row.id)
            if driver is not None and not driver.is_same(self._driver):
                raise UsageError(
                    f"study {name!r} is being imported by {driver}; wait until it has finished, or choose "
                    f"another {arg('study_name')}"
                )
            some = "SELECT id FROM trials WHERE study_id = ? LIMIT ?"
            delete = f"DELETE FROM trials WHERE id IN ({some})"
            if connection.exec_driver_sql(delete, (row.id, BATCH)).rowcount:
                return True
            studies.delete_row(connection, row)
            return False


@contextmanager
def _without_checks(connection: Connection) -> Iterator[None]:
    """Leave out SQLite's CHECK constraints, which take it two of five microseconds per trial."""
    run = connection.exec_driver_sql
    run("PRAGMA ignore_check_constraints = ON")
    try:
        yield
    finally:
        run("PRAGMA ignore_check_constraints = OFF")
