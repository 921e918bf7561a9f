"""Imports point down and each heavy library has its door; the top level, functions and lowest versions.

`.ci/run` also runs ruff and mypy.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lrwd_sweep
from tests.lowest import PYPROJECT, constraints

ROOT = Path(lrwd_sweep.__file__).parent
PROJECT = Path(__file__).parent.parent
MODULES = {
    ".".join(("lrwd_sweep", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
MOST_NAMES, MOST_FILES, MOST_LINES = 15, 159, 400

# A package imports packages of its own row and of the rows below. There is no circle of modules.
ROWS = (
    {"cli", "api", "__init__", "__main__"},
    {"runner", "report", "lab"},
    {"engine"},
    {"store"},
    {"nets", "optim", "data"},
    {"spec"},
    {"science"},
    {"errors"},
)
APART = [  # packages that must not reach each other through any chain of imports
    ("science", {"spec"}),
    ("store", {"report", "runner", "engine", "optim", "nets", "data"}),
    ("engine", {"store", "report", "runner"}),
]
# The packages or files that may import a library.
DOORS = {
    "torch": {"engine", "optim", "nets", "data", "lab"},
    "torchvision": {"data", "nets"},
    "sklearn": {"data"},
    "scipy": {"data", "science", "engine.device"},
    "threadpoolctl": {"engine.device"},
    "numba": {"optim.jit"},
    "sqlalchemy": {"store"},
    "optuna": {"runner.sampler"},
    "rich": {"report.view", "cli"},
    "typer": {"cli"},
    "jinja2": {"report.view"},
    "matplotlib": {"report.view"},
    "pandas": {"report.view", "report.trained_study"},
    "safetensors": {"engine.checkpoint"},
    "ray": {"runner.executors.ray"},
}


def imports(module: str) -> Iterator[str]:
    """Yield the full names of all that a module imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


IMPORTS = {module: sorted(set(imports(module))) for module in MODULES}
VERSION = "lrwd_sweep"  # the root, imported for its version


def package(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def ours(module: str) -> set[str]:
    return {name for name in IMPORTS[module] if name in MODULES and name != VERSION}


def reached(start: str) -> set[str]:
    """Return the packages that a package reaches through any chain of imports."""
    found: set[str] = set()
    left = [module for module in MODULES if package(module) == start]
    seen = set(left)
    while left:
        for module in ours(left.pop()) - seen:
            seen.add(module)
            left.append(module)
            found.add(package(module))
    return found


def test_root_names_are_the_rows() -> None:
    assert {package(module) for module in MODULES} == set().union(*ROWS)
    assert len(set().union(*ROWS)) <= MOST_NAMES


def test_files_are_few_and_short() -> None:
    assert len(MODULES) <= MOST_FILES
    lines = {module: path.read_text(encoding="utf-8").count("\n") for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > MOST_LINES} == {}


def test_public_classes_and_files_have_unique_names() -> None:
    classes = Counter(
        node.name
        for path in MODULES.values()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    files = Counter(
        path.stem for module, path in MODULES.items() if package(module) != "cli" and path.stem != "__init__"
    )
    assert [name for name, count in (classes + files).items() if count > 1] == []


def test_imports_point_down() -> None:
    row = {name: k for k, names in enumerate(ROWS) for name in names}
    up = [
        f"{module} → {name}"
        for module in MODULES
        for name in ours(module)
        if row[package(name)] < row[package(module)]
    ]
    assert up == []


def test_packages_kept_apart_do_not_reach_each_other() -> None:
    for start, others in APART:
        assert not reached(start) & others, start


def test_there_is_no_circle() -> None:
    arrows = {module: ours(module) - {module} for module in MODULES}
    assert set(TopologicalSorter(arrows).static_order()) >= set(MODULES)  # a circle raises CycleError


def test_a_library_is_imported_only_behind_its_door() -> None:
    for library, doors in DOORS.items():
        users = {
            module for module in MODULES if any(name.split(".")[0] == library for name in IMPORTS[module])
        }
        allowed = tuple(f"lrwd_sweep.{door}." for door in doors)
        assert users, library
        assert not {user for user in users if not f"{user}.".startswith(allowed)}, library


def test_science_imports_only_numpy_and_scipy() -> None:
    for module in MODULES:
        if package(module) in {"science", "errors"}:
            outside = {name.split(".")[0] for name in IMPORTS[module]}
            assert outside - set(sys.stdlib_module_names) - {"lrwd_sweep"} <= {"numpy", "scipy"}, module


def test_top_level_holds_six_entries_and_dot_files() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    top = {line.split("/")[0] for line in tracked.splitlines()}
    expected = {"pyproject.toml", "lrwd_sweep", "tests", "presets", "README.md", "CHANGELOG.md"}
    assert {name for name in top if not name.startswith(".")} == expected


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.name}: {node.name}"
        for path in [*PROJECT.glob("lrwd_sweep/**/*.py"), *PROJECT.glob("tests/**/*.py")]
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
