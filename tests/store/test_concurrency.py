"""Real processes share a store, and die while they write to it."""

import signal
import subprocess
import sys
from pathlib import Path

from lrwd_sweep.science.trial import Trial
from lrwd_sweep.store import Store, open_store
from tests.store.sample import complete, spec

SPEC = spec(lr=(0.01, 0.02), weight_decay=(0.001, 0.002), seeds=10)

PREAMBLE = """
import os, signal, sys
from sqlalchemy import Engine, event
from lrwd_sweep.store import open_store
from tests.store.test_concurrency import SPEC, pack
path, number = sys.argv[1], int(sys.argv[2])
"""

WRITE_FIVE_PACKS = """
with open_store(path, write=True) as store:
    store.begin_study("a", SPEC)
    for k in range(5):
        store.add_trials("a", pack(5 * number + k))
"""

DIE_BETWEEN_TRIALS_AND_CURVES = """
@event.listens_for(Engine, "begin")
def tiny_cache(connection):  # as with a large pack, pages reach the file before the commit
    connection.exec_driver_sql("PRAGMA cache_size = 1")

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, *_):
    if statement.startswith("INSERT INTO curves"):
        os.kill(os.getpid(), signal.SIGKILL)

with open_store(path, write=True) as store:
    store.add_trials("a", pack(number))
"""


def pack(number: int) -> list[Trial]:
    """Return the lanes of a pack: all cells of SPEC with ten seeds of its own."""
    return [complete(cell, 10 * number + k, 0.5) for cell in SPEC.lattice.cells() for k in range(10)]


def child(code: str, path: Path, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", PREAMBLE + code, str(path), str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def whole_packs(store: Store) -> int:
    """Count the packs in the store, after asserting that each has all its lanes and curves."""
    trials = store.trials("a", curves=True)
    numbers = sorted({trial.seed // 10 for trial in trials})
    expected = [trial for number in numbers for trial in pack(number)]
    assert sorted(trials, key=lambda t: (t.seed, t.cell)) == sorted(expected, key=lambda t: (t.seed, t.cell))
    return len(numbers)


def test_two_processes_create_and_fill_one_store(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    writers = [child(WRITE_FIVE_PACKS, path, number) for number in range(2)]
    assert [writer.communicate() for writer in writers] == [("", ""), ("", "")]
    with open_store(str(path), write=False) as store:
        assert whole_packs(store) == 10


def test_process_killed_within_a_transaction_leaves_the_packs_before(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with open_store(str(path), write=True) as store:
        store.begin_study("a", SPEC)
        store.add_trials("a", pack(0))
    before = path.read_bytes()
    writer = child(DIE_BETWEEN_TRIALS_AND_CURVES, path, 1)
    writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    journal = path.with_name("a.db-journal")
    torn = (path.read_bytes(), journal.read_bytes())
    assert torn[0] != before
    assert torn[1]
    for write in (False, True):
        path.write_bytes(torn[0])
        journal.write_bytes(torn[1])
        with open_store(str(path), write=write) as store:
            assert whole_packs(store) == 1
            if write:
                store.add_trials("a", pack(1))
                assert whole_packs(store) == 2
