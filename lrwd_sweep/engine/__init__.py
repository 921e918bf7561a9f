"""The engine: packs of lanes on a device."""

from __future__ import annotations

from lrwd_sweep.engine.pack import Stopped
from lrwd_sweep.engine.pool import Pool

__all__ = ["Pool", "Stopped"]
