"""Every error that a user can cause.

LrwdError
├── UsageError          exit 2   the command line, a preset, a CSV file or a spec is wrong
│   ├── UnknownName              a name that does not exist; carries the near ones
│   └── SpecMismatch             the study exists with another specification
├── HostError           exit 3   the store, the data set or the device is not usable
│   ├── StoreError
│   ├── DataError
│   └── DeviceError
├── NothingToReport     exit 4
└── GateFailed          exit 1   the report is written, and a gate on it failed

A training run whose loss becomes NaN is not an error: it is an outcome (`trial.Status.DIVERGED`).

A message names an argument by `arg`, never as an option: `f"{arg('warmup', 60)} leaves nothing"`. Names are
those of the Python keywords. `str(error)` spells them so, `warmup=60 leaves nothing`; the command line prints
`error.spelled(option_text)`, `--warmup 60 leaves nothing`. To put one error's message into another, use
`error.text`, which keeps both spellings possible.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Set
from difflib import get_close_matches
from typing import Any

_BRIEF = 160  # characters
_SHOWN = 80
_ARGUMENT = 320  # of text: a path in full
_NAME, _VALUE = "\ufdd0", "\ufdd1"  # noncharacters around a name and before its value
_WORD = re.compile(r"[\w@%+=:,./^-]+")  # needs no quotes in a shell


def brief(text: object) -> str:
    """Return the beginning of a library's message, on one line.

    >>> brief(ValueError("no\\n  room"))
    'no room'
    """
    return " ".join(str(text).split())[:_BRIEF]


def shown(value: object, most: int = _SHOWN) -> str:
    """Return a user's value for a message: its `repr` on one line, cut; of an array its shape.

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
    return text if len(text) <= most else f"{text[: most - 1]}…"


def arg(name: str, *value: object) -> str:
    """Mark an argument in an error's message by its name, and its value if given; see above.

    >>> str(UsageError(f"{arg('epochs', 0)} is too small; see {arg('preset')}"))
    'epochs=0 is too small; see preset'
    """
    texts: list[str] = []
    for one in value:
        most = _ARGUMENT if isinstance(one, str) else _SHOWN
        plain = isinstance(one, str) and len(one) <= most and _WORD.fullmatch(one)
        texts += [str(one) if plain else shown(one, most), shown(one, most)]
    return _NAME + _VALUE.join([name, *texts]) + _NAME


class LrwdError(Exception):
    """Base of every error that a user can cause; its text is one line with the value and the remedy."""

    exit_code = 5

    @property
    def text(self) -> str:
        """The message with its arguments marked."""
        return str(self.args[0]) if self.args else ""

    @property
    def begins_with_argument(self) -> bool:
        """True if the message says first which argument is wrong."""
        return self.text.startswith(_NAME)

    def spelled(self, spell: Callable[..., str]) -> str:
        """Return the message with every argument as `spell` writes it.

        `spell` takes the name and, if there is a value, its text for a shell and its `repr`.
        """
        parts = self.text.split(_NAME)
        parts[1::2] = [spell(*part.split(_VALUE)) for part in parts[1::2]]
        return "".join(parts)

    def __str__(self) -> str:
        return self.spelled(lambda name, _="", *shown: "=".join([name, *shown]))


class UsageError(LrwdError):
    """The command line, a preset, a CSV file or a specification is wrong."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that does not exist; the message names the near ones, or all if none is near.

    `meant` maps names in lower case to what their users mean, where spelling does not lead there.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str] = (), meant: Mapping[str, str] | None = None
    ) -> None:
        names = sorted(known) if isinstance(known, Set) else list(known)
        near = get_close_matches(name, names, n=3, cutoff=0.6)
        if right := (meant or {}).get(name.strip().lower()):
            near = [right]
        if near:
            hint = f"did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?"
        elif names:
            hint = f"known: {', '.join(names[:12])}" + (", …" if len(names) > 12 else "")
        else:
            hint = "there is none yet"
        super().__init__(f"unknown {kind} {shown(name)}; {hint}")

    def __reduce__(self) -> tuple[Any, ...]:
        return UsageError, self.args  # between processes; this class builds its message from other arguments


class SpecMismatch(UsageError):
    """The study exists in the store with another specification."""


class HostError(LrwdError):
    """The store, the data set or the device is not usable."""

    exit_code = 3


class StoreError(HostError):
    """The database cannot be opened, read or written."""


class DataError(HostError):
    """A data set is missing or damaged."""


class DeviceError(HostError):
    """The device does not exist or has no memory left."""


class NothingToReport(LrwdError):
    """The store holds nothing to report."""

    exit_code = 4


class GateFailed(LrwdError):
    """A gate on a report failed; no other error has this exit code."""

    exit_code = 1
