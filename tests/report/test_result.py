"""A result reads a study in the metric asked."""

from __future__ import annotations

import math

import pytest

from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.report.result import Result, Snapshot, result
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.science.surface import CellStatus
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.report.view.examples import study


def test_cap_is_that_of_the_metric_asked() -> None:
    found = study()
    assert found.surface.cap is None
    capped = result(found.name, found.spec, found.created, found.trials, cap=0.3)
    assert (capped.surface.cap, capped.spec.given_cap) == (0.3, 0.3)
    other = result(found.name, found.spec, found.created, found.trials, metric="val_error")
    assert other.surface.cap == pytest.approx(0.9)
    again = result(found.name, capped.spec, found.created, found.trials, metric="val_error")
    assert again.surface.cap == pytest.approx(0.9), "a stored cap belongs to the study's own metric"
    assert other.spec.metric == "val_error"


def test_an_unknown_metric_is_refused() -> None:
    imported = study(optimizer=Optimizer(None, DecayRule.LR_SCALED, "lion"), kind=Kind.IMPORT)
    for found in (study(), imported):
        with pytest.raises(UnknownName, match="val_los"):
            result(found.name, found.spec, found.created, found.trials, metric="val_los")


def test_the_best_point_is_the_surfaces_best_cell() -> None:
    found = study()
    index = found.surface.best()
    assert index is not None
    assert found.best == found.surface.cell(*index)


def test_a_study_without_a_complete_cell_has_no_best() -> None:
    found = study()
    lost = [trial for trial in found.trials if trial.status is not Status.COMPLETE]
    assert result("x", found.spec, "", lost).best is None


def restarted(at_restart: int | None = None) -> Result:
    """AdamWR of 7 epochs in cycles of 1, 2 and 4, whose loss is 3, 2 and 1 times λ at their ends.

    The lane of the smallest λ diverged after the second, that of the largest before the first.
    """
    lattice = Lattice((0.01,), (0.1, 0.2, 0.4))
    task = Task(epochs=7, schedule=Schedule.RESTARTS, t_0=1, t_mult=2)
    trials = []
    for cell, cycles in zip(lattice.cells(), (2, 3, 0), strict=True):
        ends = dict(zip((1, 3, 7), (3.0, 2.0, 1.0), strict=True))
        snapshots = {e: {"val_loss": k * cell.weight_decay} for e, k in list(ends.items())[:cycles]}
        status = Status.COMPLETE if cycles == 3 else Status.DIVERGED
        metrics = snapshots[7] if cycles == 3 else {}
        curves = {"val_loss": tuple(range(7))}
        trials.append(Trial(cell, 0, status, metrics, curves, "lost", snapshots))
    spec = StudySpec(Kind.GRID, Optimizer.parse("adamwr"), lattice, (0,), "val_loss", task)
    return result("wr", spec, "", trials, at_restart=at_restart)


def test_a_study_under_restarts_is_read_at_its_newest_snapshot_unless_asked() -> None:
    assert restarted().snapshot == Snapshot(3, 7)
    assert restarted().surface.values[0, 1] == pytest.approx([0.2])
    assert study().snapshot is None


def test_at_a_restart_metrics_and_curves_are_those_of_its_snapshot() -> None:
    for k, epoch, factor in ((1, 1, 3), (2, 3, 2), (3, 7, 1)):
        found = restarted(k)
        assert found.snapshot == Snapshot(k, epoch)
        assert str(found.snapshot) == f"at restart {k} (epoch {epoch})"
        assert found.surface.values[0, 1] == pytest.approx([0.2 * factor])
        assert {len(trial.curves["val_loss"]) for trial in found.trials} == {epoch}
        assert found.best is not None


def test_a_lane_counts_at_the_restarts_before_it_diverged() -> None:
    for k, status in ((1, CellStatus.COMPLETE), (2, CellStatus.COMPLETE), (3, CellStatus.DIVERGED)):
        surface = restarted(k).surface
        assert surface.status(0, 0) is status
        assert surface.status(0, 2) is CellStatus.DIVERGED


def test_conversions_at_a_restart_use_its_cycles_steps() -> None:
    for k, epochs in ((1, 1), (2, 2), (3, 4), (None, 4)):
        found = restarted(k)
        assert found.spec.task is not None
        n = epochs * found.spec.task.steps_per_epoch
        assert found.conventions(Cell(0.01, 0.2)).independent == pytest.approx(0.2 / math.sqrt(n)), k


def test_an_unknown_restart_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"at_restart=4: study 'wr' has 3, at .* 1, 3, 7; choose 1 to 3"):
        restarted(4)
    found = study()
    with pytest.raises(UsageError, match=r"at_restart=1: study 'study' has no snapshot"):
        result(found.name, found.spec, "", found.trials, at_restart=1)
