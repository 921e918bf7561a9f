"""Stores of every released schema open and are migrated with a backup."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

from lrwd_sweep.errors import StoreError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store import open_store
from lrwd_sweep.store.schema import MIGRATIONS
from tests.refusal import assert_raises
from tests.store.sample import complete, spec

DUMPS = sorted(Path(__file__).parent.glob("schema_v*.sql"))


def restored(dump: Path, path: Path) -> Path:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump.read_text())
    return path


def content(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_released_schemas_open_and_leave_a_backup(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert [dump.stem for dump in DUMPS] == [f"schema_v{n}" for n in range(1, len(MIGRATIONS) + 1)]
    trials = [
        complete(Cell(0.1, 0.001)),
        Trial(Cell(0.1, 0.001), 1, Status.DIVERGED, curves={"val_loss": (2.3,)}, detail="epoch 2"),
        Trial(Cell(0.01, 0.0), 0, Status.FAILED, detail="no memory"),
    ]
    for old, dump in enumerate(DUMPS, start=1):
        path = restored(dump, tmp_path / "a.db")
        before = content(path)
        first, second = (tmp_path / f"a.db.schema{old}.backup{end}" for end in ("", "2"))
        first.write_text("the user's")
        caplog.clear()
        for write in (False, True):
            with open_store(str(path), write=write) as store:
                found = store.get_study("digits-adamw")
                assert (found.spec, found.version) == (spec(), ""), dump
                assert store.latest() == ["digits-adam", "digits-adamw"]
                assert store.trials("digits-adamw", curves=True) == trials, dump
            assert write or {*tmp_path.iterdir()} == {path, first}, "reading makes no backup"
        with open_store(str(path), write=True) as store:  # it is migrated already
            store.begin_study("digits-adamw", spec(seeds=3))
        if dump != DUMPS[-1]:
            text = f"from schema {old} to {len(MIGRATIONS)}; a backup of the old one is '{second}'"
            assert [f"is migrated {text}" in message for message in caplog.messages] == [True]
            assert content(second) == before
            second.unlink()
        assert (first.read_text(), {*tmp_path.iterdir()}) == ("the user's", {path, first})
        first.unlink()


def test_damaged_store_is_not_migrated(tmp_path: Path) -> None:
    for dump in DUMPS[:-1]:
        path = restored(dump, tmp_path / "a.db")
        with closing(sqlite3.connect(path)) as connection:
            find = "SELECT rootpage FROM sqlite_master WHERE name = 'curves'"
            (page,) = connection.execute(find).fetchone()
        damaged = bytearray(path.read_bytes())
        damaged[(page - 1) * 4096 + 4] ^= 1  # one row fewer, or more
        path.write_bytes(damaged)
        line = "is damaged; restore it from a copy"
        assert_raises(line, open_store, str(path), error=StoreError, write=True)
        assert path.read_bytes() == damaged
        assert list(tmp_path.iterdir()) == [path]


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    path = restored(DUMPS[-1], tmp_path / "a.db")
    before = path.read_bytes()
    add_note = "ALTER TABLE trials ADD COLUMN note VARCHAR NOT NULL DEFAULT 'none'"

    def migrate_by(*statements: str) -> None:
        def step(connection: Connection) -> None:
            for statement in statements:
                connection.exec_driver_sql(statement)

        for module in ("schema", "database"):
            patch.setattr(f"lrwd_sweep.store.{module}.MIGRATIONS", [*MIGRATIONS, step])

    with pytest.MonkeyPatch.context() as patch:
        migrate_by(add_note, "DROP TABLE no_such_table")
        assert_raises("no such table", open_store, str(path), error=StoreError, write=True)
        assert "note" not in "".join(content(path))
        migrate_by(add_note)
        with open_store(str(path), write=False) as store, store._reading() as connection:
            notes = connection.exec_driver_sql("SELECT note FROM trials").scalars().all()
        assert (notes, path.read_bytes()) == (["none"] * 3, before), "read as a copy"
        with open_store(str(path), write=True) as store:
            assert len(store.trials("digits-adamw", curves=True)) == 3
    before = path.read_bytes()
    for write in (True, False):
        line = r"has schema version \d of a newer .*; upgrade lrwd-sweep"
        assert_raises(line, open_store, str(path), error=StoreError, write=write)
    assert path.read_bytes() == before
