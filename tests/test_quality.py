"""The top level, the length of functions and the lowest versions; `.ci/run` also runs ruff and mypy."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from tests.lowest import PYPROJECT, constraints

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


SMALL = """
[project]
name = "a"
dependencies = ["numba>=0.61; python_version < '3.15'"]
[project.optional-dependencies]
test = ["a[ray]", "ray[tune]>=2.50"]
"""


def test_every_lower_bound_becomes_a_version() -> None:
    assert constraints(SMALL) == ['numba==0.61; python_version < "3.15"', "ray==2.50"]
    assert constraints(PYPROJECT.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="numpy has no lower bound"):
        constraints('[project]\nname = "a"\ndependencies = ["numpy"]')
