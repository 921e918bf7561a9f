"""Values as a call from Python gives them: names of functions, numbers of numpy, texts."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from lrwd_sweep.errors import UsageError, arg

Named = str | Callable[..., Any]  # a name, or a function or class that has one


def name_of(keyword: str, given: Named) -> str:
    """Return the name by which a function or class is imported, `package.module:NAME`; text is its own name.

    Raises UsageError for a lambda, an object, or a cell of a notebook: another program could not find it.

    >>> from fractions import Fraction
    >>> name_of("net", Fraction.from_float)
    'fractions:Fraction.from_float'
    """
    if isinstance(given, str):
        return given
    module, name = (getattr(given, key, None) for key in ("__module__", "__qualname__"))
    found: Any = None if module == "__main__" else sys.modules.get(str(module))
    for part in str(name).split("."):
        found = getattr(found, part, None)
    if found is None or found != given:
        what = name or f"of type {type(given).__name__}"
        raise UsageError(
            f"{keyword} {what} cannot be found again by its name; write the function or class that makes it "
            "to a file (in a notebook, by a cell that begins with %%writefile my.py) and give "
            f"{keyword}='./my.py:NAME'"
        )
    return f"{module}:{name}"


def number(value: Any) -> Any:
    """Return a number of numpy or torch as Python's own; anything else unchanged."""
    try:
        return value.item() if hasattr(value, "item") else value
    except (TypeError, ValueError, RuntimeError):  # several numbers
        return value


def finite(name: str, value: Any) -> float:
    """Return a finite number. Raises UsageError for anything else."""
    found = number(value)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise UsageError(f"{arg(name, value)} is not a finite number; write for example {arg(name, 2.5)}")
    return float(found)


def whole(name: str, value: Any, most: int = 10**9) -> int:
    """Return a whole number from 1 to `most`. Raises UsageError for anything else."""
    found = number(value)
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= most:
        raise UsageError(f"{arg(name, value)} is not a whole number from 1 to {most}")
    return found


def refuse_other_than_text(**given: object) -> None:
    """Raise UsageError for an argument that is neither text nor None."""
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{arg(name, value)} is not text")
