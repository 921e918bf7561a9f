"""Compilers of the training loops: numba on a CPU, torch.compile on a GPU, and their fallbacks."""

import logging
import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from types import FunctionType
from typing import Any

import torch

from lrwd_sweep.errors import brief

Backend = str | Callable[..., Any]  # of torch.compile

_log = logging.getLogger(__name__)
_deciding = threading.Lock()
_told: set[str] = set()


def usable() -> bool:
    """Return True if numba compiles here. Decide once per process; do not retry a failed import."""
    with _deciding:
        return _compiles()


@cache
def _compiles() -> bool:
    """Compile a small function, and log why it failed."""
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
    """Compile with numba at the first call of each argument type, and cache on disk if possible.

    The code runs without the interpreter's lock, and divides as the processor does. Operations keep their
    order: with `fastmath` a function compiled here and the same one from disk gave different bits. Raises
    ImportError without numba.
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
    """numba's disk cache of one function; if it fails, the function is compiled in every run."""

    def __init__(self, files: Any) -> None:  # numba's own cache, or None
        self.files = files

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Load the code compiled for these types, or return None."""
        found = self._tried("read", signature, context, "load_overload")
        if found is None:
            _tell("compiling the training loops for this machine")
        return found

    def save_overload(self, signature: Any, data: Any) -> None:
        """Store the code compiled for these types."""
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
    """Return the folder that numba wanted to write to, and why it cannot."""
    beside = Path(function.__code__.co_filename).parent / "__pycache__"
    folder = os.environ.get("NUMBA_CACHE_DIR") or str(beside)
    try:
        os.makedirs(folder, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as refusal:
        return folder, refusal
    return folder, error


def _tell_unkept(folder: str, error: Exception, what: str = "written") -> None:
    """Log once that compiled code is not cached, with the first error."""
    reason = (isinstance(error, OSError) and error.strerror) or brief(f"{type(error).__name__}: {error}")
    again = "the training loops are compiled in every run; NUMBA_CACHE_DIR names another folder"
    _tell(f"numba's cache {folder!r} cannot be {what} ({reason}); {again}", "cache")


def _tell(text: str, key: str = "") -> None:
    if (key or text) not in _told:
        _told.add(key or text)
        _log.info("%s", text)


@cache
def torch_compiled(function: FunctionType, name: str, backend: Backend) -> Callable[..., None]:
    """Compile with torch.compile at the first call; call the function as it is if that fails.

    torch compiles one code object only a few times, so each name gets its own. A failure leaves the
    arguments unchanged, because the whole function is one graph.
    """
    code = function.__code__.replace(co_name=f"{function.__name__}_{name}")
    faster = torch.compile(FunctionType(code, function.__globals__), fullgraph=True, backend=backend)
    failed = False

    def call(*arguments: Any) -> None:
        nonlocal failed
        if not failed:
            try:
                faster(*arguments)
            except Exception as error:
                if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise
                failed = True
                reason = brief(f"{type(error).__name__}: {error}")
                _tell(f"updates are not compiled, which is slower: {reason}", "torch.compile")
            else:
                return
        function(*arguments)

    return call
