"""Functions compiled by numba for the CPU. Raises ImportError where there is no numba."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
from numba.core import event

_log = logging.getLogger(__name__)


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


class _Told(event.Listener):
    """Logs that something of ours is compiled, which takes seconds, the first time that it is."""

    told = False

    def on_start(self, event: Any) -> None:
        """Before a function is compiled; one that is found on disk is not."""
        if not self.told and event.data["dispatcher"].py_func.__module__.startswith("lrwd_sweep."):
            self.told = True
            _log.info("compiling the training loops for this machine")

    def on_end(self, event: Any) -> None:
        """Of no interest."""


event.register("numba:compile", _Told())  # type: ignore[no-untyped-call]
