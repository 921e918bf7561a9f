"""The command line, run in this process or in one of its own, in an empty directory."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
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

_OURS = ("LRWD_STORAGE", "LRWD_DEBUG", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "COLORTERM")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ended]

BEFORE = re.compile(r"loading |.* \d+ runs? on ")  # of lines that say what begins, before anything is checked


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in _OURS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    def run_here(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["lrwd-sweep", *arguments])
        code = app.run()
        captured = capfd.readouterr()
        return Ended(code, captured.out, captured.err)

    return run_here


@pytest.fixture(scope="session")
def _compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setattr(sys, "argv", ["lrwd-sweep", "compare", "adam", "adamw", *TINY])
        assert app.run() == 0
    return directory / STORE


@pytest.fixture
def compared(_compared: Path, tmp_path: Path) -> Path:
    """A store in this directory after `compare adam adamw` on tiny lattices."""
    return Path(shutil.copy(_compared, tmp_path / STORE))


def process(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", "from lrwd_sweep.cli import main; main()", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environ,
        text=True,
    )


def ended(started: subprocess.Popen[str], seconds: float = 600) -> Ended:
    out, err = started.communicate(timeout=seconds)
    return Ended(started.returncode, out, err)


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
    """Return every lane of a study, with its curves."""
    with open_store(storage, write=False) as store:
        return {(trial.cell, trial.seed): trial for trial in store.trials(name, curves=True)}


def strict(text: str) -> Any:
    """Parse JSON, which has no NaN and no Infinity."""
    return json.loads(text, parse_constant=pytest.fail)
