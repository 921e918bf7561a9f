"""lrwd-sweep: can the learning rate and the weight decay be tuned one at a time?

From Python, `sweep`, `compare` and `tpe` train what the command line's `grid`, `compare` and `tpe` train, and
`load` reads it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrwd_sweep.api import compare, load, studies, sweep, tpe
    from lrwd_sweep.errors import LrwdError
    from lrwd_sweep.study import Comparison, Study

__version__ = "0.1.0"

__all__ = ["sweep", "compare", "tpe", "load", "studies", "Study", "Comparison", "LrwdError"]  # noqa: RUF022

_HOMES = {
    "sweep": "api",
    "compare": "api",
    "tpe": "api",
    "load": "api",
    "studies": "api",
    "Study": "study",
    "Comparison": "study",
    "LrwdError": "errors",
}


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when it is first asked for: numpy, torch and the store are heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
