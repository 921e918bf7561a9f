"""A result reads a study at the requested restart; other metrics and caps are tests of the command."""

from __future__ import annotations

import math

import pytest

from lrwd_sweep.report.result import Result, Snapshot, result
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.surface import CellStatus
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises


def restarted(at_restart: int | None = None) -> Result:
    """Return AdamWR in cycles of 1, 2 and 4 epochs; one lane diverged after two of them, one at once."""
    lattice = Lattice((0.01,), (0.1, 0.2, 0.4))
    trials = []
    for cell, cycles in zip(lattice.cells(), (2, 3, 0), strict=True):
        ends = list(zip((1, 3, 7), (3.0, 2.0, 1.0), strict=True))[:cycles]
        snapshots = {epoch: {"val_loss": k * cell.weight_decay} for epoch, k in ends}
        status = Status.COMPLETE if cycles == 3 else Status.DIVERGED
        curves = {"val_loss": tuple(map(float, range(7)))}
        trials.append(Trial(cell, 0, status, snapshots.get(7, {}), curves, "lost", snapshots))
    task = Task(epochs=7, schedule=Schedule.RESTARTS, t_0=1, t_mult=2)
    spec = StudySpec(Kind.GRID, Optimizer.parse("adamwr"), lattice, (0,), "val_loss", task)
    return result("wr", spec, "", trials, at_restart=at_restart)


def test_study_with_restarts_is_read_at_a_snapshot() -> None:
    assert_raises(r"at_restart=4: study 'wr' has 3, at .* 1, 3, 7; choose 1 to 3", restarted, 4)
    for k, at, epoch, factor, status in (
        (1, 1, 1, 3, CellStatus.COMPLETE),
        (2, 2, 3, 2, CellStatus.COMPLETE),
        (None, 3, 7, 1, CellStatus.DIVERGED),  # by default the last
    ):
        found = restarted(k)
        assert found.snapshot == Snapshot(at, epoch)
        assert found.surface.values[0, 1] == pytest.approx([0.2 * factor])
        assert {len(trial.curves["val_loss"]) for trial in found.trials} == {epoch}
        assert found.surface.status(0, 0) is status, "a lane counts until it diverges"
        assert found.surface.status(0, 2) is CellStatus.DIVERGED
        n = {1: 1, 2: 2, 3: 4}[at] * 6  # steps of the cycle
        assert found.conventions(Cell(0.01, 0.2)).independent == pytest.approx(0.2 / math.sqrt(n))
