"""A cell's decay as a number in code, in whatever convention the code means."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lrwd_sweep.report.recommend.constructor import digits
from lrwd_sweep.science.conversion import Convention, Run
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task


def constant(task: Task | None) -> bool:
    """Whether η = 1 at every step, as far as anybody told us."""
    return task is not None and task.schedule is Schedule.FIXED and not task.warmup


@dataclass(frozen=True, slots=True)
class Strength:
    """The decay of one cell of a study, and the N of normalised decay, None where not known."""

    spec: StudySpec
    cell: Cell
    steps: int | None

    @property
    def own(self) -> Convention:
        """The convention of the study's rule."""
        return Convention(self.spec.optimizer.rule.value)

    @property
    def open(self) -> bool:
        """Whether N is a name in the code: it is not known, or another one after every restart."""
        return self.spec.optimizer.normalized and (self.steps is None or self.restarts)

    @property
    def restarts(self) -> bool:
        """Whether the study has warm restarts."""
        return self.spec.task is not None and self.spec.task.schedule is Schedule.RESTARTS

    @property
    def given(self) -> str:
        """The decay as code in the study's own convention."""
        number = self.number(self.own)
        assert number is not None, "it is what was swept"
        return number

    def number(self, convention: Convention) -> str | None:
        """The decay as code; None where the convention has no equivalent that lasts, or it is not known."""
        x = self._converted(convention)
        if x is None or not self.spec.optimizer.normalized:
            return None if x is None else digits(x)
        if self.open or self.steps is None:
            return f"{digits(x)} / N**0.5"
        return digits(x / math.sqrt(self.steps))

    def for_length(self, convention: Convention) -> str | None:
        """The decay of a run of N steps with the same λ_norm, as code; None where that is not known."""
        x = self._converted(convention)
        if x is None or self.steps is None or self.open:
            return None
        return f"{digits(x if self.spec.optimizer.normalized else x * math.sqrt(self.steps))} / N**0.5"

    def _converted(self, convention: Convention) -> float | None:
        """The cell's number in a convention; of normalised decay still times √N."""
        t = self.spec.task
        momentum = None if t is None else t.momentum
        run = Run(self.spec.optimizer.family, self.cell.lr, self.steps, momentum, constant(t))
        if not run.holds(self.own, convention):
            return None
        return run.convert(self.cell.weight_decay, self.own, convention)
