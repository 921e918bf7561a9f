"""Functions compiled by numba for the CPU, if numba is there and compiles."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from lrwd_sweep.errors import brief

_log = logging.getLogger(__name__)
_deciding = threading.Lock()
_told: set[str] = set()


def usable() -> bool:
    """Whether numba compiles here. Decided once for the process: an import that failed is not tried again."""
    with _deciding:
        return _compiles()


@cache
def _compiles() -> bool:
    """Try it on a small function, and say why not."""
    try:
        return bool(compiled(_twice)(1.0) == 2.0)
    except Exception as error:  # whatever a numba that does not fit its surroundings raises
        _log.info(
            "perceptrons and updates run as torch's operators, which is slower: numba cannot be used (%s)",
            brief(f"{type(error).__name__}: {error}"),
        )
        return False


def _twice(number: float) -> float:
    return number + number


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled for the types of its arguments when first called with them, and kept on disk if it can be.

    It runs without the interpreter's lock, and divides as the processor does. Every operation is carried out
    as written: with sums in any order (`fastmath`) a function that was compiled here and the same one from
    disk gave other bits. Raises ImportError where there is no numba.
    """
    import numba  # noqa: PLC0415  # slow to load, and not everywhere

    config: Any = numba.config
    if config.DISABLE_JIT:
        raise RuntimeError("NUMBA_DISABLE_JIT is set")
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher.enable_caching()
    except (RuntimeError, OSError) as error:  # neither the package's folder nor the user's can be written to
        _tell_unkept(*_refused(function, error))
        dispatcher._cache = _Kept(None)
    else:
        dispatcher._cache = _Kept(dispatcher._cache)
    return dispatcher


class _Kept:
    """What numba keeps on disk of one function; without it the function is compiled in every run."""

    def __init__(self, files: Any) -> None:  # numba's own cache, or None
        self.files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """What was compiled before for these types, or None."""
        found = self._tried("read", signature, context, "load_overload")
        if found is None:
            _tell("compiling the training loops for this machine")
        return found

    def save_overload(self, signature: Any, data: Any) -> None:
        """Keep what was compiled for these types."""
        self._tried("written", signature, data, "save_overload")

    def _tried(self, what: str, signature: Any, other: Any, method: str) -> Any:
        if self.files is None:
            return None
        try:
            return getattr(self.files, method)(signature, other)
        except Exception as error:  # a full disk, or a file that ends too early
            _tell_unkept(self.files.cache_path, error, what)
            self.files = None
            return None


def _refused(function: Callable[..., Any], error: Exception) -> tuple[str, Exception]:
    """The folder in which numba wanted to keep a function, and why it cannot."""
    beside = Path(function.__code__.co_filename).parent / "__pycache__"
    folder = os.environ.get("NUMBA_CACHE_DIR") or str(beside)
    try:
        os.makedirs(folder, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as refusal:
        return folder, refusal
    return folder, error


def _tell_unkept(folder: str, error: Exception, what: str = "written") -> None:
    """Say once that nothing is kept, wherever in the folders of the cache that was noticed."""
    reason = (isinstance(error, OSError) and error.strerror) or brief(f"{type(error).__name__}: {error}")
    again = "the training loops are compiled in every run; NUMBA_CACHE_DIR names another folder"
    _tell(f"numba's cache {folder!r} cannot be {what} ({reason}); {again}", "cache")


def _tell(text: str, key: str = "") -> None:
    if (key or text) not in _told:
        _told.add(key or text)
        _log.info("%s", text)
