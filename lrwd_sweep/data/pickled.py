"""Reading the pickles that data sets are published in, without running anything that is in them.

A pickle is a program for a small stack machine. Here is the part of that machine that builds containers,
text, numbers and plain numpy arrays. The names that a pickle may mention stand for constructors of this
module; no other name is looked up, nothing is imported, and no operation can call anything else.
"""

from __future__ import annotations

import math
import mmap
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from lrwd_sweep.data.images import broken

_TYPES = ("b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Refused(Exception):
    """The pickle asks for something that a data set does not need."""


@dataclass(slots=True)
class _Type:
    """A numpy dtype."""

    code: str
    order: str = "|"

    def build(self, state: Any) -> None:
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise _Refused(f"the byte order {order!r}")
        self.order = order

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order.strip("|") + self.code)


@dataclass(slots=True)
class _Array:
    """A numpy array, empty until its content is known."""

    value: np.ndarray[Any, Any] = field(default_factory=lambda: np.empty(0, np.uint8))

    def build(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.fill(raw, kind, shape, "F" if fortran else "C")

    def fill(self, raw: Any, kind: Any, shape: Any, order: Any) -> None:
        content = raw.encode("latin-1") if isinstance(raw, str) else raw  # a str of Python 2 holds bytes
        if not isinstance(kind, _Type) or not isinstance(content, bytes | bytearray):
            raise _Refused("an array of objects")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise _Refused("an array without a shape")
        if math.prod(shape) * kind.dtype.itemsize != len(content):
            raise _Refused(f"an array of {len(content)} bytes with another shape")
        self.value = np.frombuffer(content, kind.dtype).reshape(shape, order=order)


@dataclass(frozen=True, slots=True)
class _Name:
    """One of the constructors below, by what numpy calls it."""

    constructor: str

    def call(self, arguments: tuple[Any, ...]) -> Any:
        if self.constructor == "array":
            return _Array()
        if self.constructor == "dtype":
            code = _text(arguments[0])
            if code not in _TYPES:
                raise _Refused(f"the type {code!r}")
            return _Type(code)
        if self.constructor == "buffer":
            array = _Array()
            raw, kind, shape, order = arguments
            array.fill(raw, kind, shape, order)
            return array
        if self.constructor == "bytes" and _text(arguments[1]).replace("-", "") == "latin1":
            return _text(arguments[0]).encode("latin-1")
        raise _Refused(f"a call of {self.constructor}")


_NAMES = {
    ("numpy", "ndarray"): _Name("ndarray"),
    ("numpy", "dtype"): _Name("dtype"),
    ("numpy.core.multiarray", "_reconstruct"): _Name("array"),
    ("numpy._core.multiarray", "_reconstruct"): _Name("array"),
    ("numpy.core.numeric", "_frombuffer"): _Name("buffer"),
    ("numpy._core.numeric", "_frombuffer"): _Name("buffer"),
    ("_codecs", "encode"): _Name("bytes"),
}


@dataclass(slots=True)
class _Machine:
    """The stack machine, an operation at a time."""

    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)  # heights of the stack
    memo: dict[int, Any] = field(default_factory=dict)

    def do(self, name: str, argument: Any) -> None:  # noqa: PLR0912 - one branch per kind of operation
        """One operation of pickle's. Raises _Refused for those that no data set needs."""
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in ("TUPLE", "LIST", "DICT"):
            stack.append(_COLLECTED[name](self._since_mark()))
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._since_mark()
            _container(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if name == "SETITEM" else self._since_mark()
            _container(stack[-1], dict).update(_pairs(items))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_named(*(argument.split(" ", 1) if name == "GLOBAL" else self._pop(2))))
        elif name in ("REDUCE", "BUILD"):
            self._construct(name)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise _Refused(f"the operation {name}")

    def _construct(self, name: str) -> None:
        (argument,) = self._pop(1)
        if name == "BUILD":
            if not isinstance(self.stack[-1], _Array | _Type):
                raise _Refused("state for an object")
            self.stack[-1].build(argument)
            return
        (constructor,) = self._pop(1)
        if not isinstance(constructor, _Name):
            raise _Refused("a call")
        self.stack.append(constructor.call(argument))

    def _pop(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def _since_mark(self) -> list[Any]:
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a file, its keys as text and its arrays as numpy's. Raises DataError."""
    machine = _Machine()
    try:
        # A map, unlike a file, sets aside no more for a length that the file only claims.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for operation, argument, _ in pickletools.genops(cast("IO[bytes]", content)):
                machine.do(operation.name, argument)
        (table,) = machine.stack
        return {
            _text(key): value.value if isinstance(value, _Array) else value for key, value in table.items()
        }
    except OSError as error:
        raise broken(path, f"cannot be read: {error.strerror}") from None
    except _Refused as error:
        raise broken(path, f"is no data: its pickle holds {error}") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise broken(path, f"is no whole pickle of a data set ({error})") from None


def _named(module: Any, name: Any) -> _Name:
    try:
        return _NAMES[_text(module), _text(name)]
    except KeyError:
        raise _Refused(f"the name {module}.{name}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise _Refused(f"{type(value).__name__} for a text")
    return value if isinstance(value, str) else value.decode("latin-1")


def _pairs(items: list[Any]) -> dict[Any, Any]:
    # A tuple in a tuple in … would overflow the stack when hashed.
    if not all(isinstance(key, str | bytes) for key in items[::2]):
        raise _Refused("a key that is no text")
    return dict(zip(items[::2], items[1::2], strict=True))


def _container(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise _Refused(f"items for {type(value).__name__}")
    return value


_COLLECTED: dict[str, Callable[[list[Any]], Any]] = {"TUPLE": tuple, "LIST": list, "DICT": _pairs}
