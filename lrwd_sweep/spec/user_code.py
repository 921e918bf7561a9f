"""User code, `package.module:NAME` or `./file.py:NAME`: imported, hashed, and refused once its files change.

Only a command that trains imports it: a store or a report may hold names from any source.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import os
import re
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import accumulate
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any

from lrwd_sweep.errors import LrwdError, UnknownName, UsageError, arg
from lrwd_sweep.spec.user_files import BYTES, CHARACTERS, PREFIX

_NOT_CODE = (PREFIX, CHARACTERS, BYTES, "torchvision:")
_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_USER_CODE = re.compile(rf"(?P<where>.+\.py|{_NAME}):(?P<what>{_NAME})")
_DIGITS = 12  # of a digest: two sources share one with probability 10⁻¹⁴
_LONGEST = 200  # characters quoted from an exception
_INSTALLED = {"site-packages", "dist-packages"}
_PYTHON = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
_LIBRARIES = tuple(os.path.join(folder, "") for folder in (*_PYTHON, str(Path(__file__).parents[1])))

# By path: the sources and the result of executing a file; the spec (a reload replaces it) and the texts that
# a module was imported with. By name: the file that this process has under the name of a helper.
_executed: dict[str, tuple[tuple[bytes, Sequence[Source]], ModuleType]] = {}
_noted: dict[str, tuple[object, Mapping[str, bytes]]] = {}
_helper_paths: dict[str, str] = {}


class _ImportTimes(dict[str, float]):
    """A finder that finds nothing: it notes when each module is imported or reloaded."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self[name] = time.time()


_LOADED, _imported = time.time(), _ImportTimes()  # modules not noted were imported before
sys.meta_path.insert(0, _imported)


def is_user_code(name: str) -> bool:
    """Tell whether a network, data set, loss or command of that name is user code.

    >>> is_user_code("./my_net.py:Net"), is_user_code("package.module:make"), is_user_code("resnet20")
    (True, True, False)
    """
    return not name.startswith(_NOT_CODE) and name.isprintable() and _USER_CODE.fullmatch(name) is not None


def canonical(option: str, name: str) -> str:
    """Return the one spelling of a user-code name, and any other name unchanged.

    Raises UsageError for a file or module without a NAME in it.

    >>> canonical("net", "nets/../my_net.py:Net")
    './my_net.py:Net'
    """
    if not is_user_code(name):
        if name.partition(":")[0].endswith(".py") or (":" in name and not name.startswith(_NOT_CODE)):
            raise UsageError(
                f"{arg(option, name)}: write package.module:NAME or ./file.py:NAME, NAME being what is to be "
                "called in it"
            )
        return name
    where, _, what = name.rpartition(":")
    if where.endswith(".py"):
        where = os.path.normpath(os.path.expanduser(where))
        where = where if os.path.isabs(where) or where.startswith("..") else f".{os.sep}{where}"
    return f"{where}:{what}"


def short(name: str) -> str:
    """Return the form used in a study's name: a file without its folder.

    >>> short("./nets/my_net.py:Net"), short("package.module:make"), short("resnet20")
    ('my_net-Net', 'package.module-make', 'resnet20')
    """
    if not is_user_code(name):
        return name
    where, _, what = name.rpartition(":")
    return f"{Path(where).stem if where.endswith('.py') else where}-{what}"


@dataclass(frozen=True, slots=True)
class Source:
    """A module's name, file and text."""

    name: str
    path: str
    text: bytes


@dataclass(frozen=True)
class UserCode:
    """An imported user function or class. Every exception of a call becomes UsageError."""

    option: str  # net, data or loss, for messages
    name: str
    thing: Callable[..., Any]
    sources: Mapping[str, bytes]  # of the named file and of the file that defines `thing`, as imported
    helpers: Sequence[Source]  # the user's modules that these import, as imported
    stale: Sequence[str]  # files of all these that changed after their import

    @cached_property
    def digest(self) -> str:
        """Hash the sources, and the helpers with their names: equal in every process and on every machine."""
        whole = hashlib.sha256()
        for source in sorted(self.sources.values()):
            whole.update(hashlib.sha256(source).digest())
        for helper in self.helpers:
            if helper.text.strip():  # many an __init__.py is empty
                whole.update(hashlib.sha256(helper.name.encode()).digest())
                whole.update(hashlib.sha256(helper.text).digest())
        return whole.hexdigest()[:_DIGITS]

    def refuse_stale(self) -> None:
        """Raise UsageError if a file changed after its import: the old code would train."""
        if self.stale:
            raise UsageError(
                f"{arg(self.option, self.name)}: {self.stale[0]!r} has changed on disk since it was "
                "imported; restart Python, or reload it and what imports it"
            )

    def __call__(self, *args: Any, **options: Any) -> Any:
        try:
            return self.thing(*args, **options)
        except (LrwdError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit would end this program without a message
            raise UsageError(f"{arg(self.option, self.name)} raised {self.told(error)}") from error

    def told(self, error: BaseException) -> str:
        """Describe an exception in one line: type, message, and the last user line on its way."""
        return _told(error, {*self.sources, *(helper.path for helper in self.helpers)})

    def arguments(self, offered: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return `options`, and those of `offered` that the function takes.

        Raises UnknownName for an option that it does not take, UsageError if it requires more.
        """
        try:
            parameters = inspect.signature(self.thing).parameters.values()
        except (TypeError, ValueError):  # built in, without a signature
            return dict(options)
        named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            for option in options:
                if option not in named:
                    raise UnknownName(f"option of {arg(self.option, self.name)}", option, named)
        given = {name: value for name, value in offered.items() if name in named} | dict(options)
        for name, p in named.items():
            if name not in given and p.default is p.empty:
                raise UsageError(
                    f"{arg(self.option, self.name)} wants {name!r}, which nothing gives; give it a default"
                    + (", or a value under [net.options] of a preset" if self.option == "net" else "")
                )
        return given


def find(option: str, name: str) -> UserCode:
    """Import the thing of a name; it prints to stderr. Raises UsageError or UnknownName."""
    where, _, what = name.rpartition(":")
    path = os.path.abspath(os.path.expanduser(where)) if where.endswith(".py") else ""
    if path and not os.path.isfile(path):
        raise UsageError(
            f"{arg(option, name)}: {where!r} cannot be read (no such file); paths begin at {os.getcwd()!r}"
        )
    try:
        with redirect_stdout(sys.stderr):
            executed = {path: Path(path).read_bytes()} if path else {}
            module = _execute(path, executed[path]) if path else _import(option, name, where)
    except (LrwdError, KeyboardInterrupt):
        raise
    except BaseException as error:
        complaint = f"{arg(option, name)} cannot be imported: {_told(error, {path})}"
        if path and "no known parent package" in str(error):
            module_name = f"{Path(path).parent.name}.{Path(path).stem}".removesuffix(".__init__")
            complaint += f"; name it {module_name}:{what}, in the folder that holds the package"
        raise UsageError(complaint) from error
    thing: Any = module
    for part in what.split("."):
        if not hasattr(thing, part):
            known = [other for other in dir(thing) if not other.startswith("_")]
            raise UnknownName(f"name in {where}", part, known)
        thing = getattr(thing, part)
    if not callable(thing):
        raise UsageError(f"{arg(option, name)} is of type {type(thing).__name__}; name a function or a class")
    original = inspect.unwrap(thing)  # possibly written in another file than the named one
    try:
        definition = inspect.getsourcefile(original) or ""
    except TypeError:  # an object, or built in
        definition = ""
    labels = [Path(where).stem if path else where, getattr(original, "__module__", None) or ""]
    paths = [getattr(module, "__file__", None) or "", definition]
    texts = {path: _read(path) for path in paths} | executed
    starts = [Source(label, path, texts[path]) for label, path in zip(labels, paths, strict=True) if path]
    found = {helper.name: helper for start in starts for helper in imports_of(start)}
    helpers = [found[name] for name in sorted(found) if found[name].path not in texts]
    _refuse_clash(f"{arg(option, name)}", helpers)
    then = {one.path: _at_import(one) for one in [*starts, *helpers] if one.path not in executed}
    return UserCode(
        option,
        name,
        thing,
        {path: then[path][0] if path in then else text for path, text in texts.items()},
        [replace(one, text=then[one.path][0]) for one in helpers],
        sorted({path for _, changed in then.values() for path in changed}),
    )


def _execute(path: str, source: bytes) -> ModuleType:
    """Execute a file as a module of exactly this source; again only if it or a helper changed."""
    folder, stem = os.path.dirname(path), Path(path).stem
    state = (source, imports_of(Source(stem, path, source)))
    if path in _executed and _executed[path][0] == state:
        return _executed[path][1]
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)  # as for a script
    taken = sys.modules.get(stem)
    free = stem not in sys.stdlib_module_names and getattr(taken, "__file__", path) == path
    label = stem if free else f"{stem}_{hashlib.sha256(path.encode()).hexdigest()[:_DIGITS]}"
    spec = spec_from_file_location(label, path)
    assert spec is not None, "the name ends in .py"
    module = module_from_spec(spec)
    sys.modules[label] = module  # dataclasses and pickle look a class's module up there
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except BaseException:
        sys.modules.pop(label, None)
        raise
    _executed[path] = (state, module)
    return module


def _import(option: str, name: str, label: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(label)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{label}.".startswith(f"{error.name}."):
            raise  # something that it imports
        remedy = "install it, or run this in the folder that holds it"
        raise UsageError(f"{arg(option, name)}: there is no module {error.name!r}; {remedy}") from None


def _told(error: BaseException, sources: Container[str]) -> str:
    text = " ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
    lines = [
        f" ({Path(frame.f_code.co_filename).name}, line {line})"
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_filename in sources
    ]
    return " ".join(text.split())[:_LONGEST] + "".join(lines[-1:])


def _at_import(source: Source) -> tuple[bytes, list[str]]:
    """Return the text that a module was imported with, and the files changed since, its own and its imports'.

    A module not imported yet counts as unchanged, and so does one that an import hook rewrites.
    """
    module = sys.modules.get(source.name)
    spec = getattr(module, "__spec__", None)
    plain = type(getattr(spec, "loader", None)) is SourceFileLoader
    if not plain or getattr(module, "__file__", None) != source.path:
        return source.text, []
    now = {one.path: one.text for one in (source, *imports_of(source)) if one.name in sys.modules}
    if _noted.get(source.path, (None,))[0] is not spec:
        edited = os.path.getmtime(source.path) if os.path.exists(source.path) else 0.0
        if edited > _imported.get(source.name, _LOADED):
            return source.text, [source.path]
        _noted[source.path] = spec, now
    then = _noted[source.path][1]
    return then[source.path], [path for path, text in then.items() if now.get(path, text) != text]


def _refuse_clash(what: str, helpers: Sequence[Source]) -> None:
    """Raise UsageError if this process has another file under the name of a helper."""
    for helper in helpers:
        noted = _helper_paths.setdefault(helper.name, helper.path)
        found = getattr(sys.modules.get(helper.name), "__file__", None) or noted
        if found != helper.path and not (os.path.exists(found) and os.path.samefile(found, helper.path)):
            raise UsageError(
                f"{what} imports {helper.name!r} from {helper.path!r}, but this process has that name from "
                f"{found!r}; rename one of the two, or restart Python"
            )


def imports_of(start: Source) -> list[Source]:
    """Read all modules that `start` imports, directly or not, libraries excepted, out of its source.

    They are looked for in its folder first, then on Python's path. Nothing is executed: the same sources give
    the same list in every process.
    """
    if _is_library(start.path):
        return []
    depth = start.name.count(".") + (start.path.endswith("__init__.py") and start.name != "__init__")
    root = str([*Path(start.path).parents][: depth + 1][-1])
    found: dict[str, Source] = {}
    asked, left = {start.name}, [start]
    while left:
        for name in _names(left.pop()):
            if name in asked:
                continue
            asked.add(name)
            path = file_of(name, root)
            if path and path != start.path and not _is_library(path):
                found[name] = Source(name, path, _read(path))
                left.append(found[name])
    return list(found.values())


def _is_library(path: str) -> bool:
    return path.startswith(_LIBRARIES) or not _INSTALLED.isdisjoint(Path(path).parts)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _names(module: Source) -> Iterator[str]:
    """Yield the full names that a module may import, each after those of the packages around it."""
    package = module.name.split(".")[: None if Path(module.path).name == "__init__.py" else -1]
    for level, name in [(0, module.name), *_statements(module.text)]:
        if level > len(package):
            continue  # such an import fails
        parts = [*package[: len(package) - level + 1], *name.split(".")] if level else name.split(".")
        yield from accumulate(filter(None, parts), "{}.{}".format)


@lru_cache(maxsize=4096)
def _statements(source: bytes) -> tuple[tuple[int, str], ...]:
    """Return all imports of a source: leading dots, and the name of a module or of a thing in one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the import itself reports them
            nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found: list[tuple[int, str]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = f"{node.module}." if node.module else ""
            found += [(node.level, f"{inside}{alias.name}") for alias in node.names]
    return tuple(dict.fromkeys(found))


def file_of(name: str, root: str) -> str:
    """Locate a module's file for code in the folder `root`; empty if it has none."""
    first, *rest = name.split(".")
    path, folders = _in([root], first)
    if not path:
        try:
            spec = find_spec(first)
        except (ImportError, ValueError, AttributeError):  # of a module that was put there by hand
            spec = None
        if spec is not None:
            path = spec.origin if spec.has_location and spec.origin and spec.origin.endswith(".py") else ""
            folders = list(spec.submodule_search_locations or ())
    for part in rest:
        path, folders = _in(folders, part)
    return path


def _in(folders: list[str], name: str) -> tuple[str, list[str]]:
    """Return a module's file, if any, and the folders of the modules below it."""
    for folder in folders:
        package = os.path.join(folder, name)
        for path, below in ((os.path.join(package, "__init__.py"), [package]), (f"{package}.py", [])):
            if os.path.isfile(path):
                return path, below
    return "", [package for folder in folders if os.path.isdir(package := os.path.join(folder, name))]
