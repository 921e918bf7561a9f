"""The texts of a CSV file: read as numbers, and shown cut to one line."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lrwd_sweep.science.lattice import plain_float

_LONGEST = 60  # characters of a value that is shown
_MOST = 5  # values that are listed


def number(text: str) -> float:
    """The number that `text` is, nan and inf included. Raises ValueError, saying what it is instead."""
    if not text:
        raise ValueError("is empty; it needs a number")
    try:
        return plain_float(text)
    except ValueError:
        raise ValueError("is not a number" + _remedy(text)) from None


def is_number(text: str) -> bool:
    """Whether `number` reads it."""
    try:
        number(text)
    except ValueError:
        return False
    return True


def _remedy(text: str) -> str:
    if text.endswith("%"):
        return "; leave out the %"
    if re.fullmatch(r"[+-]?[\d.]*,\d+(e[+-]?\d+)?", text, re.IGNORECASE):
        return "; write it with a decimal point, in the whole file"
    return ""


def shown(text: str) -> str:
    """A value of the file in quotes, cut to what fits on a line.

    >>> shown("x" * 70)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'"
    """
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")


def some(texts: Iterable[str], most: int = _MOST) -> str:
    """The first of them and how many more there are.

    >>> some("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    texts = list(texts)
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
