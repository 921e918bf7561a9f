"""Functions compiled by numba for the CPU. Raises ImportError where there is no numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba

SUMS = {"reassoc", "contract", "nsz"}  # sums in any order; NaN and infinity are what they are elsewhere


def compiled(function: Callable[..., Any], **options: object) -> Any:
    """Compiled for the types of its arguments when first called with them, and kept on disk if it can be.

    It runs without the interpreter's lock, and divides as the processor does.
    """
    compiler = partial(numba.njit, nogil=True, error_model="numpy", **options)
    try:
        return compiler(cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return compiler()(function)


def summing(function: Callable[..., Any]) -> Any:
    """The same, where sums may be taken in any order."""
    return compiled(function, fastmath=SUMS)
