"""A result reads a study in the metric asked."""

from __future__ import annotations

import math

import pytest

from lrwd_sweep.decay import DecayRule
from lrwd_sweep.errors import UnknownName
from lrwd_sweep.optimizer import Optimizer
from lrwd_sweep.result import result
from lrwd_sweep.spec import Kind
from lrwd_sweep.trial import Status
from tests.view.examples import study


def test_cap_is_that_of_the_metric_asked() -> None:
    found = study()
    assert found.surface.cap == pytest.approx(math.log(10))
    other = result(found.name, found.spec, found.created, found.trials, metric="val_error")
    assert other.surface.cap == pytest.approx(0.9)
    assert other.spec.metric == "val_error"


def test_a_metric_that_nothing_measured_is_refused() -> None:
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
