"""A store is found, opened, and refused in one line; processes share it, and die while they write."""

import os
import shutil
import signal
import sqlite3
import tempfile
import warnings
from contextlib import ExitStack, closing
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event

from lrwd_sweep.cli.options import option_text
from lrwd_sweep.errors import NothingToReport, StoreError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store import Store, database, open_store
from lrwd_sweep.store.database import locate, network_file_system
from tests.refusal import assert_raises
from tests.store.sample import complete, execute, filled, spec

SECRET_URLS = (  # one of a kind: a lost slash, another database, not a URL, a query, escaped
    *("postgresql:/jane:hunter2@host/db", "//jane:hunter2@host/db", "jane/hunter2@host:1521/db"),
    *("host=h password=hunter2", "jane:hunter2://host/db"),
    *("postgresql://jane:hun/ter2@host/db", "sqlite://[jane:hunter2@host/a.db", "jane:hunter2@host/db"),
    *("host=h user=jane password=hunter2", "a.db?password=hunter2", "file:a.db?key=hunter2"),
    *("postgresql%253A%252F%252Fjane%253Ahunter2%2540host", "postgresql:\\\\jane:hunter2@host/db"),
)


pytestmark = pytest.mark.usefixtures("folder")


def refusal(url: str | None, *, write: bool) -> str:
    with pytest.raises(StoreError) as error:
        open_store(url, write=write)
    text = error.value.spelled(option_text)
    assert "\n" not in text
    return text


def test_store_is_named_by_option_environment_or_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("runs/a.db", "/runs/a.db", "runs/a:b@c.db", "C:/runs/a.db"):  # two only look like URLs
        assert locate(path) == Path(path)
    for url, named in (("///runs/a.db", "runs/a.db"), ("////runs/a.db", "/runs/a.db")):
        assert locate(f"sqlite:{url}") == Path(named)
    assert locate("~/a.db") == Path("~/a.db").expanduser()
    assert locate(None) == Path("lrwd-sweep.db")
    monkeypatch.setenv(database.VARIABLE, "sqlite:///env.db")
    assert (locate(None), locate("a.db")) == (Path("env.db"), Path("a.db"))
    monkeypatch.setenv(database.VARIABLE, "")
    assert locate(None) == Path("lrwd-sweep.db")
    for url in (" ", ":memory:", "sqlite:///", "sqlite:///a.db?mode=ro", "sqlite://[/a.db"):
        assert "write sqlite:///FILE.db" in refusal(url, write=True), url
    assert "'postgresql' is not known; write sqlite:///FILE.db" in refusal("postgresql://host/db", write=True)


def test_user_and_password_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in SECRET_URLS:
        monkeypatch.setenv(database.VARIABLE, url)
        for given, name in ((url, "--storage"), (None, database.VARIABLE), (str(Path(url)), "--storage")):
            text = refusal(given, write=True)
            assert not {"jane", "hun"} & {text[k : k + n] for k in range(len(text)) for n in (3, 4)}, url
            assert name in text or "scheme" in text, url
    assert not list(tmp_path.iterdir())


def test_reading_creates_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = r"there is no lrwd-sweep\.db here yet; run lrwd-sweep"
    assert_raises(none, open_store, error=NothingToReport, write=False)
    monkeypatch.setenv(database.VARIABLE, "b.db")
    assert "'b.db' does not exist" in refusal(None, write=False)
    assert not list(tmp_path.iterdir())
    path = filled(tmp_path / "a?b #1 100%41&x=y.db")  # a name that is used literally
    before = path.read_bytes()
    with open_store(path.name, write=False) as store:
        store.trials("a", curves=True), store.studies(), store.latest()
        assert_raises("cannot be written", store.delete_study, "a", error=StoreError)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]
    (tmp_path / "a.db").touch()
    assert_raises(r"'a\.db' is empty", open_store, "a.db", error=NothingToReport, write=False)


def test_wrong_files_are_refused_and_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("lr,weight_decay,seed,value\n" * 50)
    execute(tmp_path / "other.db", "CREATE TABLE trials (id INTEGER)")
    content = filled(tmp_path / "zeros.db").read_bytes()
    (tmp_path / "zeros.db").write_bytes(content[:100] + bytes(len(content) - 100))
    execute(filled(tmp_path / "unversioned.db"), "DELETE FROM lrwd_sweep_schema")
    (tmp_path / "link.db").symlink_to("link.db")
    (tmp_path / "folder").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.glob("*.db") if path.is_file()}
    for name, text in (
        ("text.db", "'text.db' is not an SQLite database; choose another file"),
        ("other.db", "'other.db' is the database of another program"),
        *(("zeros.db", "'zeros.db' is damaged"), ("unversioned.db", "is damaged; restore it")),
        *(("link.db", "is a link to itself"), ("folder", "is a directory; name a file in it")),
        ("runs/a.db", "there is no directory 'runs'; create it first"),
    ):
        for write in (True, False):
            assert text in refusal(name, write=write), name
    assert {path: path.read_bytes() for path in tmp_path.glob("*.db") if path.is_file()} == before


def test_full_disk_is_named_even_if_the_rollback_fails() -> None:
    with open_store(str(filled(Path("small.db"))), write=True) as store:
        with store._writer.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        large = Trial(Cell(1, 1), 0, Status.COMPLETE, {"val_loss": 0.5}, {"val_loss": (0.5,) * 100_000})
        assert_raises("the disk is full; free space", store.add_trials, "a", [large], error=StoreError)


def test_writing_is_durable_and_takes_its_lock_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store("a.db", write=True) as store, store._writing() as connection:
        asked = {"journal_mode": "delete", "synchronous": 3, "foreign_keys": 1, "busy_timeout": 30_000}
        assert {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked} == asked
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    with open_store("a.db", write=True) as store, open_store("a.db", write=True) as other:
        with store._writing() as first:
            assert first.exec_driver_sql("SELECT id FROM studies").all() == []  # reads only, so far
            assert_raises("is locked", other.begin_study, "a", spec(), error=StoreError)
            assert "'a.db' is locked by another process" in refusal("a.db", write=True)
            with open_store("a.db", write=False) as reader:
                assert reader.studies() == []
        other.begin_study("a", spec())


MOUNTS = """\
22 1 0:1 / / rw,relatime - ext4 /dev/vda rw
23 22 0:2 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
24 23 0:3 / /home/me/local rw - xfs /dev/sdb rw
25 22 0:4 / /mnt/a\\040b rw - fuse.sshfs me@host:/ rw
26 22 0:5 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw
27 22 0:6 / /scratch rw - ext4 /dev/sdc rw
"""


def test_network_file_systems_are_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    kinds = {"/": "", "/home/me": "nfs4", "/home/me/local": "", "/mnt/a b/c": "fuse.sshfs", "/scratch": ""}
    for path, kind in kinds.items():
        assert network_file_system(Path(path, "a.db"), mounts) == kind, path
    assert network_file_system(tmp_path, tmp_path / "none") == ""
    monkeypatch.setattr(database, "network_file_system", lambda path: "nfs4")
    for write in (True, False):
        open_store(str(tmp_path / "a.db"), write=write).close()
    (told,) = caplog.messages
    assert "a.db' lies on nfs4" in told


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_file_permissions_are_explained() -> None:
    cases = (  # mode of the file, mode of its directory, write, what is told
        (0o444, 0o555, False, "8"),
        (0o444, 0o777, True, "cannot be written; make it writable"),
        (0o666, 0o555, True, "its directory cannot be written"),
        (0o000, 0o755, False, "cannot be opened; check its permissions"),
        (0o444, 0o555, False, "holds an interrupted write; open it once where it can be written"),
    )
    with tempfile.TemporaryDirectory() as shared, ExitStack() as as_another_user:
        Path(shared).chmod(0o755)  # pytest's own are closed to others
        paths = [Path(shared, str(k), "a.db") for k in range(len(cases))]
        for path in paths:
            path.parent.mkdir()
            filled(path)
        with closing(sqlite3.connect(paths[0])) as writer:
            writer.execute("PRAGMA cache_size = 1")  # changed pages reach the file before the commit
            writer.execute("UPDATE trials SET detail = hex(randomblob(3000))")
            for end in ("", "-journal"):
                shutil.copy(f"{paths[0]}{end}", f"{paths[-1]}{end}")
                Path(f"{paths[-1]}{end}").chmod(0o444)
        for path, (mode, directory, _, _) in zip(paths, cases, strict=True):
            path.chmod(mode)
            path.parent.chmod(directory)
        if os.geteuid() == 0:  # root is forbidden nothing
            as_another_user.callback(os.setresuid, 0, 0, 0)
            os.setresuid(65534, 65534, 0)
        for path, (_, _, write, said) in zip(paths, cases, strict=True):
            if said == "8":
                with open_store(str(path), write=False) as store:
                    assert len(store.trials("a")) == 8
            else:
                assert said in refusal(str(path), write=write)


SPEC = spec(lr=(0.01, 0.02), weight_decay=(0.001, 0.002), seeds=10)
SPAWN = get_context("spawn")


def pack(number: int) -> list[Trial]:
    return [complete(cell, 10 * number + k, 0.5) for cell in SPEC.lattice.cells() for k in range(10)]


def write_five_packs(path: Path, number: int) -> None:
    warnings.simplefilter("error")
    with open_store(str(path), write=True) as store:
        store.begin_study("a", SPEC)
        for k in range(5):
            store.add_trials("a", pack(5 * number + k))


def die_between_trials_and_curves(path: Path) -> None:
    @event.listens_for(Engine, "begin")
    def tiny_cache(
        connection: Connection,
    ) -> None:  # as with a large pack, pages are written before the commit
        connection.exec_driver_sql("PRAGMA cache_size = 1")

    @event.listens_for(Engine, "after_cursor_execute")
    def die(connection: Connection, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO curves"):
            os.kill(os.getpid(), signal.SIGKILL)

    with open_store(str(path), write=True) as store:
        store.add_trials("a", pack(1))


def whole_packs(store: Store) -> int:
    """Count the packs in the store, after asserting that each has all its lanes and curves."""
    trials = store.trials("a", curves=True)
    numbers = {trial.seed // 10 for trial in trials}
    assert sorted(trials, key=repr) == sorted(chain(*map(pack, numbers)), key=repr)
    return len(numbers)


def test_two_processes_create_and_fill_one_store(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = folder / "a.db"
    writers = [SPAWN.Process(target=write_five_packs, args=(path, number)) for number in range(2)]
    for act in ("start", "join"):
        for writer in writers:
            getattr(writer, act)()
    assert ([writer.exitcode for writer in writers], capfd.readouterr()) == ([0, 0], ("", ""))
    with open_store(str(path), write=False) as store:
        assert whole_packs(store) == 10


def test_process_killed_within_a_transaction_leaves_the_packs_before(tmp_path: Path) -> None:
    path, journal = filled(tmp_path / "a.db", of=SPEC, trials=pack(0)), tmp_path / "a.db-journal"
    before = path.read_bytes()
    writer = SPAWN.Process(target=die_between_trials_and_curves, args=(path,))
    writer.start()
    writer.join()
    torn = path.read_bytes(), journal.read_bytes()
    assert (writer.exitcode, torn[0] != before, torn[1] != b"") == (-signal.SIGKILL, True, True)
    for write in (False, True):
        for file, content in zip((path, journal), torn, strict=True):
            file.write_bytes(content)
        with open_store(str(path), write=write) as store:
            assert whole_packs(store) == 1
            if write:
                store.add_trials("a", pack(1))
                assert whole_packs(store) == 2
