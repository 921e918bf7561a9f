"""Every row of the guide on interruptions has a test; here are those of disk, locks, memory and place."""

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
from lrwd_sweep.cli.docs import FOLDER
from lrwd_sweep.store import Store, database, open_store
from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Run, assert_refused
from tests.faults import assert_finished, assert_told, stored

NAME = "x"
COMMAND = (
    *("grid", "--lr", "2^-8:2^-7", "--wd", "2^-8:2^-7", "--seeds", "1", "--epochs", "2"),
    *("--max-lanes", "1", "-q", "--study-name", NAME),
)


TESTS = """of every event in the guide
Ctrl-C, `kill`, the terminal closes | stopped_packs_continue_where_they_were
the same before or after training | a_signal_ends_every_phase_by_one_line
a second signal | a_second_signal_ends_training_at_once
Ctrl-Z, then `fg` | ctrl_z_stops_training_and_gives_the_terminal_back_until_fg
`kill -9`, a power cut | killed_sweep_goes_on_and_ends_with_the_same_bits
`kill -9`, a power cut | no_system_call_loses_anything_when_it_is_the_last_or_fails
a process that trains lanes is killed | lost_packs_are_trained_again_in_halves
a process that trains lanes is killed | a_process_that_ends_loses_only_its_own_pack
a process that runs `--run` commands is killed | no_process_outlives_a_killed_or_interrupted_driver
the disk is full | full_disk_ends_in_one_line_and_the_command_goes_on
the store is deleted, renamed or replaced | results_of_a_deleted_store_are_kept_and_merged
the store is deleted, renamed or replaced | all_trials_of_a_store_that_is_gone_are_kept_beside_it
the store or its folder is read-only | file_permissions_are_explained
another program locks the store | lock_is_waited_for_and_refused_when_it_stays
another program locks the store | pack_that_cannot_be_stored_is_kept_beside_the_store
the store is damaged | damaged_lanes_are_refused_until_they_are_trained_again
the store is damaged | damaged_bytes_are_never_read_as_other_values
the store is on a network file system | network_file_systems_are_named_once
a checkpoint is damaged | damaged_checkpoint_is_not_used
checkpoints of another machine or version | damaged_checkpoint_is_not_used
the same study is trained twice at once | study_has_one_driver
the process that trained a study is dead | study_has_one_driver
the limit of memory (`ulimit -v`) is too low | memory_limit_and_a_deleted_directory_are_named
the current directory is deleted | memory_limit_and_a_deleted_directory_are_named"""


def test_every_row_of_the_guide_has_a_test() -> None:
    page = (FOLDER / "interruptions.md").read_text(encoding="utf-8")
    _, _, *rows = (line for line in page.splitlines() if line.startswith("|"))
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    assert all(len(row) == 4 and all(row) for row in cells)
    tested = [line.split(" | ") for line in TESTS.splitlines()[1:]]
    assert [row[0] for row in cells] == list(dict.fromkeys(event for event, _ in tested))
    files = Path(__file__).parents[1].rglob("test_*.py")
    known = {name for file in files for name in re.findall(r"def test_(\w+)", file.read_text("utf-8"))}
    assert {name for _, name in tested} <= known


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
