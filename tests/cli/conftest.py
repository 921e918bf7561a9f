"""The command line, run in this process or in one of its own, in an empty directory."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lrwd_sweep.cli import app
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.store import open_store

TINY = ("--lr", "2^-8:2^-6", "--wd", "2^-8:2^-6", "--epochs", "2", "--seeds", "1")  # 9 lanes
ADAM, ADAMW = "digits-mlp-norm-adam-cosine-2ep-b64", "digits-mlp-norm-adamw-cosine-2ep-b64"
STORE = "lrwd-sweep.db"
PROGRAM = [sys.executable, "-c", "from lrwd_sweep.cli import main; main()"]


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ended]
Patch = pytest.MonkeyPatch

BEFORE = re.compile(r"loading |.* \d+ runs? on ")  # of lines that say what begins, before anything is checked


@pytest.fixture(autouse=True)
def _empty_directory(folder: Path) -> None:
    """Each command begins in one."""


@pytest.fixture
def run(monkeypatch: Patch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command, one string split as a shell does; with `code`, assert that it ends with that."""

    def run_here(*words: str, code: int | None = None) -> Ended:
        words = tuple(shlex.split(words[0])) if len(words) == 1 else words
        monkeypatch.setattr(sys, "argv", ["lrwd-sweep", *words])
        found = Ended(app.run(), *capfd.readouterr())
        assert code in (None, found.code), (words, found)
        return found

    return run_here


def trained(folder: Path, *command: str) -> Path:
    """Run a command in a folder; return its store."""
    folder.mkdir(exist_ok=True)
    with Patch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["lrwd-sweep", *command])
        assert app.run() == 0
    return folder / STORE


@pytest.fixture(scope="session")
def _compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("compared"), "compare", "adam", "adamw", *TINY)


@pytest.fixture
def compared(_compared: Path, tmp_path: Path) -> Path:
    """A store in this directory after `compare adam adamw` on tiny lattices."""
    return Path(shutil.copy(_compared, tmp_path / STORE))


def process(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own, its output in pipes."""
    line, pipe, environ = [*PROGRAM, *arguments], subprocess.PIPE, os.environ | environ
    closed = subprocess.DEVNULL
    return subprocess.Popen(line, stdin=closed, stdout=pipe, stderr=pipe, env=environ, text=True)


def ended(started: subprocess.Popen[str], seconds: float = 600) -> Ended:
    out, err = started.communicate(timeout=seconds)
    return Ended(started.returncode, out, err)


def running(word: str, pids: Iterable[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(OSError):
            found += [pid] * (word in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
    return found


def assert_holds(text: str, *parts: str) -> None:
    for part in parts:
        assert part in text, (part, text)


def assert_refused(found: Ended, code: int, *parts: str) -> None:
    """Assert that a command ended with `code`, without output, and with one line that holds `parts`."""
    assert (found.code, found.out) == (code, ""), found
    (line,) = [line for line in found.err.splitlines() if not BEFORE.match(line)]
    assert line.startswith("lrwd-sweep: "), found
    for part in parts:
        assert part in line, found
    for fault in ("Traceback", "fault of lrwd-sweep", "secret", "\ufdd0"):  # the last, an unspelled argument
        assert fault not in found.err, found


def trials(storage: str = STORE, name: str = ADAMW) -> dict[tuple[Cell, int], Trial]:
    with open_store(storage, write=False) as store:
        return {(trial.cell, trial.seed): trial for trial in store.trials(name, curves=True)}


def strict(text: str) -> Any:
    """Parse JSON, which has no NaN and no Infinity."""
    return json.loads(text, parse_constant=pytest.fail)


def reported(run: Run, words: str = "") -> Any:
    """Return the only study of a report."""
    (found,) = strict(run(f"report {words} --format json").out)["studies"]
    return found
