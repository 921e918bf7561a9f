"""A quantity is a metric's last value, a diagnostic's at the end or on average, or a reason."""

from __future__ import annotations

import numpy as np
import pytest

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.report.view.quantity import Quantity, quantities, resolved
from lrwd_sweep.science.surface import CellStatus
from lrwd_sweep.spec.catalog import DIAGNOSTICS
from lrwd_sweep.spec.study import Kind
from tests.report.view.examples import study
from tests.report.view.measured import EPOCHS, measured


def test_a_metrics_surface_is_that_of_its_last_values() -> None:
    found = measured()
    surface = Quantity("val_loss").surface(found)
    assert surface is not None
    assert np.array_equal(surface.mean, found.surface.mean, equal_nan=True)
    assert surface.cap == found.surface.cap


def test_the_norm_is_that_at_the_end() -> None:
    surface = Quantity("norm").surface(measured())
    assert surface is not None
    assert surface.mean[1:, :] == pytest.approx(np.tile(surface.weight_decay * EPOCHS, (4, 1)))
    assert surface.metric == "norm"
    assert surface.cap is None


def test_what_follows_the_schedule_is_averaged_over_the_epochs() -> None:
    surface = Quantity("effective_lr").surface(measured())
    assert surface is not None
    mean = (1 - 2.0**-EPOCHS) / EPOCHS
    assert surface.mean[1:, 0] == pytest.approx(surface.lr[1:] * mean)
    assert surface.metric == "effective_lr, mean over the epochs"


def test_a_lane_without_the_measure_is_missing_and_a_diverged_one_diverged() -> None:
    surface = Quantity("norm").surface(measured())
    assert surface is not None
    assert surface.status(0, 0) is CellStatus.DIVERGED
    assert surface.status(0, 1) is CellStatus.FAILED
    assert surface.status(0, 2) is CellStatus.MISSING


def test_curves_are_seed_means_of_the_complete_lanes() -> None:
    found = Quantity("val_loss").curves(measured())
    surface = measured().surface
    assert found[2, 2][-1] == pytest.approx(surface.mean[2, 2])
    assert all(len(curve) == EPOCHS for curve in found.values())


def test_points_of_a_search_belong_to_their_nearest_cells() -> None:
    whole, searched = measured(), measured(kind=Kind.TPE)
    for name in ("norm", "val_error"):
        ours, theirs = Quantity(name).surface(whole), Quantity(name).surface(searched)
        assert ours is not None
        assert theirs is not None
        assert np.array_equal(ours.mean, theirs.mean, equal_nan=True)
        assert Quantity(name).curves(whole).keys() == Quantity(name).curves(searched).keys()


@pytest.mark.parametrize(
    ("name", "optimizer", "diagnosed", "reason"),
    [
        ("projection", "adamw", True, "no projection: only adamp and sgdp have one"),
        ("norm", "adamw", False, "no scale-invariant tensors"),
        ("projection", "adamp", True, "or it was trained without"),
        ("test_loss_of_another", "adamw", True, "no test_loss_of_another in the store"),
    ],
)
def test_a_study_says_why_it_has_none(name: str, optimizer: str, diagnosed: bool, reason: str) -> None:
    found = measured(optimizer=optimizer, diagnosed=diagnosed)
    assert Quantity(name).surface(found) is None
    assert Quantity(name).curves(found) == {}
    assert reason in Quantity(name).absence(found)


def test_a_study_without_curves_says_so() -> None:
    assert Quantity("norm").absence(study()) == "no norm: the study has no learning curves"


def test_names_are_pictures_diagnostics_or_what_any_lane_has() -> None:
    found = [study(), measured()]
    names = ["scatter", "curves", *DIAGNOSTICS, "val_loss", "test_error", "train_loss"]
    assert resolved(names, found) == names
    assert resolved(["effective-lr", "norm", "effective_lr"], found) == ["effective_lr", "norm"]
    with pytest.raises(UnknownName, match=r"unknown name for --show 'nrm'; did you mean norm\?"):
        resolved(["norm", "nrm"], found)


def test_a_foreign_metrics_name_is_taken_as_it_is() -> None:
    found = measured()
    for trial in found.trials:
        trial.metrics["top-1"] = 0.5  # type: ignore[index]
    assert resolved(["top-1"], [found]) == ["top-1"]


def test_pictures_stand_for_the_quantities_that_they_are_drawn_from() -> None:
    names = [quantity.name for quantity in quantities(["scatter", "curves", "norm", "norm"])]
    assert names == ["train_loss", "test_error", "val_error", "norm"]
