"""Parsers of option values; each error names the option, the value and the remedy in one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from lrwd_sweep.errors import UnknownName, UsageError, shown

Choice = TypeVar("Choice", bound=StrEnum)

_MAX_MARGIN = 0.5  # from here on separable and product-coupled overlap
MOST = 10**9  # of anything that is counted


def whole(option: str, least: int = 1, most: int = MOST) -> Callable[[str | int], int]:
    """Return a parser of whole numbers from `least` to `most`; it raises UsageError."""

    def parse(text: str | int) -> int:
        try:
            value = int(text) if str(text).isascii() and "_" not in str(text) else int("")
        except ValueError:
            raise UsageError(
                f"{option} {shown(text)} is not a whole number; choose at least {least}"
            ) from None
        if value < least:
            raise UsageError(f"{option} {value} is too small; choose at least {least}")
        if value > most:
            raise UsageError(f"{option} {value} is too large; choose at most {most}")
        return value

    return parse


def number(option: str, least: float = -math.inf) -> Callable[[str | float], float]:
    """Return a parser of finite numbers of at least `least`; it raises UsageError."""

    def parse(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            raise UsageError(
                f"{option} {shown(text)} is not a number; write for example {option} 0.25"
            ) from None
        if not math.isfinite(value):
            raise UsageError(f"{option} {text!r} is not finite; leave the option out for no limit")
        if value < least:
            raise UsageError(f"{option} {text} is too small; choose at least {least:g}")
        return value

    return parse


def margin(text: str | float) -> float:
    """Parse the margin of a verdict, above 0 and at most 0.5. Raises UsageError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _MAX_MARGIN:
        raise UsageError(
            f"--margin {shown(text)} is not a number above 0 and at most 0.5; write one like 0.25"
        )
    return value


def fraction(option: str, below: float = 1.0, like: str = "0.9") -> Callable[[str | float], float]:
    """Return a parser of numbers from 0 to less than `below`; it raises UsageError."""

    def parse(text: str | float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < below:
            wanted = f"from 0 to below {below:g}" if below <= 1 or value >= below else "of at least 0"
            raise UsageError(f"{option} {shown(text)} is not a number {wanted}; write one like {like}")
        return value

    return parse


def pair(option: str) -> Callable[[str], tuple[float, float]]:
    """Return a parser of two numbers with a comma between them; it raises UsageError."""
    number = fraction(option)

    def parse(text: str) -> tuple[float, float]:
        first, comma, second = text.partition(",")
        if not comma:
            raise UsageError(f"{option} {shown(text)} is not two numbers; write {option} 0.9,0.999")
        return number(first), number(second)

    return parse


def one_of(kind: str, choices: type[Choice]) -> Callable[[str], Choice]:
    """Return a parser of the names in `choices`; it raises UnknownName."""

    def parse(text: str) -> Choice:
        try:
            return choices(text)
        except ValueError:
            raise UnknownName(kind, text, choices) from None

    return parse
