"""New Python processes import our libraries, and none from the current directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lrwd_sweep.runner import interpreter

SHOW = """
import json, sys

def main(*arguments):
    found = [list(sys.path), list(arguments), sys.argv]
    from lrwd_sweep.runner.interpreter import take_path
    take_path()
    print(json.dumps([*found, sys.path]))
"""


def test_a_process_takes_our_path_after_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "showing.py").write_text(SHOW)
    for name in ("random", "json", "typing", "torch", "typer", "lrwd_sweep"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    command = interpreter.command("showing", "a b", "--c")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    before, arguments, argv, after = json.loads(done.stdout)
    assert arguments == ["a b", "--c"]
    assert argv == [str(tmp_path / "showing.py"), *arguments]
    assert before.index(str(tmp_path)) > before.index(next(path for path in before if "lib" in path))
    assert after[: len(sys.path)] == sys.path


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    for name in ("typer", "rich", "numpy", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit\n")
    command = [sys.executable, "-m", "lrwd_sweep", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "lrwd-sweep", "")
