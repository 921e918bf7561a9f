"""The top level and the length of functions; `.ci/run` also runs ruff and mypy."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_top_level_holds_six_entries_and_dot_files() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in tracked.splitlines()}
    expected = {"pyproject.toml", "lrwd_sweep", "tests", "presets", "README.md", "CHANGELOG.md"}
    assert {name for name in top if not name.startswith(".")} == expected


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.name}: {node.name}"
        for path in [*ROOT.glob("lrwd_sweep/**/*.py"), *ROOT.glob("tests/**/*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 60
    ]
    assert not long
