"""Every schema that was ever released opens, and makes the tables that the code expects."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect

from lrwd_sweep.errors import StoreError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store import open_store
from lrwd_sweep.store.migrations import MIGRATIONS, Migration, migrate
from lrwd_sweep.store.schema import Base
from tests.store.sample import complete, spec

DUMPS = sorted(Path(__file__).parent.glob("schema_v*.sql"))


def restored(dump: Path, path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(dump.read_text())
    connection.close()
    return path


@contextmanager
def added(step: Migration) -> Iterator[None]:
    """A program that knows one migration more."""
    MIGRATIONS.append(step)
    try:
        yield
    finally:
        MIGRATIONS.remove(step)


def add_note(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE trials ADD COLUMN note VARCHAR NOT NULL DEFAULT 'none'")


def columns(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute("PRAGMA table_info(trials)")]
    connection.close()
    return names


def test_every_version_has_its_dump() -> None:
    assert [dump.stem for dump in DUMPS] == [f"schema_v{n}" for n in range(1, len(MIGRATIONS) + 1)]


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.stem)
@pytest.mark.parametrize("write", [True, False])
def test_store_of_a_released_version_opens(dump: Path, tmp_path: Path, write: bool) -> None:
    with open_store(str(restored(dump, tmp_path / "a.db")), write=write) as store:
        assert store.get_study("digits-adamw").spec == spec()
        assert store.latest() == ["digits-adam", "digits-adamw"]
        assert store.trials("digits-adamw", curves=True) == [
            complete(Cell(0.1, 0.001)),
            Trial(Cell(0.1, 0.001), 1, Status.DIVERGED, curves={"val_loss": (2.3,)}, detail="epoch 2"),
            Trial(Cell(0.01, 0.0), 0, Status.FAILED, detail="no memory"),
        ]


@pytest.mark.parametrize("dump", DUMPS[:2], ids=lambda dump: dump.stem)
class TestBackup:
    """Before a store is migrated it is kept as it was."""

    def test_migrated_store_is_kept_as_it_was(
        self, dump: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path, old = restored(dump, tmp_path / "a.db"), int(dump.stem[-1])
        before = content(path)
        with open_store(str(path), write=True) as store:
            assert store.get_study("digits-adamw").version == ""
            store.begin_study("digits-adamw", spec(seeds=3))
        kept = tmp_path / f"a.db.schema{old}.backup"
        assert content(kept) == before
        (note,) = caplog.messages
        assert f"from schema {old} to {len(MIGRATIONS)}; a backup of the old one is '{kept}'" in note
        open_store(str(path), write=True).close()
        assert sorted(tmp_path.iterdir()) == [path, kept]

    def test_a_backup_that_is_there_is_never_overwritten(self, dump: Path, tmp_path: Path) -> None:
        path, old = restored(dump, tmp_path / "a.db"), int(dump.stem[-1])
        first = tmp_path / f"a.db.schema{old}.backup"
        first.write_text("mine")
        before = content(path)
        open_store(str(path), write=True).close()
        assert first.read_text() == "mine"
        assert content(tmp_path / f"a.db.schema{old}.backup2") == before

    def test_reading_leaves_no_backup(self, dump: Path, tmp_path: Path) -> None:
        path = restored(dump, tmp_path / "a.db")
        open_store(str(path), write=False).close()
        assert list(tmp_path.iterdir()) == [path]

    def test_damaged_store_is_not_migrated(self, dump: Path, tmp_path: Path) -> None:
        path = restored(dump, tmp_path / "a.db")
        connection = sqlite3.connect(path)
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'curves'").fetchone()
        connection.close()
        damaged = bytearray(path.read_bytes())
        damaged[(page - 1) * 4096 + 4] ^= 1  # one row fewer, or more
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="is damaged; restore it from a copy"):
            open_store(str(path), write=True)
        assert path.read_bytes() == damaged
        assert list(tmp_path.iterdir()) == [path]


def content(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    dump = list(connection.iterdump())
    connection.close()
    return dump


def test_migrations_make_the_tables_of_the_code() -> None:
    made, declared = create_engine("sqlite://"), create_engine("sqlite://")
    with made.begin() as connection:
        migrate(connection)
    Base.metadata.create_all(declared)
    ours, theirs = inspect(made), inspect(declared)
    assert set(ours.get_table_names()) - {"lrwd_sweep_schema"} == set(theirs.get_table_names())
    for table in theirs.get_table_names():
        for ask in ("get_columns", "get_pk_constraint", "get_foreign_keys"):
            assert repr(getattr(ours, ask)(table)) == repr(getattr(theirs, ask)(table))
        for ask in ("get_unique_constraints", "get_check_constraints"):
            found, wanted = (sorted(map(repr, getattr(side, ask)(table))) for side in (ours, theirs))
            assert found == wanted
    made.dispose()
    declared.dispose()


class TestNextVersion:
    """A store of today under a program of tomorrow, and the other way round."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return restored(DUMPS[-1], tmp_path / "a.db")

    def test_writing_migrates_the_file_once(self, path: Path) -> None:
        with added(add_note):
            for _ in range(2):
                with open_store(str(path), write=True) as store:
                    assert len(store.trials("digits-adamw", curves=True)) == 3
        assert columns(path)[-1] == "note"

    def test_reading_leaves_the_file_at_its_version(self, path: Path) -> None:
        before = path.read_bytes()
        with added(add_note), open_store(str(path), write=False) as store:
            assert len(store.trials("digits-adamw", curves=True)) == 3
            with store._reading() as session:
                notes = session.connection().exec_driver_sql("SELECT note FROM trials").scalars().all()
        assert notes == ["none"] * 3
        assert path.read_bytes() == before

    def test_failed_migration_leaves_the_file_at_its_version(self, path: Path) -> None:
        def broken(connection: Connection) -> None:
            add_note(connection)
            connection.exec_driver_sql("DROP TABLE no_such_table")

        with added(broken), pytest.raises(StoreError, match="no such table"):
            open_store(str(path), write=True)
        assert "note" not in columns(path)

    @pytest.mark.parametrize("write", [True, False])
    def test_newer_schema_is_refused_politely(self, path: Path, write: bool) -> None:
        with added(add_note):
            newer = len(MIGRATIONS)
            open_store(str(path), write=True).close()
        before = path.read_bytes()
        with pytest.raises(StoreError) as error:
            open_store(str(path), write=write)
        assert f"has schema version {newer} of a newer lrwd-sweep" in str(error.value)
        assert "upgrade lrwd-sweep" in str(error.value)
        assert path.read_bytes() == before
