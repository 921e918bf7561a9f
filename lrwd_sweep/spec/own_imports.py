"""What somebody's code imports that is their own as well: read in its source, so that nothing runs for it."""

from __future__ import annotations

import ast
import os
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

_LIBRARIES = tuple(
    os.path.join(folder, "")
    for folder in {
        str(Path(__file__).parents[1]),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class Source:
    """A module as it is on disk."""

    name: str  # as it is imported
    path: str
    text: bytes

    @property
    def is_package(self) -> bool:
        """Whether it stands for its folder."""
        return Path(self.path).name == "__init__.py"

    @property
    def root(self) -> str:
        """The folder where its first name is found."""
        depth = self.name.count(".") + (self.is_package and self.name != "__init__")
        around = Path(self.path).parents
        return str(around[min(depth, len(around) - 1)])


def imported(start: Source) -> list[Source]:
    """All modules that come with `start`; those of libraries do not count.

    They are looked for in the folder of `start` first, then wherever Python finds them. The same sources give
    the same list in every process that can import them.
    """
    if is_library(start.path):
        return []
    finder = _Finder(start.root)
    found: dict[str, Source] = {}
    asked, left = {start.name}, [start]
    while left:
        for name in _named(left.pop()):
            if name in asked:
                continue
            asked.add(name)
            path = finder.module(name)[0]
            if path and path != start.path and not is_library(path):
                found[name] = Source(name, path, read(path))
                left.append(found[name])
    return list(found.values())


def read(path: str) -> bytes:
    """A file's bytes; none where there is no such file."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def is_library(path: str) -> bool:
    """Whether a file is Python's, installed or ours."""
    return path.startswith(_LIBRARIES) or not _INSTALLED.isdisjoint(Path(path).parts)


def _named(module: Source) -> Iterator[str]:
    """The names of modules that it may mean, each behind those of the packages around it."""
    package = module.name.split(".")
    if not module.is_package:
        package.pop()
    for level, name in [(0, module.name), *_statements(module.text)]:
        if level > len(package):
            continue  # which fails
        parts = [*package[: len(package) - level + 1], *name.split(".")] if level else name.split(".")
        yield from accumulate(filter(None, parts), "{}.{}".format)


@lru_cache(maxsize=4096)
def _statements(source: bytes) -> tuple[tuple[int, str], ...]:
    """What a source imports anywhere: the dots in front of it, and a name, be it of what is in a module."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever imports it hears them
            nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found: list[tuple[int, str]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = "" if node.module is None else f"{node.module}."
            found += [(node.level, f"{inside}{alias.name}") for alias in node.names]
    return tuple(dict.fromkeys(found))


Place = tuple[str, list[str]]  # a module's file, if it has one, and the folders that hold what is below it


@dataclass(frozen=True, slots=True)
class _Finder:
    """Where modules are, for code that lives in the folder `root`."""

    root: str
    known: dict[str, Place] = field(default_factory=dict)

    def module(self, name: str) -> Place:
        """Where the module of that name is."""
        if name not in self.known:
            around, _, last = name.rpartition(".")
            self.known[name] = _in(self.module(around)[1], last) if around else self._first(name)
        return self.known[name]

    def _first(self, name: str) -> Place:
        here = _in([self.root], name)
        if here[0]:
            return here
        try:
            spec = find_spec(name)
        except (ImportError, ValueError, AttributeError):  # of a module that was put there by hand
            spec = None
        if spec is None:
            return here
        path = spec.origin if spec.has_location and spec.origin else ""
        return path if path.endswith(".py") else "", list(spec.submodule_search_locations or ())


def _in(folders: list[str], name: str) -> Place:
    for folder in folders:
        package = os.path.join(folder, name)
        for path, below in ((os.path.join(package, "__init__.py"), [package]), (f"{package}.py", [])):
            if os.path.isfile(path):
                return path, below
    return "", [package for folder in folders if os.path.isdir(package := os.path.join(folder, name))]
