"""Where the store is, what opening it does, and what a person reads when that fails."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from lrwd_sweep.cli.options import option_text
from lrwd_sweep.errors import NothingToReport, StoreError
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.store import database, open_store
from lrwd_sweep.store.database import locate
from lrwd_sweep.store.schema import StudyRow
from tests.store.damage import execute
from tests.store.sample import lattice_trials, spec


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in an empty directory, with no store named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(database.VARIABLE, raising=False)


def filled(path: Path) -> Path:
    with open_store(str(path), write=True) as store:
        store.begin_study("a", spec())
        store.add_trials("a", lattice_trials(spec()))
    return path


def refusal(url: str | None, *, write: bool) -> str:
    """The one line with which opening is refused."""
    with pytest.raises(StoreError) as error:
        open_store(url, write=write)
    text = error.value.spelled(option_text)
    assert "\n" not in text
    return text


class TestPlace:
    """A store is named by a path, a URL, the environment, or not at all."""

    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("runs/a.db", "runs/a.db"),
            ("/runs/a.db", "/runs/a.db"),
            ("sqlite:///runs/a.db", "runs/a.db"),
            ("sqlite:////runs/a.db", "/runs/a.db"),
            ("sqlite+pysqlite:///a.db", "a.db"),
            ("~/a.db", str(Path("~/a.db").expanduser())),
        ],
    )
    def test_url_or_path_names_a_file(self, url: str, path: str) -> None:
        assert locate(url) == Path(path)

    def test_environment_stands_behind_the_option_and_before_the_default(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert locate(None) == Path("lrwd-sweep.db")
        monkeypatch.setenv("LRWD_STORAGE", "sqlite:///env.db")
        assert (locate(None), locate("a.db")) == (Path("env.db"), Path("a.db"))
        monkeypatch.setenv("LRWD_STORAGE", "")
        assert locate(None) == Path("lrwd-sweep.db")

    @pytest.mark.parametrize("url", ["", " ", ":memory:", "sqlite://", "sqlite:///", "sqlite:///:memory:"])
    def test_storage_that_names_no_file_is_refused(self, url: str) -> None:
        assert "write" in refusal(url, write=True)

    @pytest.mark.parametrize("url", ["sqlite://a.db", "sqlite:///a.db?mode=ro", "sqlite://[/a.db"])
    def test_url_that_is_no_plain_file_is_refused(self, url: str) -> None:
        assert "sqlite:///FILE.db" in refusal(url, write=True)

    def test_other_scheme_is_refused(self) -> None:
        text = refusal("postgresql://host/db", write=True)
        assert "'postgresql' is not known; write sqlite:///FILE.db" in text

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://jane:hunter2@host/db",
            "mysql+pymysql://jane:hunter2@host:3306/db?charset=utf8",
            "postgresql://jane:hun/ter2@host/db",
            "postgresql:/jane:hunter2@host/db",
            "postgresql:jane:hunter2@host/db",
            "postgresql:\\\\jane:hunter2@host/db",
            "postgres:///db?user=jane&password=hunter2",
            "jdbc:postgresql://host/db?user=jane&password=hunter2",
            "sqlite://jane:hunter2@host/a.db",
            "sqlite://jane:hunter2@/a.db",
            "sqlite:///jane:hunter2@host/a.db",
            "sqlite:////jane:hunter2@host/a.db",
            "sqlite:/jane:hunter2@host/a.db",
            "sqlite://jane:hunter2@host:port/a.db",
            "sqlite://[jane:hunter2@host/a.db",
            "sqlite:///a.db?password=hunter2",
            "a.db?password=hunter2",
            "host=h user=jane password=hunter2",
            "jane:hunter2@host/db",
            "//jane:hunter2@host/db",
            "://jane:hunter2@host/db",
            "jane:hunter2://host/db",
            " 'postgresql://jane:hunter2@host/db'",
            "postgresql%3A%2F%2Fjane%3Ahunter2%40host%2Fdb",
            "postgresql%253A%252F%252Fjane%253Ahunter2%2540host",
            "jane%3Ahunter2%40host",
            "jane/hunter2@host:1521/db",
            "file:a.db?key=hunter2",
            "libsql:a.db?authToken=hunter2",
        ],
    )
    def test_user_and_password_of_a_url_are_never_shown(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(database.VARIABLE, url)
        for given, name in ((url, "--storage"), (None, database.VARIABLE), (str(Path(url)), "--storage")):
            for write in (True, False):
                text = refusal(given, write=write)
                assert "jane" not in text
                assert "hun" not in text
                assert "write sqlite:///FILE.db" in text
                assert name in text or "scheme" in text
        assert not list(tmp_path.iterdir())

    def test_a_url_without_its_colon_is_not_shown(self) -> None:
        text = refusal("postgres//jane:hunter2@host/db", write=True)
        assert "hunter2" not in text

    @pytest.mark.parametrize("path", ["runs/user=me/a.db", "me@host/a.db", "runs/a:b@c.db", "C:/runs/a.db"])
    def test_path_that_only_looks_like_a_url_is_a_path(self, path: str) -> None:
        assert locate(path) == Path(path)

    def test_odd_file_names_are_taken_as_they_are(self, tmp_path: Path) -> None:
        path = tmp_path / "a?b #1 100%41&x=y.db"
        filled(path)
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        with open_store(path.name, write=False) as store:
            assert len(store.trials("a")) == 8


class TestReading:
    """Reading creates nothing and changes nothing."""

    @pytest.mark.parametrize("variable", [None, "b.db"])
    def test_missing_file_is_not_created(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
    ) -> None:
        if variable is None:
            with pytest.raises(NothingToReport, match=r"there is no lrwd-sweep\.db here yet; run lrwd-sweep"):
                open_store(None, write=False)
        else:
            monkeypatch.setenv("LRWD_STORAGE", variable)
            assert "'b.db' does not exist" in refusal(None, write=False)
        assert "'a.db' does not exist" in refusal("a.db", write=False)
        assert not list(tmp_path.iterdir())

    def test_empty_file_holds_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a.db").touch()
        with pytest.raises(NothingToReport, match=r"'a\.db' is empty"):
            open_store("a.db", write=False)
        assert (tmp_path / "a.db").stat().st_size == 0

    def test_reading_leaves_the_bytes_as_they_are(self, tmp_path: Path) -> None:
        path = filled(tmp_path / "a.db")
        before = path.read_bytes()
        with open_store("a.db", write=False) as store:
            store.trials("a", curves=True), store.studies(), store.latest()
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.db"]

    def test_store_opened_for_reading_refuses_to_write(self, tmp_path: Path) -> None:
        filled(tmp_path / "a.db")
        with open_store("a.db", write=False) as store, pytest.raises(StoreError, match="cannot be written"):
            store.delete_study("a")

    def test_directory_named_as_store(self, tmp_path: Path) -> None:
        assert "is a directory; name a file in it" in refusal(str(tmp_path), write=False)


class TestFailure:
    """Each is one line with the file and the remedy."""

    @pytest.mark.parametrize("write", [True, False])
    def test_missing_directory(self, tmp_path: Path, write: bool) -> None:
        assert "there is no directory 'runs'; create it first" in refusal("runs/a.db", write=write)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("write", [True, False])
    def test_file_that_is_no_database(self, tmp_path: Path, write: bool) -> None:
        (tmp_path / "a.db").write_text("lr,weight_decay,seed,value\n" * 50)
        assert "'a.db' is not an SQLite database; choose another file" in refusal("a.db", write=write)

    @pytest.mark.parametrize("write", [True, False])
    def test_database_of_another_program(self, tmp_path: Path, write: bool) -> None:
        with sqlite3.connect(tmp_path / "a.db") as other:
            other.execute("CREATE TABLE trials (id INTEGER)")
        other.close()
        before = (tmp_path / "a.db").read_bytes()
        assert "'a.db' is the database of another program" in refusal("a.db", write=write)
        assert (tmp_path / "a.db").read_bytes() == before

    def test_damaged_database(self, tmp_path: Path) -> None:
        path = filled(tmp_path / "a.db")
        content = path.read_bytes()
        path.write_bytes(content[:100] + bytes(len(content) - 100))
        assert "'a.db' is damaged" in refusal("a.db", write=False)

    def test_locked_database(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        filled(tmp_path / "a.db")
        monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
        other = sqlite3.connect(tmp_path / "a.db")
        other.execute("BEGIN IMMEDIATE")
        assert "'a.db' is locked by another process" in refusal("a.db", write=True)
        with open_store("a.db", write=False) as reader:  # a writer that has not committed disturbs no reader
            assert len(reader.trials("a")) == 8
        other.close()


class TestPragmas:
    """Durable, and readable anywhere."""

    @pytest.mark.parametrize(
        ("pragma", "value"),
        [("journal_mode", "delete"), ("synchronous", 3), ("foreign_keys", 1), ("busy_timeout", 30_000)],
    )
    def test_writing_connection(self, pragma: str, value: object) -> None:
        with open_store("a.db", write=True) as store, store._writing() as session:
            assert session.connection().exec_driver_sql(f"PRAGMA {pragma}").scalar() == value

    def test_write_takes_its_lock_before_it_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
        with open_store("a.db", write=True) as store, open_store("a.db", write=True) as other:
            with store._writing() as first:
                assert first.scalar(select(StudyRow.id)) is None  # reads only, so far
                with pytest.raises(StoreError, match="is locked"):
                    other.begin_study("a", spec())
            other.begin_study("a", spec())


NOBODY = 65534


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that any user can enter; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
class TestPermissions:
    """What the file system forbids; root, whom it forbids nothing, opens as another user."""

    def opened(self, path: Path, *, write: bool) -> str:
        """What opening `path` as an ordinary user says: the number of trials, or the refusal."""
        code = (
            "import os, sys, tempfile; from lrwd_sweep.store import open_store\n"
            "if os.geteuid() == 0:\n"
            # Another user may not even read this Python: all modules are loaded while we still may.
            "    with tempfile.TemporaryDirectory() as warm: open_store(warm + '/a.db', write=True).close()\n"
            f"    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            "try:\n"
            f"    with open_store(sys.argv[1], write={write}) as store: print(len(store.trials('a')))\n"
            "except Exception as error: print(error)"
        )
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.strip()

    def test_read_only_file_in_a_read_only_directory_is_read(self, open_directory: Path) -> None:
        path = filled(open_directory / "a.db")
        path.chmod(0o444)
        open_directory.chmod(0o555)
        assert self.opened(path, write=False) == "8"

    def test_read_only_file_is_not_opened_for_writing(self, open_directory: Path) -> None:
        path = filled(open_directory / "a.db")
        path.chmod(0o444)
        open_directory.chmod(0o777)
        assert "cannot be written; make it writable" in self.opened(path, write=True)

    def test_file_in_a_read_only_directory_is_not_opened_for_writing(self, open_directory: Path) -> None:
        path = filled(open_directory / "a.db")
        path.chmod(0o666)
        open_directory.chmod(0o555)
        assert "its directory cannot be written" in self.opened(path, write=True)

    def test_file_that_may_not_be_read(self, open_directory: Path) -> None:
        path = filled(open_directory / "a.db")
        path.chmod(0o000)
        assert "cannot be opened; check its permissions" in self.opened(path, write=False)

    def test_half_written_store_that_cannot_be_undone_is_not_read(self, open_directory: Path) -> None:
        path = filled(open_directory / "source.db")
        writer = sqlite3.connect(path)
        writer.execute("PRAGMA cache_size = 1")  # changed pages reach the file before the commit
        writer.execute("UPDATE trials SET detail = hex(randomblob(3000))")
        for end in ("", "-journal"):
            shutil.copy(f"{path}{end}", open_directory / f"copy.db{end}")
            (open_directory / f"copy.db{end}").chmod(0o444)
        writer.close()
        open_directory.chmod(0o555)
        said = self.opened(open_directory / "copy.db", write=False)
        assert "holds an interrupted write; open it once where it can be written" in said


def test_store_without_its_version_is_told_as_damaged(tmp_path: Path) -> None:
    path = filled(tmp_path / "damaged.db")
    execute(path, "DELETE FROM lrwd_sweep_schema")
    assert "is damaged; restore it" in refusal(str(path), write=False)


def test_link_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.db").symlink_to("loop.db")
    assert "is a link to itself" in refusal("loop.db", write=True)


def test_full_disk_is_told_though_undoing_fails_too(tmp_path: Path) -> None:
    path = tmp_path / "small.db"
    with open_store(str(path), write=True) as store:
        store.begin_study("a", spec())
        with store._writer.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        trials = [
            Trial(trial.cell, trial.seed, trial.status, trial.metrics, {"val_loss": (0.5,) * 10_000})
            for trial in lattice_trials(spec())
        ]
        with pytest.raises(StoreError, match="the disk is full; free space"):
            store.add_trials("a", trials)
