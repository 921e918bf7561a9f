"""Schedules: the multiplier η_t of step and decay, updated at every batch."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

EVALUATIONS = 12  # of a run by default


class Schedule(StrEnum):
    """The shape of η_t over a run."""

    FIXED = "fixed"  # 1
    STEP = "step"  # ×0.1 at 30 %, 60 % and 80 % of the run   (AdamW paper, Figure 1)
    COSINE = "cosine"  # 0.5 + 0.5 cos(π t/N)
    LINEAR = "linear"  # 1 − t/N
    RESTARTS = "restarts"  # cosine from 1 again after T₀, T₀·T_mult, … epochs   (SGDR; AdamW paper, B.2)


class DecaySchedule(StrEnum):
    """A multiplier of decay only, over the whole run, in place of η_t."""

    CONSTANT = "constant"
    STEP = "step"
    COSINE = "cosine"
    LINEAR = "linear"

    @property
    def shape(self) -> Schedule:
        """Return the schedule of the same shape."""
        return Schedule.FIXED if self is DecaySchedule.CONSTANT else Schedule(self.value)


@dataclass(frozen=True)
class Timetable:
    """A schedule over a run of a known length; epochs of `steps_per_epoch` batches, t counts batches from 0.

    η rises linearly to 1 over the first `warmup` epochs, and follows the schedule over the rest, down to
    `eta_min` instead of 0. Under restarts cycle i lasts T_i = T₀·T_mult^i epochs.
    """

    schedule: Schedule
    epochs: int
    steps_per_epoch: int
    warmup: int = 0
    t_0: int = 1
    t_mult: int = 1
    eta_min: float = 0.0
    decay: DecaySchedule | None = None  # of decay only; None: decay follows η

    def eta(self, t: int) -> float:
        """Return η_t for batch t, in [0, 1].

        >>> Timetable(Schedule.COSINE, 100, 1).eta(0), Timetable(Schedule.STEP, 100, 1).eta(30)
        (1.0, 0.1)
        """
        warm = self.warmup * self.steps_per_epoch
        if t < warm:
            return (t + 1) / warm
        start, end = self._cycle(t)
        return self.eta_min + (1 - self.eta_min) * _fall(self.schedule, t - start, end - start)

    @property
    def is_constant(self) -> bool:
        """True if η = 1 at every step, also for decay."""
        own = self.decay in (None, DecaySchedule.CONSTANT)
        return self.schedule is Schedule.FIXED and not self.warmup and own

    def decay_eta(self, t: int) -> float:
        """Return the multiplier of decay for batch t: η_t, or that of its own schedule, without warm-up.

        >>> Timetable(Schedule.COSINE, 100, 1, decay=DecaySchedule.LINEAR).decay_eta(25)
        0.75
        """
        return (
            self.eta(t)
            if self.decay is None
            else _fall(self.decay.shape, t, self.epochs * self.steps_per_epoch)
        )

    def steps_of_cycle(self, t: int) -> int:
        """Return N for normalized decay at batch t: the batches of its cycle, or of the run without restarts.

        AdamW paper, B.1 and B.2: under warm restarts the T in λ = λ_norm·√(b/(BT)) is that of the cycle.
        """
        if self.schedule is not Schedule.RESTARTS:
            return self.epochs * self.steps_per_epoch
        start, end = self._cycle(t)
        return end - start

    def _cycle(self, t: int) -> tuple[int, int]:
        """Return the first batch of the cycle of batch t, and of the next, even past the run's end."""
        found = bisect_right(self._bounds[1:-1], t)
        return self._bounds[found], self._bounds[found + 1]

    @cached_property
    def _bounds(self) -> tuple[int, ...]:
        ends = [self.warmup, self.epochs]
        if self.schedule is Schedule.RESTARTS:
            ends, length = [self.warmup], self.t_0
            while ends[-1] < self.epochs:
                ends.append(ends[-1] + length)
                length *= self.t_mult
        return tuple(epoch * self.steps_per_epoch for epoch in ends)

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Return the epochs, from 1, at whose end η restarts: the solutions to keep.

        >>> Timetable(Schedule.RESTARTS, 1800, 1, t_0=100, t_mult=2).snapshots
        (100, 300, 700, 1500)
        """
        if self.schedule is not Schedule.RESTARTS:
            return ()
        ends = (end // self.steps_per_epoch for _, end in pairwise(self._bounds))
        return tuple(end for end in ends if end <= self.epochs)


def _fall(schedule: Schedule, t: int, n: int) -> float:
    """Return a schedule at batch t of n, from 1 to 0 (the step schedule ends at 0.001)."""
    match schedule:
        case Schedule.FIXED:
            return 1.0
        case Schedule.STEP:
            return (1.0, 0.1, 0.01, 0.001)[sum(10 * t >= mark * n for mark in (3, 6, 8))]
        case Schedule.LINEAR:
            return 1 - t / n
        case _:
            return 0.5 + 0.5 * math.cos(math.pi * t / n)


def evaluated_epochs(epochs: int, every: int | None, snapshots: Sequence[int]) -> tuple[int, ...]:
    """Return the epochs, from 1, that end with an evaluation: every few, or about `EVALUATIONS` of a run.

    The first, the last and every snapshot are among them.
    """
    if every is None:
        found = {round(epochs ** (k / (EVALUATIONS - 1))) for k in range(EVALUATIONS)}
    else:
        found = {1, *range(every, epochs, every)}
    return tuple(sorted({*found, *snapshots, epochs}))
