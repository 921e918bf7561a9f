"""lrwd-sweep: can the learning rate and the weight decay be tuned one at a time?

From Python, `sweep`, `compare` and `tpe` do what `grid`, `compare` and `tpe` do on the command line, and
`load` reads the results.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrwd_sweep.api import compare, load, studies, sweep, tpe
    from lrwd_sweep.errors import LrwdError
    from lrwd_sweep.report.trained_study import Comparison, Study

__version__ = "0.1.0"

__all__ = ["sweep", "compare", "tpe", "load", "studies", "Study", "Comparison", "LrwdError"]  # noqa: RUF022


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: numpy, torch and the store are slow to load."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "errors" if name == "LrwdError" else "api"
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
