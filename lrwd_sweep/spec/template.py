"""Placeholders of a command: `{lr}`, with a factor `{lr*0.1}` or a format `{lr:.3e}`; `{{` is a brace."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from lrwd_sweep.errors import UsageError, arg, shown
from lrwd_sweep.science.lattice import canonical

PLACEHOLDERS = ("lr", "weight_decay", "seed", "out", "epochs", "optimizer")
_EXAMPLES: Mapping[str, float | int] = {"lr": 1e-3, "weight_decay": 1e-3, "seed": 1, "epochs": 1}  # numbers
_PLACEHOLDER = re.compile(
    r"\{\{|\}\}|\{(?P<name>\w+)(?:\*(?P<factor>[^{}:]*))?(?::(?P<format>[^{}]*))?\}|\{[^{}]*\}?"
)
_BRACES = ("{{", "}}")

Write = Callable[[float], str]


def placeholders(text: str, option: str) -> list[str]:
    """Return the names of a text's placeholders.

    Raises UsageError that names the option, for an unknown one and a factor or format that does not fit.

    >>> placeholders("--lr={lr:.3e} --min={lr*0.1} {{}}", "run")
    ['lr', 'lr']
    """
    found = []
    for match in _PLACEHOLDER.finditer(text):
        if match[0] in _BRACES:
            continue
        name, factor = match["name"], match["factor"]
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
            raise UsageError(
                f"{arg(option)}: unknown placeholder {shown(match[0])}; known: {known}; a brace is {{{{"
            )
        try:
            fits = factor is None or 0 < float(factor) < math.inf
            if factor is not None or match["format"] is not None:
                _written(match, _EXAMPLES[name], repr)
        except (KeyError, TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            raise UsageError(
                f"{arg(option)}: {shown(match[0])} has a factor or format that does not fit; write for "
                "example {lr*0.1} or {lr:.3e}"
            )
        found.append(name)
    return found


def fill(text: str, values: Mapping[str, Any], quote: Callable[[str], str] = str, write: Write = repr) -> str:
    """Fill in every placeholder that has a value; doubled braces become single.

    >>> fill("--lr={lr} --seed={seed} {{}}", {"lr": 0.001, "seed": 3})
    '--lr=0.001 --seed=3 {}'
    """

    def each(match: re.Match[str]) -> str:
        if match[0] in _BRACES:
            return match[0][0]
        return quote(_written(match, values[match["name"]], write))

    return _PLACEHOLDER.sub(each, text)


def fill_early(text: str, values: Mapping[str, Any], quote: Callable[[str], str] = str) -> str:
    """Fill in the placeholders of `values` only; all others, and doubled braces, stay.

    >>> fill_early("{optimizer} {lr} {{}}", {"optimizer": "adamw"})
    'adamw {lr} {{}}'
    """

    def each(match: re.Match[str]) -> str:
        if values.get(match["name"]) is None:
            return match[0]
        return quote(_written(match, values[match["name"]], repr))

    return _PLACEHOLDER.sub(each, text)


def _written(match: re.Match[str], value: Any, write: Write) -> str:
    if match["factor"] is not None:
        value = canonical(value * float(match["factor"]))
    if match["format"] is not None:
        return format(value, match["format"])
    return write(value) if isinstance(value, float) else str(value)
