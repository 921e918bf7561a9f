"""Faults done to real commands, and what must hold after every one of them.

As a program this file runs commands in forks of itself, whose libraries are loaded: a run takes a second.
"""

import json
import mmap
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, closing, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from lrwd_sweep.store import open_store

STORE = "lrwd-sweep.db"
CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "mkdir", "rmdir")
_FAULTY = ("Traceback", "fault of lrwd-sweep", "Error:", "Fatal Python")

Stored = dict[tuple[float, float, int], tuple[Any, ...]]  # what is stored of a lane


def stored(path: Path, name: str) -> Stored:
    """Return all lanes of a study, read from a copy by SQLite itself. Asserts that nothing is damaged."""
    if not path.exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        for file in path.parent.glob(f"{path.name}*"):
            if file.is_file():  # also a journal, which SQLite rolls back
                shutil.copy(file, folder)
        with closing(sqlite3.connect(Path(folder, path.name))) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "I2"
            assert database.execute("PRAGMA foreign_key_check").fetchall() == [], "I2"
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'trials'").fetchall():
                return {}
            study = "study_id = (SELECT id FROM studies WHERE name = ?)"
            numbers = "lr, weight_decay, seed, status, metrics, detail, snapshots, curves_checksum"
            rows = database.execute(f"SELECT {numbers} FROM trials WHERE {study}", (name,)).fetchall()
    found = {row[:3]: row[3:] for row in rows}
    assert len(found) == len(rows), "I3: a lane is stored twice"
    return found


def assert_told(code: int, err: str, *codes: int) -> None:
    """Assert a documented exit code and messages for a user (I6)."""
    assert code in codes, f"I6: exit code {code}: {err}"
    assert not [word for word in _FAULTY if word in err], f"I6: {err}"
    assert code == 0 or not err.strip() or err.splitlines()[-1].startswith("lrwd-sweep: "), f"I6: {err}"


def assert_kept(path: Path, name: str, acknowledged: int, in_flight: int) -> int:
    """Assert that the store holds what was acknowledged and no more than was in flight (I1, I2, I3)."""
    found = len(stored(path, name))
    assert acknowledged <= found <= acknowledged + in_flight, f"I1: {acknowledged}, {found}"
    return found


def assert_finished(path: Path, name: str, whole: Stored) -> None:
    """Assert that a resumed study is that of an uninterrupted run, and that nothing is left (I2 to I5)."""
    found = stored(path, name)
    assert found.keys() == whole.keys(), "I3"
    assert found == whole, "I5"
    with open_store(str(path), write=False) as store:
        assert store.driver(name) is None, "I4: a dead process counts as one that trains"
    left = [file.name for file in path.parent.glob(f"{path.name}*") if file.name != path.name]
    assert not left, f"I4: {left}"


def _status(pid: int | str) -> list[str]:
    """Return the state of a process, "Z" if there is none, and its parent."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    return ["Z"]


def children(pid: int) -> list[int]:
    running = {int(path.name): _status(path.name) for path in Path("/proc").glob("[0-9]*")}
    found = [
        child for child, (state, *parent) in running.items() if parent == [str(pid)] and state not in "ZX"
    ]
    return found + [one for child in found for one in children(child)]


def assert_ended(pids: Iterable[int | str], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    for pid in pids:
        while _status(pid)[0] not in "ZX":
            assert time.monotonic() < until, f"process {pid} goes on"
            time.sleep(0.02)


class Commands(AbstractContextManager["Commands"]):
    """Commands that run in forks of one process, a second each."""

    def __init__(self, folder: Path) -> None:
        command, pipe = [sys.executable, "-P", __file__], subprocess.PIPE
        self.folder = folder
        self.server: Any = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder)

    def __exit__(self, *_: object) -> None:
        self.server.communicate()

    def run(self, *words: str, strace: Sequence[str] = ()) -> tuple[int, str, int]:
        """Run a command, traced into `trace` if asked; return exit code, stderr, and lanes acknowledged."""
        print(json.dumps([*words, *["traced"] * bool(strace)]), file=self.server.stdin, flush=True)
        number, tracer = self.server.stdout.readline().strip(), None
        if strace:
            options = ("-f", "-qq", "-o", "trace", "-p", number, *strace)
            tracer = subprocess.Popen(("strace", *options), cwd=self.folder, stderr=subprocess.DEVNULL)
        code = int(self.server.stdout.readline())
        if tracer is not None:
            tracer.wait(30)
        acknowledged = int.from_bytes((self.folder / "acknowledged").read_bytes()[:8], "little")
        return code, (self.folder / "err").read_text(errors="replace"), acknowledged


def counted_calls(trace: Path) -> dict[tuple[str, str], int]:
    """Count the system calls of a trace by thread and name: the numbers that strace's `when` takes."""
    text = trace.read_text(errors="replace")
    return Counter((call[1], call[2]) for call in re.finditer(r"^(\d+) +(\w+)\(", text, re.MULTILINE))


def _serve() -> None:
    """Run the commands that stdin names, each in a fork: tell its number and its exit code."""
    from lrwd_sweep.cli import app
    from lrwd_sweep.engine import checkpoint
    from lrwd_sweep.runner import signals
    from lrwd_sweep.store import Store

    checkpoint.SHARE = 1e9  # a checkpoint as often as is asked for
    Path("acknowledged").write_bytes(bytes(8))
    with open("acknowledged", "r+b") as file:
        memory = mmap.mmap(file.fileno(), 8)  # counts without a system call
    add = Store.add_trials

    def add_trials(self: Store, name: str, pack: Any, *given: Any, **named: Any) -> Any:
        lanes = list(pack)
        found = add(self, name, lanes, *given, **named)
        memory[:8] = (int.from_bytes(memory[:8], "little") + len(lanes)).to_bytes(8, "little")
        return found

    Store.add_trials = add_trials  # type: ignore[method-assign]
    warm = ["grid", "--lr", "0.01", "--wd", "0.01", "--epochs", "1", "--storage", "warm.db", "-q"]
    sys.argv = ["lrwd-sweep", *warm]  # which loads the libraries
    with redirect_stdout(sys.stderr):
        assert app.run() == 0
    Path("warm.db").unlink()
    for line in sys.stdin:
        *words, last = json.loads(line)
        memory[:8] = bytes(8)
        if child := os.fork():
            os.write(1, b"%d\n" % child)
            os.write(1, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            continue
        for name, stream in (("out", 1), ("err", 2)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        while last == "traced" and "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
            time.sleep(0.001)
        signals.end_on_signals()
        sys.argv = ["lrwd-sweep", *words, *[last] * (last != "traced")]
        app.main()


if __name__ == "__main__":
    _serve()
