"""The store: studies and their trials, one transaction per finished pack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import Engine, delete
from sqlalchemy.orm import Session

from lrwd_sweep.errors import SpecMismatch, StoreError, UsageError, arg
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import studies, trials
from lrwd_sweep.store.database import DEFAULT_FILE, IMMEDIATE, explained, open_database
from lrwd_sweep.store.schema import StudyRow
from lrwd_sweep.store.studies import Row, StudyRecord
from lrwd_sweep.store.summary import StudySummary, summary
from lrwd_sweep.store.trials import Lane


def open_store(url: str | None = None, *, write: bool) -> Store:
    """The store at a path or `sqlite:///PATH`; None means LRWD_STORAGE, else `lrwd-sweep.db` here.

    Only `write` creates the file. Raises StoreError when it cannot be opened (or written, if asked), and
    NothingToReport when the default file is to be read but is not there yet.
    """
    return Store(*open_database(url, write=write))


class Store:
    """An open store; a context manager. Every method is one transaction and may raise StoreError."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._reader = engine
        self._writer = engine.execution_options(**IMMEDIATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._reader.dispose()

    @property
    def storage(self) -> str | None:
        """What finds this store again; None where it is the default file here."""
        return None if self.path == Path(DEFAULT_FILE) else str(self.path)

    def find_study(self, name: str) -> StudyRecord | None:
        """The study of that name, or None."""
        with self._reading() as session:
            row = studies.find_row(session, name)
            return None if row is None else row.record()

    def get_study(self, name: str) -> StudyRecord:
        """The study of that name. Raises UnknownName with the near names."""
        with self._reading() as session:
            return studies.get_row(session, name).record()

    def check_study(self, name: str, spec: StudySpec) -> None:
        """Raise SpecMismatch, as `begin_study` would, when the name stands for another identity."""
        if (found := self.find_study(name)) is not None:
            _extended(found, spec)

    def begin_study(self, name: str, spec: StudySpec) -> StudyRecord:
        """Create the study, or extend the one that is there by `spec`'s cells and seeds; it is then `latest`.

        Raises SpecMismatch, naming the difference, when the name stands for another identity.
        """
        check_name(name)
        with self._writing() as session:
            row = studies.find_row(session, name)
            if row is None:
                row = studies.insert_study(session, name, spec)
            else:
                row = studies.update_study(session, row, _extended(row.record(), spec))
            studies.insert_comparison(session, [name])
            return row.record()

    def import_study(self, name: str, spec: StudySpec, found: Iterable[Trial]) -> None:
        """Create a study with all its trials, or nothing; it is then `latest`.

        Raises UsageError when the name is taken, StoreError when a lane comes twice.
        """
        check_name(name)
        with self._writing() as session:
            if studies.find_row(session, name) is not None:
                raise UsageError(
                    f"study {name!r} exists; delete it first (study delete) or choose another "
                    f"{arg('study_name')}"
                )
            row = studies.insert_study(session, name, spec)
            studies.insert_comparison(session, [name])
            _insert(session, row, name, list(found))

    def count_lanes(self, name: str) -> int:
        """How many lanes are stored of a study, readable or not. Raises UnknownName."""
        with self._reading() as session:
            return trials.count_lanes(session, studies.get_listed(session, name).id)

    def delete_study(self, name: str) -> None:
        """Remove a study with all its trials, readable or not. Raises UnknownName."""
        try:
            with self._writing() as session:
                row = studies.get_listed(session, name)
                session.execute(delete(StudyRow).where(StudyRow.id == row.id))
        except StoreError:  # damaged indexes do not lead to all that goes with it
            with self._writing() as session:
                row = studies.get_listed(session, name)
                trials.remove_lanes(session, row.id)
                session.execute(delete(StudyRow).where(StudyRow.id == row.id))

    def drop_damaged(self, name: str) -> int:
        """Remove a study's damaged lanes, curves included, so that they are missing; how many these are.

        Raises UnknownName, or Damaged when more than lanes is damaged.
        """
        with self._writing() as session:
            return trials.drop_damaged(session, studies.get_row(session, name))

    def studies(self) -> list[StudySummary]:
        """Every study, oldest first; one that cannot be read says so, and hides no other."""
        with self._reading() as session:
            return [summary(session, row) for row in studies.all_rows(session)]

    def record_comparison(self, names: Sequence[str]) -> None:
        """Remember that these studies are looked at together. Raises UnknownName."""
        with self._writing() as session:
            for name in names:
                studies.get_row(session, name)
            studies.insert_comparison(session, names)

    def latest(self) -> list[str]:
        """The names of the study or comparison that was begun last; [] when there is none."""
        with self._reading() as session:
            return studies.latest_comparison(session)

    def finished(self, name: str) -> set[Lane]:
        """The lanes that need no training: complete or diverged. Raises UnknownName."""
        with self._reading() as session:
            return trials.finished_lanes(session, studies.get_row(session, name))

    def add_trials(self, name: str, pack: Iterable[Trial], spec: StudySpec | None = None) -> list[Lane]:
        """Store a pack's trials with their curves, all or none; a failed trial of the same lane is replaced.

        A lane that is there already, complete or diverged, stays as it is; these are given back. `spec` is
        what the pack was trained for. Raises UnknownName, or StoreError when a lane comes twice or the study
        is no longer what it was when training began.
        """
        with self._writing() as session:
            if spec is not None:
                self._check_still(session, name, spec)
            return _insert(session, studies.get_row(session, name), name, list(pack))

    def _check_still(self, session: Session, name: str, spec: StudySpec) -> None:
        """Raise StoreError when the study was deleted meanwhile, and perhaps begun otherwise."""
        row = studies.find_row(session, name)
        if row is None:
            raise StoreError(
                f"study {name!r} was deleted while it was being trained; run the same command to begin anew"
            )
        try:
            whole = _extended(known := row.record(), spec)
        except SpecMismatch as error:
            raise StoreError(f"while it was being trained, {error.text}") from None
        if (whole.lattice, whole.seeds) != (known.spec.lattice, known.spec.seeds):  # begun again with fewer
            studies.update_study(session, row, whole)

    def trials(self, name: str, *, curves: bool = False) -> list[Trial]:
        """The study's trials in the order of storing; `curves` adds learning curves. Raises UnknownName."""
        with self._reading() as session:
            return trials.read_trials(session, studies.get_row(session, name), curves=curves)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with explained(self.path), Session(self._reader) as session:
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with explained(self.path), Session(self._writer) as session, session.begin():
            yield session


def check_name(name: str) -> None:
    """Raise UsageError when no study can have this name."""
    if not name.strip() or not _is_text(name):
        like = arg("study_name", "my-sweep")
        raise UsageError(f"{arg('study_name', name)} is not a name; write for example {like}")


def _is_text(name: str) -> bool:
    """False when the command line held bytes that are no text: SQLite cannot keep them."""
    return name.isascii() or name.encode(errors="ignore").decode() == name


def _insert(session: Session, row: Row, name: str, pack: Sequence[Trial]) -> list[Lane]:
    """Add trials to a study; the lanes that were there already. Raises StoreError when one comes twice."""
    seen: set[Lane] = set()
    for trial in pack:
        if (lane := (trial.cell, trial.seed)) in seen:
            raise StoreError(
                f"lr {trial.cell.lr!r}, weight decay {trial.cell.weight_decay!r}, seed {trial.seed} comes "
                f"twice for study {name!r}; leave one out"
            )
        seen.add(lane)
    return trials.insert_trials(session, row, pack)


def _extended(stored: StudyRecord, spec: StudySpec) -> StudySpec:
    if differences := stored.spec.differences(spec):
        raise SpecMismatch(
            f"study {stored.name!r} was begun otherwise ({'; '.join(differences)}: stored, asked for); "
            f"give this one a name of its own with {arg('study_name')}"
        )
    return stored.spec.extended(spec)
