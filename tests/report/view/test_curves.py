"""Curves are of cells that a reader can find: the best, and what shares its α or λ."""

from __future__ import annotations

import numpy as np
import pytest

from lrwd_sweep.report.result import result
from lrwd_sweep.report.view.curves import curves
from lrwd_sweep.report.view.quantity import Quantity
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.report.view.examples import study
from tests.report.view.measured import EPOCHS, measured

LOSS = Quantity("val_loss")


def test_a_lone_study_shows_its_best_cell_first_then_the_ends_of_its_row_and_column() -> None:
    found = measured()
    assert found.surface.best() == (2, 2)
    chart = curves([found], LOSS)
    assert chart is not None
    assert [series.about for series in chart.series] == [
        "best cell: α 2⁻⁷, λ 2⁻⁵",
        "same α, λ 2⁻⁷",
        "same α, λ 2⁻³",
        "α 2⁻⁸, same λ",  # at the lowest α a seed is missing
        "α 2⁻⁵, same λ",
    ]
    assert chart.series[0].y[-1] == pytest.approx(found.surface.mean[2, 2])


def test_several_studies_show_the_best_cell_of_each() -> None:
    chart = curves([measured("a", "adam"), measured("b", "adamw")], LOSS)
    assert chart is not None
    assert [series.about for series in chart.series] == [
        "adam, best: α 2⁻⁷, λ′ 2⁻⁵",
        "adamw, best: α 2⁻⁷, λ 2⁻⁵",
    ]
    assert chart.title == "val_loss by epoch, mean of 3 seeds"
    assert (chart.x.low, chart.x.high) == (1, EPOCHS)


def test_a_lattice_of_one_learning_rate_shows_five_weight_decays() -> None:
    lattice = Lattice((0.001,), tuple(2.0 ** np.arange(-12, 0)))
    trials = [
        Trial(cell, 0, Status.COMPLETE, {"val_loss": loss}, {"val_loss": (1.0, loss)})
        for cell, loss in zip(lattice.cells(), np.linspace(0.1, 0.9, 12), strict=True)
    ]
    spec = StudySpec(Kind.GRID, Optimizer.parse("adamw"), lattice, (0,), "val_loss", Task())
    chart = curves([result("row", spec, "", trials)], LOSS)
    assert chart is not None
    assert chart.title.endswith("one seed")
    assert [series.about for series in chart.series] == [
        "best cell: α 0.001, λ 2⁻¹²",
        "same α, λ 2⁻¹¹",
        "same α, λ 2⁻⁸",
        "same α, λ 2⁻⁴",
        "same α, λ 2⁻¹",
    ]


def test_without_curves_or_without_a_best_cell_there_is_no_chart() -> None:
    found = measured()
    lost = [trial for trial in found.trials if trial.status is not Status.COMPLETE]
    assert curves([result("lost", found.spec, "", lost)], LOSS) is None
    assert curves([study()], LOSS) is None
