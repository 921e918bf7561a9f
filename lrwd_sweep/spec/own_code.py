"""Somebody's own network, data or loss: `package.module:NAME` or `./file.py:NAME`, imported when needed.

A name alone is never imported: a store or a report may hold anybody's.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any

from lrwd_sweep.errors import LrwdError, UnknownName, UsageError
from lrwd_sweep.spec.image_folder import PREFIX
from lrwd_sweep.spec.live_code import changed, note, source_of
from lrwd_sweep.spec.neighbours import Neighbours
from lrwd_sweep.spec.own_imports import Source, imported, read

_NOT_OURS = (PREFIX, "torchvision:")
_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_OWN = re.compile(rf"(?P<where>.+\.py|{_NAME}):(?P<what>{_NAME})")
_DIGITS = 12  # of a digest: one in 10¹⁴ is the same by chance
_LONGEST = 200  # characters of somebody's complaint

# By path: what a file was last executed from, itself and others, and what it has become.
_latest: dict[str, tuple[tuple[bytes, list[Source]], ModuleType, Neighbours]] = {}


def is_own(name: str) -> bool:
    """Whether a network, data set or loss of that name is somebody's own code.

    >>> is_own("./my_net.py:Net"), is_own("package.module:make"), is_own("torchvision:resnet18")
    (True, True, False)
    """
    return not name.startswith(_NOT_OURS) and name.isprintable() and _OWN.fullmatch(name) is not None


def canonical(option: str, name: str) -> str:
    """The one way to write a name; one that is nobody's own is as it was.

    Raises UsageError for what looks like a file or a module and does not say what to call in it.

    >>> canonical("--net", "nets/../my_net.py:Net")
    './my_net.py:Net'
    """
    if not is_own(name):
        if name.partition(":")[0].endswith(".py") or (":" in name and not name.startswith(_NOT_OURS)):
            raise UsageError(
                f"{option} {name!r}: write package.module:NAME or ./file.py:NAME, NAME being what is to be "
                "called in it"
            )
        return name
    where, _, what = name.rpartition(":")
    if where.endswith(".py"):
        where = os.path.normpath(os.path.expanduser(where))
        where = where if os.path.isabs(where) or where.startswith("..") else f".{os.sep}{where}"
    return f"{where}:{what}"


def short(name: str) -> str:
    """What a study's name says of it: a file without its folder.

    >>> short("./nets/my_net.py:Net"), short("package.module:make"), short("resnet20")
    ('my_net-Net', 'package.module-make', 'resnet20')
    """
    if not is_own(name):
        return name
    where, _, what = name.rpartition(":")
    return f"{Path(where).stem if where.endswith('.py') else where}-{what}"


@dataclass(frozen=True)
class OwnCode:
    """What a name stands for, imported. Called, it raises UsageError whatever it raises itself."""

    option: str  # that names it, for messages
    name: str
    thing: Callable[..., Any]
    sources: Mapping[str, bytes]  # of the file that the name leads to, and of the one that defines it
    helpers: Sequence[Source]  # their own modules that these import
    stale: Sequence[str]  # files of all these that do something else by now than what was imported
    beside: Neighbours

    @cached_property
    def digest(self) -> str:
        """Of the sources, and of the helpers with their names, if there are any."""
        whole = hashlib.sha256()
        for source in sorted(self.sources.values()):
            whole.update(hashlib.sha256(source).digest())
        for helper in self.helpers:
            if helper.text.strip():  # many a package's own file is empty
                whole.update(hashlib.sha256(helper.name.encode()).digest())
                whole.update(hashlib.sha256(helper.text).digest())
        return whole.hexdigest()[:_DIGITS]

    def refuse_stale(self) -> None:
        """Raise UsageError where a file has changed since Python imported it: the old code would train."""
        if self.stale:
            raise UsageError(
                f"{self.option} {self.name}: {self.stale[0]!r} has changed on disk since it was imported; "
                "restart Python, or reload it and what imports it"
            )

    def __call__(self, *args: Any, **options: Any) -> Any:
        try:
            with self.beside.present():
                return self.thing(*args, **options)
        except (LrwdError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit and its like would end us in their own way
            raise UsageError(f"{self.option} {self.name} raised {self.told(error)}") from error

    def told(self, error: BaseException) -> str:
        """An exception in one line: its type, what it says, and the last line of the sources on its way."""
        return _told(error, {*self.sources, *(helper.path for helper in self.helpers)})

    def arguments(self, offered: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """`options`, and what it takes of `offered`.

        Raises UnknownName for an option that it does not take, UsageError where it takes more.
        """
        try:
            parameters = inspect.signature(self.thing).parameters.values()
        except (TypeError, ValueError):  # built in, and silent about it
            return dict(options)
        named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            for option in options:
                if option not in named:
                    raise UnknownName(f"option of {self.option} {self.name}", option, named)
        given = {name: value for name, value in offered.items() if name in named} | dict(options)
        for name, p in named.items():
            if name not in given and p.default is p.empty:
                raise UsageError(
                    f"{self.option} {self.name} wants {name!r}, which nothing gives; give it a default"
                    + (", or a value under [net.options] of a preset" if self.option == "--net" else "")
                )
        return given


def find(option: str, name: str) -> OwnCode:
    """Import what a name stands for; what it prints goes to stderr. Raises UsageError or UnknownName."""
    where, _, what = name.rpartition(":")
    with redirect_stdout(sys.stderr):
        load = _from_file if where.endswith(".py") else _imported
        module, executed, beside = load(option, name, where)
    thing: Any = module
    for part in what.split("."):
        if not hasattr(thing, part):
            known = [other for other in dir(thing) if not other.startswith("_")]
            raise UnknownName(f"name in {where}", part, known)
        thing = getattr(thing, part)
    if not callable(thing):
        raise UsageError(f"{option} {name} is of type {type(thing).__name__}; name a function or a class")
    written_in = getattr(inspect.unwrap(thing), "__module__", None) or ""
    labels = [Path(where).stem if executed else where, written_in]
    paths = [getattr(module, "__file__", None) or "", _definition(thing)]
    texts = {path: read(path) for path in paths} | executed
    starts = [Source(label, path, texts[path]) for label, path in zip(labels, paths, strict=True) if path]
    helpers = _helpers(starts)
    imported_ones = [source for source in [*starts, *helpers] if source.path not in executed]
    there = [(one, source.text) for source in imported_ones if (one := beside.find(source)) is not None]
    stale = changed(there)
    sources = texts | {
        str(one.__file__): source_of(one, text) for one, text in there if one.__file__ in texts
    }
    for one, text in there:
        if one.__file__ not in stale:
            note(one, text)
    return OwnCode(option, name, thing, sources, helpers, stale, beside)


def _helpers(starts: Iterable[Source]) -> list[Source]:
    """What comes with these sources, by name; not they themselves."""
    starts = list(starts)
    known = {start.path for start in starts}
    found = {helper.name: helper for start in starts for helper in imported(start)}
    return [found[name] for name in sorted(found) if found[name].path not in known]


def _from_file(option: str, name: str, path: str) -> tuple[ModuleType, dict[str, bytes], Neighbours]:
    try:
        source = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(
            f"{option} {name}: {path!r} cannot be read ({error.strerror}); a path is looked up from "
            f"{os.getcwd()!r}"
        ) from None
    path = os.path.abspath(os.path.expanduser(path))
    with _explained(option, name, {path: source}):
        try:
            module, beside = _executed(path, source)
        except ImportError as error:
            if "no known parent package" not in str(error):
                raise
            raise UsageError(
                f"{option} {name} cannot be imported: {_told(error, {path})}; name it "
                f"{_in_its_package(path)}:{name.rpartition(':')[2]}, in the folder that holds the package"
            ) from None
    return module, {path: source}, beside


def _in_its_package(path: str) -> str:
    """What a file is called as a part of the folders around it that are packages, which the first is."""
    folder = Path(path).parent
    parts = [folder.name, Path(path).stem]
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
        parts.insert(0, folder.name)
    return ".".join(parts).removesuffix(".__init__")


def _executed(path: str, source: bytes) -> tuple[ModuleType, Neighbours]:
    """A file as a module, of exactly this source and those of the files beside it that it imports."""
    folder, stem = os.path.dirname(path), Path(path).stem
    found = [one for one in imported(Source(stem, path, source)) if one.path.startswith(folder + os.sep)]
    if path in _latest and _latest[path][0] == (source, found):
        return _latest[path][1:]
    beside = Neighbours(folder, found)
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)  # as for a script
    taken = sys.modules.get(stem)
    alone = stem not in sys.stdlib_module_names and getattr(taken, "__file__", path) == path
    label = stem if alone else f"{stem}_{hashlib.sha256(path.encode()).hexdigest()[:_DIGITS]}"
    spec = spec_from_file_location(label, path)
    assert spec is not None, "the name ends in .py"
    module = module_from_spec(spec)
    sys.modules[label] = module  # dataclasses and pickle look a class's module up there
    try:
        with beside.present():
            beside.forget_changed()
            exec(compile(source, path, "exec"), module.__dict__)
    except BaseException:
        sys.modules.pop(label, None)
        raise
    note(module, source)
    _latest[path] = ((source, found), module, beside)
    return module, beside


def _imported(option: str, name: str, label: str) -> tuple[ModuleType, dict[str, bytes], Neighbours]:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with _explained(option, name, {}):
        try:
            return importlib.import_module(label), {}, Neighbours("", ())
        except ModuleNotFoundError as error:
            if error.name is None or not f"{label}.".startswith(f"{error.name}."):
                raise  # something that it imports
            raise UsageError(
                f"{option} {name}: there is no module {error.name!r}; install it, or run this in the folder "
                "that holds it"
            ) from None


def _definition(thing: Callable[..., Any]) -> str:
    """The file where it is written, which need not be the one that names it; empty where that is none."""
    try:
        return inspect.getsourcefile(inspect.unwrap(thing)) or ""
    except TypeError:  # an object, or built in
        return ""


@contextmanager
def _explained(option: str, name: str, sources: Container[str]) -> Iterator[None]:
    try:
        yield
    except (LrwdError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UsageError(f"{option} {name} cannot be imported: {_told(error, sources)}") from error


def _told(error: BaseException, sources: Container[str]) -> str:
    text = " ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
    lines = [
        f" ({Path(frame.f_code.co_filename).name}, line {line})"
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_filename in sources
    ]
    return " ".join(text.split())[:_LONGEST] + "".join(lines[-1:])
