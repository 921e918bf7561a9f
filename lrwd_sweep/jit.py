"""Functions compiled by numba for the CPU. Raises ImportError where there is no numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numba

SUMS = {"reassoc", "contract", "nsz"}  # sums in any order; NaN and infinity are what they are elsewhere

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function, **options: object) -> Function:
    """Compiled for the types of its arguments when first called with them, and kept on disk if it can be.

    It runs without the interpreter's lock, and divides as the processor does.
    """
    compiler = partial(numba.njit, nogil=True, error_model="numpy", **options)
    try:
        made: Function = compiler(cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        made = compiler()(function)
    return made


def summing(function: Function) -> Function:
    """The same, where sums may be taken in any order."""
    return compiled(function, fastmath=SUMS)
