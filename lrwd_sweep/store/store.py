"""The store: studies and their trials, one transaction per finished pack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lrwd_sweep.errors import SpecMismatch, StoreError, UnknownName, UsageError
from lrwd_sweep.spec import StudySpec
from lrwd_sweep.store.database import DEFAULT_FILE, IMMEDIATE, explained, open_database
from lrwd_sweep.store.schema import ComparisonRow, StudyRow
from lrwd_sweep.store.summary import StudySummary, outcomes_by_study
from lrwd_sweep.store.trials import Lane, finished_lanes, insert_trials, select_trials
from lrwd_sweep.trial import Trial


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as the store knows it."""

    name: str
    spec: StudySpec
    created: str  # ISO 8601, UTC


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
            row = _find_row(session, name)
            return None if row is None else self._record(row)

    def get_study(self, name: str) -> StudyRecord:
        """The study of that name. Raises UnknownName with the near names."""
        with self._reading() as session:
            return self._record(_get_row(session, name))

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
            row = _find_row(session, name)
            if row is None:
                return self._record(_new_row(session, name, spec))
            row.spec = _extended(self._record(row), spec).to_dict()
            session.add(ComparisonRow(names=[name]))
            return self._record(row)

    def import_study(self, name: str, spec: StudySpec, trials: Iterable[Trial]) -> None:
        """Create a study with all its trials, or nothing; it is then `latest`.

        Raises UsageError when the name is taken, StoreError when a lane comes twice.
        """
        check_name(name)
        with self._writing() as session:
            if _find_row(session, name) is not None:
                raise UsageError(
                    f"study {name!r} exists; delete it first (study delete) or choose another --study-name"
                )
            _insert(session, _new_row(session, name, spec).id, name, list(trials))

    def delete_study(self, name: str) -> None:
        """Remove a study with all its trials. Raises UnknownName."""
        with self._writing() as session:
            session.execute(delete(StudyRow).where(StudyRow.id == _get_id(session, name)))

    def studies(self) -> list[StudySummary]:
        """Every study, oldest first."""
        with self._reading() as session:
            outcomes = outcomes_by_study(session)
            rows = session.scalars(select(StudyRow).order_by(StudyRow.id))
            records = [(self._record(row), outcomes.get(row.id, {})) for row in rows]
        return [StudySummary.of(known.name, known.spec, known.created, cells) for known, cells in records]

    def record_comparison(self, names: Sequence[str]) -> None:
        """Remember that these studies are looked at together. Raises UnknownName."""
        with self._writing() as session:
            session.add(ComparisonRow(names=[_get_row(session, name).name for name in names]))

    def latest(self) -> list[str]:
        """The names of the study or comparison that was begun last; [] when there is none."""
        with self._reading() as session:
            existing = set(session.scalars(select(StudyRow.name)))
            asked = session.scalars(select(ComparisonRow.names).order_by(ComparisonRow.id.desc()))
            return next((names for names in asked if existing.issuperset(names)), [])

    def finished(self, name: str) -> set[Lane]:
        """The lanes that need no training: complete or diverged. Raises UnknownName."""
        with self._reading() as session:
            return finished_lanes(session, _get_id(session, name))

    def add_trials(self, name: str, trials: Iterable[Trial], spec: StudySpec | None = None) -> None:
        """Store a pack's trials with their curves, all or none; a failed trial of the same lane is replaced.

        `spec` is what they were trained for. Raises UnknownName, or StoreError when a lane is there already,
        complete or diverged, or the study is no more what it was when training began.
        """
        with self._writing() as session:
            if spec is not None:
                self._check_still(session, name, spec)
            _insert(session, _get_id(session, name), name, list(trials))

    def _check_still(self, session: Session, name: str, spec: StudySpec) -> None:
        """Raise StoreError when the study was deleted meanwhile, and perhaps begun otherwise."""
        row = _find_row(session, name)
        if row is None:
            raise StoreError(
                f"study {name!r} was deleted while it was being trained; run the same command to begin anew"
            )
        try:
            whole = _extended(known := self._record(row), spec)
        except SpecMismatch as error:
            raise StoreError(f"while it was being trained, {error}") from None
        if (whole.lattice, whole.seeds) != (known.spec.lattice, known.spec.seeds):  # begun again with fewer
            row.spec = whole.to_dict()

    def trials(self, name: str, *, curves: bool = False) -> list[Trial]:
        """The study's trials in the order of storing; `curves` adds learning curves. Raises UnknownName."""
        with self._reading() as session:
            return select_trials(session, _get_id(session, name), curves=curves)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with explained(self.path), Session(self._reader) as session:
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with explained(self.path), Session(self._writer) as session, session.begin():
            yield session

    def _record(self, row: StudyRow) -> StudyRecord:
        try:
            spec = StudySpec.from_dict(row.spec)
        except (UsageError, KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"store {str(self.path)!r}: study {row.name!r} has a specification that makes no sense here "
                f"({error}); use the lrwd-sweep that wrote it"
            ) from error
        return StudyRecord(row.name, spec, row.created)


def check_name(name: str) -> None:
    """Raise UsageError when no study can have this name."""
    if not name.strip() or not _is_text(name):
        raise UsageError(f"--study-name {name!r} is not a name; write for example --study-name my-sweep")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_text(name: str) -> bool:
    """False when the command line held bytes that are no text: SQLite cannot keep them."""
    return name.isascii() or name.encode(errors="ignore").decode() == name


def _find_row(session: Session, name: str) -> StudyRow | None:
    return session.scalar(select(StudyRow).where(StudyRow.name == name)) if _is_text(name) else None


def _get_row(session: Session, name: str) -> StudyRow:
    row = _find_row(session, name)
    if row is None:
        raise UnknownName("study", name, session.scalars(select(StudyRow.name)))
    return row


def _get_id(session: Session, name: str) -> int:
    """That of the study of this name, without its specification, which can be long. Raises UnknownName."""
    found = session.scalar(select(StudyRow.id).where(StudyRow.name == name)) if _is_text(name) else None
    return _get_row(session, name).id if found is None else found


def _new_row(session: Session, name: str, spec: StudySpec) -> StudyRow:
    """A study that was not there, as what was asked for last."""
    row = StudyRow(name=name, spec=spec.to_dict(), created=_now())
    session.add_all([row, ComparisonRow(names=[name])])
    session.flush()
    return row


def _insert(session: Session, study: int, name: str, trials: Sequence[Trial]) -> None:
    """Add trials to a study. Raises StoreError when a lane is there already."""
    try:
        with session.begin_nested():
            insert_trials(session, study, trials)
    except IntegrityError:
        raise _already_there(name, trials, finished_lanes(session, study)) from None


def _extended(stored: StudyRecord, spec: StudySpec) -> StudySpec:
    if differences := stored.spec.differences(spec):
        raise SpecMismatch(
            f"study {stored.name!r} was begun otherwise ({'; '.join(differences)}: stored, asked for); "
            "give this one a name of its own with --study-name"
        )
    return stored.spec.extended(spec)


def _already_there(name: str, pack: Sequence[Trial], kept: set[Lane]) -> StoreError:
    known = set(kept)
    for trial in pack:
        lane = (trial.cell, trial.seed)
        if lane in known:
            return StoreError(
                f"study {name!r} already has lr {trial.cell.lr!r}, weight decay {trial.cell.weight_decay!r}, "
                f"seed {trial.seed}, which is kept; run the same command again for what is still missing"
            )
        known.add(lane)
    raise AssertionError(f"a trial for study {name!r} breaks a constraint other than uniqueness")
