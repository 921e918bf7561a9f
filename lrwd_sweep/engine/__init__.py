"""The engine: packs of lanes on a device."""

from __future__ import annotations

from lrwd_sweep.engine.pool import Pool
from lrwd_sweep.engine.trainer import Stopped

__all__ = ["Pool", "Stopped"]
