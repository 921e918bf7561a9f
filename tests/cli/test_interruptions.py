"""What a full disk, a store that is gone or locked, and short memory do to a command, as the guide says."""

import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.cli import app
from lrwd_sweep.store import Store, database, open_store
from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Run, assert_refused
from tests.faults import assert_finished, assert_told, stored

NAME = "x"
COMMAND = (
    *("grid", "--lr", "2^-8:2^-7", "--wd", "2^-8:2^-7", "--seeds", "1", "--epochs", "2"),
    *("--max-lanes", "1", "-q", "--study-name", NAME),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What an undisturbed run stores."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["lrwd-sweep", *COMMAND])
        assert app.run() == 0
    return stored(folder / STORE, NAME)


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a disk in memory; skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a disk in memory is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_ends_in_one_line_and_the_command_goes_on(run: Run, tmp_path: Path, whole: Any) -> None:
    folder = tmp_path / "disk"
    command = (*COMMAND, "--storage", str(folder / STORE), "--checkpoint-every", "0.0001")
    with disk(folder, "8m"):
        filler = folder / "filler"
        for free in (8, 44, 52):  # KiB: no store; no lane; some lanes
            filler.write_bytes(bytes((8192 - free) << 10))
            found = run(*command)
            assert_told(found.code, found.err, 3)
            assert found.err.splitlines()[-1].endswith(
                "the disk is full; free space, then repeat the command to continue"
            )
            filler.unlink()
        found = run(*command)
        assert found.code == 0, found.err
        assert_finished(folder / STORE, NAME, whole)


def test_results_of_a_deleted_store_are_kept_and_merged(
    run: Run, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    add, packs = Store.add_trials, []

    def add_trials(*given: Any, **named: Any) -> Any:
        packs.append(given)
        if len(packs) == 2:
            Path(STORE).unlink()
        return add(*given, **named)

    monkeypatch.setattr(Store, "add_trials", add_trials)
    found = run(*COMMAND)
    assert_refused(found, 3, "was deleted, renamed or replaced while it was open")
    assert not Path(STORE).exists()
    program, *merge = shlex.split(found.err.partition("results are kept: ")[2])
    assert (program, run(*merge).code) == ("lrwd-sweep", 0)
    assert len(stored(Path(STORE), NAME)) == 2
    again = run(*COMMAND)
    assert again.code == 0, again.err
    Path(merge[-1]).unlink()
    assert_finished(Path(STORE), NAME, whole)


def test_lock_is_waited_for_and_refused_when_it_stays(
    run: Run, monkeypatch: pytest.MonkeyPatch, whole: Any
) -> None:
    assert run(*COMMAND, "--lr", "2^-8").code == 0
    with closing(sqlite3.connect(STORE, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
        assert_refused(run(*COMMAND), 3, "is locked by another process; wait")
        monkeypatch.setattr(database, "BUSY_SECONDS", 30.0)
        threading.Timer(1, other.execute, ("COMMIT",)).start()
        found = run(*COMMAND)
    assert found.code == 0, found.err
    assert_finished(Path(STORE), NAME, whole)


def test_an_interrupted_comparison_is_reported_as_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lrwd_sweep.runner.runner.StudyLoop.grid", interrupted)
        assert run("compare", "adam", "adamw", *TINY).code == 130
    with open_store(STORE, write=False) as store:
        assert list(store.latest()) == [ADAM, ADAMW]


def test_memory_limit_and_a_deleted_directory_are_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"{shlex.quote(sys.executable)} -c 'from lrwd_sweep.cli import main; main()'"
    for shell, words in (
        ("ulimit -v 800000", "free memory, or raise the limit (ulimit -v)"),
        (f"rm -r {shlex.quote(str(gone))}", "the current directory was deleted"),
    ):
        command = ["sh", "-c", f"{shell}; {program} {shlex.join(COMMAND)}"]
        found = subprocess.run(command, cwd=gone, capture_output=True, text=True, check=False)
        assert_told(found.returncode, found.stderr, 3)
        assert re.fullmatch(rf"lrwd-sweep: .*{re.escape(words)}.*\n", found.stderr), found.stderr
