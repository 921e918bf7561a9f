"""Every row of the guide on interruptions has a test; here are those of disk, locks, memory and damage."""

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.cli.docs import FOLDER
from lrwd_sweep.store import Store, database
from lrwd_sweep.store.database import Inaccessible
from tests import faults
from tests.cli import conftest
from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Patch, Run, assert_holds, assert_refused, strict
from tests.faults import CALLS, Stored, assert_finished, assert_told, stored
from tests.refusal import assert_raises
from tests.report.view import schema
from tests.store.sample import execute, rewrite_spec
from tests.store.test_migrations import DUMPS, restored

NAME = "x"
SWEEP = "grid --lr 2^-8:2^-7 --wd 2^-8:2^-7 --seeds 1 --epochs 2 --max-lanes 1 -q"
COMMAND = (*SWEEP.split(), "--study-name", NAME)

TESTS = """of every event in the guide one
Ctrl-C, `kill`, the terminal closes | stopped_packs_continue_where_they_were
the same before or after training | a_signal_ends_every_phase_by_one_line_and_a_second_one_at_once
a second signal | a_signal_ends_every_phase_by_one_line_and_a_second_one_at_once
Ctrl-Z, then `fg` | ctrl_z_stops_training_and_gives_the_terminal_back_until_fg
`kill -9`, a power cut | killed_sweep_goes_on_and_ends_with_the_same_bits
a process that trains lanes is killed | lost_packs_are_trained_again_in_halves
a process that runs `--run` commands is killed | no_process_outlives_a_killed_or_interrupted_driver
the disk is full | full_disk_ends_in_one_line_and_the_command_goes_on
the store is deleted, renamed or replaced | results_of_a_deleted_store_are_kept_and_merged
the store or its folder is read-only | file_permissions_are_explained
another program locks the store | lock_is_waited_for_and_refused_when_it_stays
the store is damaged | damaged_lanes_are_refused_until_trained_again_and_hide_nothing
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
    assert [row[0] for row in cells] == [event for event, _ in tested]
    files = Path(__file__).parents[1].rglob("test_*.py")
    known = {name for file in files for name in re.findall(r"def test_(\w+)", file.read_text("utf-8"))}
    assert {name for _, name in tested} <= known


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored(conftest.trained(tmp_path_factory.mktemp("whole"), *COMMAND), NAME)


def test_full_disk_ends_in_one_line_and_the_command_goes_on(run: Run, whole: Stored) -> None:
    folder = Path("disk").resolve()
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a disk in memory is not allowed here")
    command = (*COMMAND, "--storage", str(folder / STORE), "--checkpoint-every", "0.0001")
    filler = folder / "filler"
    try:
        for free in (8, 44, 52):  # KiB: no store; no lane; some lanes
            filler.write_bytes(bytes((8192 - free) << 10))
            found = run(*command)
            assert_told(found.code, found.err, 3)
            remedy = "the disk is full; free space, then repeat the command to continue"
            assert found.err.splitlines()[-1].endswith(remedy)
            filler.unlink()
        run(*command, code=0)
        assert_finished(folder / STORE, NAME, whole)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


GONE: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("renamed.db")),
    "replaced by another": lambda path: restored(DUMPS[-1], path.with_name("other.db")).replace(path),
    "replaced by nothing": lambda path: Path(shutil.copy(os.devnull, f"{path}.new")).replace(path),
    "replaced by itself": lambda path: Path(shutil.copy(path, f"{path}.new")).replace(path),
}


@pytest.mark.parametrize("fault", GONE)
def test_results_of_a_deleted_store_are_kept_and_merged(
    run: Run, monkeypatch: Patch, whole: Stored, fault: str
) -> None:
    add, path, there = Store.add_trials, Path(STORE), list[bytes | bool]()

    def add_trials(store: Store, *given: Any, **named: Any) -> Any:
        if there or not store.count_lanes(NAME):
            return add(store, *given, **named)
        GONE[fault](path)
        there.append(path.exists() and path.read_bytes())
        try:
            return add(store, *given, **named)
        finally:
            assert_raises("was deleted, renamed or replaced", store.trials, NAME, error=Inaccessible)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add_trials", add_trials)
        found = run(*COMMAND)
    assert_refused(found, 3, "was deleted, renamed or replaced while it was open")
    assert [path.exists() and path.read_bytes()] == there, "no new store is made"
    program, *merge = shlex.split(found.err.partition("results are kept: ")[2])
    assert (program, run(*merge).code) == ("lrwd-sweep", 0)
    assert len(stored(path, NAME)) == 2
    run(*COMMAND, code=0)
    Path(merge[-1]).unlink()
    assert_finished(path, NAME, whole)


def test_lock_is_waited_for_and_refused_when_it_stays(run: Run, monkeypatch: Patch, whole: Stored) -> None:
    run(*COMMAND, "--lr", "2^-8", code=0)
    with closing(sqlite3.connect(STORE, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
        assert_refused(run(*COMMAND), 3, "is locked by another process; wait")
        monkeypatch.setattr(database, "BUSY_SECONDS", 30.0)
        threading.Timer(1, other.execute, ("COMMIT",)).start()
        run(*COMMAND, code=0)
    assert_finished(Path(STORE), NAME, whole)


def test_memory_limit_and_a_deleted_directory_are_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    for shell, words in (
        ("ulimit -v 800000", "free memory, or raise the limit (ulimit -v)"),
        (f"rm -r {shlex.quote(str(gone))}", "the current directory was deleted"),
    ):
        command = ["sh", "-c", f"{shell}; {shlex.join([*conftest.PROGRAM, *COMMAND])}"]
        found = subprocess.run(command, cwd=gone, capture_output=True, text=True, check=False)
        assert_told(found.returncode, found.stderr, 3)
        assert re.fullmatch(rf"lrwd-sweep: .*{re.escape(words)}.*\n", found.stderr), found.stderr


LANES_LOST = "UPDATE trials SET metrics = '{\"val_loss\": 0.5}' WHERE id IN (11, 12)"


def test_damaged_lanes_are_refused_until_trained_again_and_hide_nothing(run: Run, compared: Path) -> None:
    whole, before = compared.read_bytes(), run(f"study export {ADAMW}").out
    execute(compared, LANES_LOST)
    grid = f"grid {shlex.join(TINY)}"
    for command in ("report", f"report {ADAMW}", f"study show {ADAMW}", f"study export {ADAMW}", grid):
        found = run(command)
        lines = 1 + (command is grid)  # which says first what it trains
        assert (found.code, found.out, found.err.count("\n")) == (3, "", lines)
        assert re.search(r"lane lr \S+, weight_decay \S+, seed 0, and 1 more, are not what", found.err)
        assert_holds(found.err, "--retrain-damaged", f"lrwd-sweep study delete '{ADAMW}'")
    run(f"report {ADAM}", code=0)
    found = run("compare", "adam", "adamw", *TINY, "--retrain-damaged", code=0)
    missing = "7 of 9 lanes are in the store; training the 2 that are missing"
    assert_holds(found.err, f"{ADAMW}: dropped 2 damaged lanes\n", missing)
    assert run(f"study export {ADAMW}").out == before
    assert "damaged" not in run(f"{grid} --retrain-damaged").err
    compared.write_bytes(whole)
    rewrite_spec(compared, ADAMW, lambda found: found["training"].update(data="folder:/no/where"))
    unreadable, reason = compared.read_bytes(), "the sizes of folder:/no/where are not stored"
    assert_refused(run("report"), 3, f"study '{ADAMW}' has a specification", "name another study")
    for content, damage, code, word, text in (
        (whole, LANES_LOST, 3, "damaged", "not what was stored"),
        (unreadable, "SELECT 1", 0, "unreadable", reason),
    ):
        compared.write_bytes(content)
        execute(compared, damage)
        found, table = run("study list --format json", code=code), run("study list")
        document = strict(found.out)
        assert schema.faults(document, "study_list") == []
        first, second = document["studies"]
        assert (first["counts"]["complete"], "unreadable" in first) == (9, False)
        assert (second["study_name"], second["counts"]["cells"]) == (ADAMW, 0)
        assert text in second["unreadable"]
        assert (ADAM in table.out, word in table.out, second["unreadable"] in table.err) == (True,) * 3
        run(f"report {ADAM}", code=0)
        assert run(f"study delete {ADAMW} --yes").err == f"deleted {ADAMW} with 9 lanes\n"


def test_report_of_older_studies_says_once_why_numbers_differ(run: Run, compared: Path) -> None:
    assert "earlier" not in run(f"report {ADAM}").err
    path = restored(DUMPS[1], compared)
    losses = {(0.01, 0.0): 0.2, (0.01, 0.001): 0.1, (0.1, 0.0): 2.2, (0.1, 0.001): 2.4}  # ln 10 = 2.303
    rows = [
        f"""({study}, {lr}, {wd}, {seed}, 'complete', '{{"val_loss": {loss + seed / 100}}}', '')"""
        for study, ((lr, wd), loss), seed in product((1, 2), losses.items(), (0, 1))
    ]
    insert = "INSERT INTO trials (study_id, lr, weight_decay, seed, status, metrics, detail) VALUES "
    execute(path, "DELETE FROM trials", insert + ", ".join(rows))
    found = run("report digits-adam digits-adamw", code=0)
    assert found.err.count("begun by an earlier lrwd-sweep") == 1
    said = " ".join(found.err.replace("lrwd-sweep: ", "").split())
    assert_holds(said, "digits-adam, digits-adamw: begun by", "2 cells with a loss above chance count")
    execute(path, """UPDATE trials SET metrics = '{"val_error": 0.2}'""")
    found = run("report digits-adam --metric val_error")
    assert ("begun by an earlier lrwd-sweep" in found.err, "above chance" in found.err) == (True, False)


def points(counts: dict[tuple[str, str], int]) -> list[tuple[str, int, str]]:
    """Return calls, their numbers in a thread and what is done to them: kills, then errors; a third stays."""
    most = {call: max(n for (_, c), n in counts.items() if c == call) for call in CALLS}
    every = [(call, k) for call in CALLS for k in range(1, most[call] + 1)]

    def sample(count: int) -> list[tuple[str, int]]:
        return [every[k * len(every) // count] for k in range(min(count, len(every)))]

    kills, errors = [(*call, "signal=KILL") for call in sample(150)], ("ENOSPC", "ENOSPC", "EIO", "EIO")
    chosen = enumerate(sample(60))
    return kills + [(*call, f"error={errors[n % 4]}{'+' * (n % 3 == 0)}") for n, call in chosen]


TRACE = ("strace", "-qq", "-o", "/dev/null", "true")
CANNOT = shutil.which("strace") is None or subprocess.run(TRACE, check=False).returncode != 0


@pytest.mark.slow
@pytest.mark.skipif(CANNOT, reason="strace is missing, or may not trace processes here")
def test_no_system_call_loses_anything_when_it_is_the_last_or_fails(tmp_path: Path) -> None:
    store, lanes, pack = tmp_path / STORE, 6, 2
    sweep = f"grid --lr 2^-8:2^-7 --wd 2^-8:2^-6 --epochs 20 --seeds 1 -q --max-lanes {pack}"
    command = (*sweep.split(), "--study-name", NAME, "--checkpoint-every", "0.02")

    def rescued() -> list[Path]:
        return list(tmp_path.glob(f"{STORE}.rescue-*"))

    violations, seen = [], Counter[str]()
    with faults.Commands(tmp_path) as commands:
        code, err, acknowledged = commands.run(*command, strace=("-e", f"trace={','.join(CALLS)}"))
        assert (code, acknowledged) == (0, lanes), err
        whole = stored(store, NAME)
        counts = faults.counted_calls(tmp_path / "trace")
        for call, number, fault in points(counts):
            for file in (store, *rescued()):
                file.unlink(missing_ok=True)
            shutil.rmtree(f"{store}.packs", ignore_errors=True)
            what = fault.removesuffix("+")
            rule = f"inject={call}:{what}:when={number}{fault.removeprefix(what)}"
            code, err, acknowledged = commands.run(*command, strace=("-e", f"trace={call}", "-e", rule))
            try:
                if fault != "signal=KILL":
                    assert_told(code, err, 0, 3)
                seen[fault] += code == -9 or "INJECTED" in (tmp_path / "trace").read_text()
                for rescue in rescued():
                    if rescue.suffix == ".db" and rescue.name in err:
                        assert_told(*commands.run("study", "merge", STORE, rescue.name)[:2], 0)
                        seen["rescued"] += 1
                    elif rescue.suffix == ".db":  # what could not be deleted again
                        assert (call, fault[-1]) == ("unlink", "+"), f"I6: {err}"
                    rescue.unlink(missing_ok=True)
                seen["stored"] += faults.assert_kept(store, NAME, acknowledged, pack)
                code, err, _ = commands.run(*command)
                assert_told(code, err, 0)
                assert_finished(store, NAME, whole)
            except AssertionError as violation:
                violations.append((rule, str(violation).splitlines()[0]))
    assert violations == []
    assert seen["signal=KILL"] >= 125, seen
    assert sum(count for fault, count in seen.items() if fault.startswith("error")) >= 35, seen
