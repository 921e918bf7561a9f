"""A study as it stands: specification, surface and separability, ready to be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lrwd_sweep.decay import Conventions, conventions
from lrwd_sweep.lattice import Cell, Lattice
from lrwd_sweep.separability import Comparison, Separability, analyse, compare
from lrwd_sweep.spec import Kind, StudySpec
from lrwd_sweep.surface import Surface
from lrwd_sweep.trial import Status, Trial


@dataclass(frozen=True, eq=False)
class Result:
    """One study's results in one metric."""

    name: str
    spec: StudySpec
    created: str  # ISO 8601, UTC
    trials: tuple[Trial, ...]
    surface: Surface
    separability: Separability

    @property
    def best(self) -> Cell | None:
        """The cell with the smallest seed mean, or None when no cell counts."""
        index = self.surface.best()
        return None if index is None else self.surface.cell(*index)

    def test_value(self, cell: Cell) -> float | None:
        """The seed mean of the metric's counterpart on the test split, which chose nothing; None if unknown."""
        metric = self.surface.metric.replace("val_", "test_").replace("train_", "test_")
        found = [
            trial.metrics[metric]
            for trial in self.trials
            if trial.cell == cell and trial.status is Status.COMPLETE and metric in trial.metrics
        ]
        return sum(found) / len(found) if found and metric.startswith("test_") else None

    def conventions(self, cell: Cell) -> Conventions:
        """The cell's decay in every convention."""
        t = self.spec.training
        if t is None:
            return conventions(self.spec.optimizer, cell.lr, cell.weight_decay, 0)
        return conventions(self.spec.optimizer, cell.lr, cell.weight_decay, t.steps, t.momentum)


def result(
    name: str, spec: StudySpec, created: str, trials: Sequence[Trial], *, metric: str | None = None
) -> Result:
    """Lay a study's trials out as a surface and analyse it."""
    raise AssertionError
