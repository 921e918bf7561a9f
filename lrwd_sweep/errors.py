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


def brief(text: object) -> str:
    """The beginning of what a library had to say, on one line.

    >>> brief(ValueError("no\\n  room"))
    'no room'
    """
    return " ".join(str(text).split())[:_BRIEF]


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
        super().__init__(f"unknown {kind} {name!r}; {hint}")


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
