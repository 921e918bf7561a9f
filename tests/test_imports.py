"""Imports point down and each heavy library has its door; the top level, functions and lowest versions."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lrwd_sweep
from tests.lowest import constraints

ROOT = Path(lrwd_sweep.__file__).parent
PROJECT = Path(__file__).parent.parent
MODULES = {
    ".".join(("lrwd_sweep", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
MOST_NAMES, MOST_FILES, MOST_LINES = 15, 159, 400

# A package imports packages of its own row and of the rows below. There is no circle of modules.
ROWS = [
    *({"cli", "api", "__init__", "__main__"}, {"runner", "report", "lab"}, {"engine"}, {"store"}),
    *({"nets", "optim", "data"}, {"spec"}, {"science"}, {"errors"}),
]
# Nor does one reach these of the rows below through any chain of imports.
APART = {"store": {"optim", "nets", "data"}, "engine": {"store"}}
# The packages or files that may import a library.
DOORS = {"torch": {"engine", "optim", "nets", "data", "lab"}, "torchvision": {"data", "nets"}}
DOORS |= {"scipy": {"data", "science", "engine.device"}, "sklearn": {"data"}, "numba": {"optim.jit"}}
DOORS |= {"threadpoolctl": {"engine.device"}, "safetensors": {"engine.checkpoint"}, "sqlalchemy": {"store"}}
DOORS |= {"optuna": {"runner.sampler"}, "ray": {"runner.executors.ray"}, "typer": {"cli"}}
DOORS |= {"rich": {"report.view", "cli"}, "pandas": {"report.view", "report.trained_study"}}
DOORS |= {"jinja2": {"report.view"}, "matplotlib": {"report.view"}}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}


def imports(module: str) -> Iterator[str]:
    """Yield the full names of all that a module imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


IMPORTS = {module: sorted(set(imports(module))) for module in MODULES}


def package(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def ours(module: str) -> set[str]:
    """Return the modules that a module imports, without the root, imported for its version."""
    return {name for name in IMPORTS[module] if name in MODULES and name != "lrwd_sweep"}


def test_files_are_few_with_unique_names_at_six_top_entries_and_no_function_longer_than_a_screen() -> None:
    assert {package(module) for module in MODULES} == set().union(*ROWS)
    assert (len(set().union(*ROWS)) <= MOST_NAMES, len(MODULES) <= MOST_FILES) == (True, True)
    lines = {module: path.read_text(encoding="utf-8").count("\n") for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > MOST_LINES} == {}
    classes = [node.name for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)]
    files = [path.stem for module, path in MODULES.items() if package(module) != "cli"]
    public = Counter(name for name in classes + files if not name.startswith("_"))
    assert [name for name, count in public.items() if count > 1] == []
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
    top = {line.split("/")[0] for line in tracked.stdout.splitlines() if not line.startswith(".")}
    assert top == {"pyproject.toml", "lrwd_sweep", "tests", "presets", "README.md", "CHANGELOG.md"}
    tests = [ast.parse(path.read_text(encoding="utf-8")) for path in PROJECT.glob("tests/**/*.py")]
    for tree in [*TREES.values(), *tests]:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= 60, node.name


def test_imports_point_down_without_a_circle() -> None:
    row = {name: k for k, names in enumerate(ROWS) for name in names}
    arrows = {module: ours(module) - {module} for module in MODULES}
    for module, names in arrows.items():
        assert not [name for name in names if row[package(name)] < row[package(module)]], module
    assert set(TopologicalSorter(arrows).static_order()) >= set(MODULES)  # a circle raises CycleError
    for start, others in APART.items():
        reached = [module for module in MODULES if package(module) == start]
        for module in reached:  # which grows
            reached += ours(module).difference(reached)
        assert not {package(module) for module in reached} & others, start


def test_a_library_is_imported_only_behind_its_door_and_science_imports_numpy_and_scipy() -> None:
    libraries = {module: {name.split(".")[0] for name in names} for module, names in IMPORTS.items()}
    for library, doors in DOORS.items():
        users = [f"{module}." for module, names in libraries.items() if library in names]
        assert users, library
        allowed = tuple(f"lrwd_sweep.{door}." for door in doors)
        assert not [user for user in users if not user.startswith(allowed)], library
    for module, names in libraries.items():
        if package(module) in {"science", "errors"}:
            assert names - sys.stdlib_module_names <= {"lrwd_sweep", "numpy", "scipy"}, module


SMALL = """project.name = "a"
project.dependencies = ["numba>=0.61; python_version < '3.15'"]
project.optional-dependencies.test = ["a[ray]", "ray[tune]>=2.50"]
"""


def test_every_lower_bound_becomes_a_version() -> None:
    assert list(constraints(SMALL)) == ['numba==0.61; python_version < "3.15"', "ray==2.50"]
    assert list(constraints((PROJECT / "pyproject.toml").read_text(encoding="utf-8")))
    with pytest.raises(ValueError, match="numpy has no lower bound"):
        list(constraints('project = {name = "a", dependencies = ["numpy"]}'))
