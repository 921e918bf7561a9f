"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable

from lrwd_sweep.data import digits
from lrwd_sweep.data.splits import Split, Splits

LOADERS: dict[str, Callable[[], Splits]] = {"digits": digits.load}

__all__ = ["LOADERS", "Split", "Splits"]
