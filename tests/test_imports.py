"""Imports point downward, without a circle, and each heavy library has its door."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lrwd_sweep

ROOT = Path(lrwd_sweep.__file__).parent
MODULES = {
    ".".join(("lrwd_sweep", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

# Who may import a library, by a module's first names below lrwd_sweep. bench races other ways to use some.
DOORS = {
    "torch": {"engine", "optim", "nets", "data", "bench", "verify"},
    "torchvision": {"data", "nets"},
    "sklearn": {"data"},
    "scipy": {"data", "engine.device", "separability"},
    "threadpoolctl": {"engine.device"},
    "numba": {"jit"},
    "sqlalchemy": {"store"},
    "optuna": {"sampler", "bench.plain", "bench.processes"},
    "ray": {"bench.ray_tune"},
    "rich": {"view", "cli"},
    "typer": {"cli"},
    "jinja2": {"view"},
    "matplotlib": {"view", "bench.figure"},
    "pandas": {"view", "study"},
    "triton": {"optim.kernels", "optim.projected_kernels"},
}

# The layers, from the top; a part imports parts of its own layer and of those below it. Within a layer and
# within a part there is still no circle.
LAYERS = (
    {"cli", "api", "study", "keywords", "__init__", "__main__"},
    {"trainer", "sweeping", "data_files", "estimate", "bench", "verify"},
    {"view", "store", "recommend", "preset", "task"},
    {"result", "gates"},
    {"sampler", "engine", "progress"},
    {"optim", "nets", "data"},
    {"spec", "training", "jit"},
    {"lattice", "axes", "decay", "optimizer", "conversion", "schedule", "catalog"}
    | {"trial", "direction", "surface", "separability", "evidence"},
    {
        "errors",
        "signals",
        "image_folder",
        "own_code",
        "own_imports",
        "live_code",
        "neighbours",
        "host",
        "interpreter",
        "version",
    },
)
PURE = LAYERS[-2] | LAYERS[-1]
KEPT_APART = [  # that no arrow joins, directly or not
    ("view", {"store", "engine", "sampler", "sweeping", "optim", "nets", "data"}),
    ("store", {"view", "engine", "sampler", "sweeping", "optim", "nets", "data"}),
    ("engine", {"store", "sampler", "view"}),
    ("sampler", {"store", "engine", "view", "optim", "nets", "data"}),
    ("preset", {"store", "engine", "view"}),
]


def imports(module: str) -> Iterator[str]:
    """What a module imports anywhere, inside functions and under TYPE_CHECKING too, by its full name."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


IMPORTS = {module: sorted(set(imports(module))) for module in MODULES}


def part(module: str) -> str:
    """The file or package below lrwd_sweep that a module belongs to."""
    return [*module.split("."), "__init__"][1]


def ours(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    return {name for name in IMPORTS[module] if name in MODULES}


def parts_below(start: str) -> set[str]:
    """The parts that a part reaches through any chain of imports."""
    found: set[str] = set()
    left = [module for module in MODULES if part(module) == start]
    seen = set(left)
    while left:
        for module in ours(left.pop()) - seen:
            seen.add(module)
            left.append(module)
            found.add(part(module))
    return found


def test_every_part_has_its_layer() -> None:
    assert {part(module) for module in MODULES} == set().union(*LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module: str) -> None:
    layer = next(k for k, parts in enumerate(LAYERS) if part(module) in parts)
    above = set().union(*LAYERS[:layer])
    assert not {name for name in ours(module) if part(name) in above}


@pytest.mark.parametrize(("start", "others"), KEPT_APART, ids=[start for start, _ in KEPT_APART])
def test_parts_of_one_height_know_nothing_of_each_other(start: str, others: set[str]) -> None:
    assert not parts_below(start) & others


def test_there_is_no_circle() -> None:
    arrows = {module: ours(module) - {module} for module in MODULES}
    assert set(TopologicalSorter(arrows).static_order()) == set(MODULES)  # a circle raises CycleError


@pytest.mark.parametrize("library", DOORS)
def test_a_library_is_imported_behind_its_door_alone(library: str) -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == library for name in IMPORTS[module])}
    doors = tuple(f"lrwd_sweep.{door}" for door in DOORS[library])
    assert users
    assert not {user for user in users if not f"{user}.".startswith(tuple(f"{door}." for door in doors))}


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) in PURE])
def test_the_pure_column_needs_numpy_and_scipy_at_most(module: str) -> None:
    outside = {name.split(".")[0] for name in IMPORTS[module]} - set(sys.stdlib_module_names) - {"lrwd_sweep"}
    assert outside <= {"numpy", "scipy"}
