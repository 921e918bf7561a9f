"""Whether imported modules are what their files say by now: Python reads a file once, and people write on."""

from __future__ import annotations

import dis
import marshal
import os
import sys
import time
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from inspect import unwrap
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

_HEADER = 16  # bytes in front of the code in a .pyc
_OF_THE_TEXT = ("__doc__", "__firstlineno__", "__static_attributes__")  # that a class notes of its source

# By module: its spec, in whose place a reload puts another, and the source that it was made from.
_known: WeakKeyDictionary[ModuleType, tuple[object, bytes]] = WeakKeyDictionary()


def note(module: ModuleType, text: bytes) -> None:
    """Remember the source that a module was made from, unless that is known."""
    if not _is_known(module):
        _known[module] = (_spec(module), text)


def source_of(module: ModuleType, text: bytes) -> bytes:
    """The source that a module was made from, as far as that is known, where its file says `text` by now.

    It is `text` too where that does the same, be it in other words.
    """
    before = _known[module][1] if _is_known(module) else text
    return text if _is_plain(module) and _alike(before, text) else before


def changed(modules: Sequence[tuple[ModuleType, bytes]]) -> list[str]:
    """The files of these modules that do something else by now; every module is given with its file's text.

    What was imported in another way than Python's, as by a hook that rewrites it, is taken as it is.
    """
    plain = [(module, text) for module, text in modules if _is_plain(module)]
    found = {str(module.__file__) for module, text in plain if source_of(module, text) != text}
    newer = {str(module.__file__): text for module, text in plain if _is_newer(str(module.__file__))}
    for module, text in plain if newer else ():
        path = str(module.__file__)
        if path in newer and not _is_known(module) and _was_compiled_otherwise(module, text):
            found.add(path)
        for code in _codes(vars(module), {module.__name__ for module, _ in plain}):
            where = code.co_filename
            if where in newer and _shape(code) not in _shapes(newer[where])[code.co_qualname]:
                found.add(where)
    return sorted(found)


def _spec(module: ModuleType) -> object:
    return getattr(module, "__spec__", None)


def _is_known(module: ModuleType) -> bool:
    return module in _known and _known[module][0] is _spec(module)


def _is_plain(module: ModuleType) -> bool:
    return type(getattr(_spec(module), "loader", None)) is SourceFileLoader


def _is_newer(path: str) -> bool:
    """Whether a file was written since this program started."""
    try:
        return os.path.getmtime(path) > _STARTED
    except OSError:
        return True


def _started() -> float:
    """When this program started, in seconds since the epoch; 0 where the system does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


_STARTED = _started()


def _was_compiled_otherwise(module: ModuleType, text: bytes) -> bool:
    """Whether what Python has kept of its last import is other code; no, where it keeps nothing."""
    if sys.dont_write_bytecode:
        return False
    try:
        kept = marshal.loads(Path(str(module.__cached__)).read_bytes()[_HEADER:])
    except (OSError, ValueError, EOFError, TypeError, AttributeError):
        return False
    return _shape(kept) != _shape(_compiled(text))


def _alike(one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    codes = [_compiled(text) for text in (one, other)]
    return None not in codes and _shape(codes[0]) == _shape(codes[1])


@lru_cache(maxsize=256)
def _compiled(text: bytes) -> CodeType | None:
    """A module's code; None where it is no Python."""
    try:
        return compile(text, "", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@lru_cache(maxsize=256)
def _shapes(text: bytes) -> Mapping[str, set[Hashable]]:
    """What all functions of a source do, by name: there may be several of one name."""
    found = defaultdict[str, set[Hashable]](set)
    left = [_compiled(text)]
    while left:
        if code := left.pop():
            found[code.co_qualname].add(_shape(code))
            left += [value for value in code.co_consts if isinstance(value, CodeType)]
    return found


@lru_cache(maxsize=2**16)
def _shape(code: CodeType | None) -> Hashable:
    """What code does, wherever it stands in its file and whatever is said of it there."""
    if code is None:
        return None
    steps: list[Hashable] = []
    for step in dis.get_instructions(code):
        if step.opname == "STORE_NAME" and step.argval in _OF_THE_TEXT:
            steps.pop()  # what is stored
        else:
            steps.append((step.opname, _plain(step.argval)))
    return hash((code.co_name, code.co_argcount, code.co_kwonlyargcount, code.co_flags, tuple(steps)))


def _plain(value: Any) -> Hashable:
    if isinstance(value, CodeType):
        return _shape(value)
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, frozenset):
        return frozenset(map(_plain, value))
    return type(value).__name__, repr(value)


def _codes(names: Mapping[str, Any], modules: set[str], around: tuple[type, ...] = ()) -> Iterator[CodeType]:
    """The code of functions by these names, and of the methods of classes that these modules define."""
    for value in list(names.values()):
        if isinstance(value, type):
            if value.__module__ in modules and value not in around:
                yield from _codes(vars(value), modules, (*around, value))
        else:
            yield from (function.__code__ for function in _functions(value))


def _functions(value: object) -> Iterator[FunctionType]:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    for one in (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,):
        if isinstance(one, FunctionType) and isinstance(found := unwrap(one), FunctionType):
            yield found
