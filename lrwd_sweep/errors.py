"""Everything that can go wrong, by whose turn it is to act.

LrwdError
├── UsageError          exit 2   the command line, a preset, a CSV file or a spec is wrong
│   ├── UnknownName              a name that does not exist; carries the near ones
│   └── SpecMismatch             the study exists with another specification
├── HostError           exit 3   the store, the data set or the device is not usable
│   ├── StoreError
│   ├── DataError
│   └── DeviceError
├── NothingToReport     exit 4
└── GateFailed          exit 1   the report is out, and does not hold what was asked of it

A training run whose loss becomes NaN is none of these: it is an outcome (`trial.Status.DIVERGED`).
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from difflib import get_close_matches

_BRIEF = 160  # characters
_SHOWN = 80


def brief(text: object) -> str:
    """The beginning of what a library had to say, on one line.

    >>> brief(ValueError("no\\n  room"))
    'no room'
    """
    return " ".join(str(text).split())[:_BRIEF]


def shown(value: object) -> str:
    """A value of the user for a message: its `repr` on one line, cut; of a tensor or an array its shape.

    >>> shown("adamv"), shown(list(range(99)))
    ("'adamv'", '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, …')
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # it is the user's class
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


class LrwdError(Exception):
    """Base of every error that a person can cause; its text is one line with the value and the remedy."""

    exit_code = 5


class UsageError(LrwdError):
    """The command line, a preset, a CSV file or a specification is wrong."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that does not exist; the message names the near ones, or all when none is near."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known) if isinstance(known, Set) else list(known)
        near = get_close_matches(name, names, n=3, cutoff=0.6)
        if near:
            hint = f"did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?"
        elif names:
            hint = f"known: {', '.join(names[:12])}" + (", …" if len(names) > 12 else "")
        else:
            hint = "there is none yet"
        super().__init__(f"unknown {kind} {shown(name)}; {hint}")


class SpecMismatch(UsageError):
    """The study exists in the store with another specification."""


class HostError(LrwdError):
    """The machine around us is not as needed: store, data set or device."""

    exit_code = 3


class StoreError(HostError):
    """The database cannot be opened, read or written."""


class DataError(HostError):
    """A data set is not there or not what it should be."""


class DeviceError(HostError):
    """The device is not there, or has no room."""


class NothingToReport(LrwdError):
    """The store holds nothing that the report was asked for."""

    exit_code = 4


class GateFailed(LrwdError):
    """A report does not hold what was asked of it; nothing else ends with this code."""

    exit_code = 1
