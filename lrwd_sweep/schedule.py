"""Schedules: the multiplier η_t of both step and decay, updated at every batch."""

from __future__ import annotations

import math
from enum import StrEnum


class Schedule(StrEnum):
    """How η_t moves over a run of N batches; t counts from 0."""

    FIXED = "fixed"  # 1
    STEP = "step"  # ×0.1 at 30 %, 60 % and 80 % of the run   (paper, Figure 1)
    COSINE = "cosine"  # 0.5 + 0.5 cos(π t/N)

    def eta(self, t: int, n: int) -> float:
        """η_t for batch t of n, in [0, 1].

        >>> Schedule.COSINE.eta(0, 100), Schedule.STEP.eta(30, 100)
        (1.0, 0.1)
        """
        if self is Schedule.COSINE:
            return 0.5 + 0.5 * math.cos(math.pi * t / n)
        if self is Schedule.STEP:
            return (1.0, 0.1, 0.01, 0.001)[sum(10 * t >= mark * n for mark in (3, 6, 8))]
        return 1.0
