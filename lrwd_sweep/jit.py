"""Functions compiled by numba for the CPU. Raises ImportError where there is no numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled for the types of its arguments when first called with them, and kept on disk if it can be.

    It runs without the interpreter's lock, and divides as the processor does. Every operation is carried out
    as written: with sums in any order (`fastmath`) a function that was compiled here and the same one from
    disk gave other bits.
    """
    compiler = partial(numba.njit, nogil=True, error_model="numpy")
    try:
        return compiler(cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return compiler()(function)
