"""Frames hold the trials, no more and no less."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from lrwd_sweep.errors import HostError
from lrwd_sweep.report.view.data_frame import curve_frame, lane_frame
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from tests.report.view.examples import HOSTILE, study

NAN = math.nan
DIVERGED = Trial(
    Cell(0.1, 0.01), 0, Status.DIVERGED, {}, {"a": (1.0, NAN), "b": (2.0, NAN)}, "at epoch 2, batch 1"
)
COMPLETE = Trial(
    Cell(0.1, 0.001), 1, Status.COMPLETE, {"b": 3.0, "a": 1.0}, {"a": (1.0, 0.5), "b": (4.0, 3.0)}
)


def test_a_lane_is_a_row() -> None:
    frame = lane_frame({"one": [DIVERGED, COMPLETE]}, "b")
    assert list(frame) == ["lr", "weight_decay", "seed", "status", "detail", "b", "a"]
    assert frame.iloc[0].tolist() == [0.1, 0.001, 1, "complete", "", 3.0, 1.0]
    assert frame.iloc[1].tolist()[:5] == [0.1, 0.01, 0, "diverged", "at epoch 2, batch 1"]
    assert frame[["a", "b"]].iloc[1].isna().all()
    assert [str(kind) for kind in frame.dtypes[["lr", "seed", "a"]]] == ["float64", "int64", "float64"]


def test_lane_and_epoch_are_a_row_of_curves() -> None:
    frame = curve_frame({"one": [DIVERGED, COMPLETE]})
    assert list(frame) == ["lr", "weight_decay", "seed", "epoch", "a", "b"]
    assert frame["epoch"].tolist() == [1, 2, 1, 2]
    np.testing.assert_array_equal(frame["b"], [4, 3, 2, NAN])


def test_a_curve_that_a_lane_lacks_is_nan_there() -> None:
    frame = curve_frame({"one": [COMPLETE, replace(DIVERGED, curves={"c": (7.0,)})]})
    np.testing.assert_array_equal(frame["c"], [NAN, NAN, 7])
    np.testing.assert_array_equal(frame["a"], [1, 0.5, NAN])


def test_several_studies_are_told_apart() -> None:
    for frame in (
        lane_frame({"one": [COMPLETE], HOSTILE: [DIVERGED]}, "a"),
        curve_frame({"one": [COMPLETE], HOSTILE: [DIVERGED]}),
    ):
        assert next(iter(frame)) == "study"
        assert frame["study"].unique().tolist() == ["one", HOSTILE]


def test_every_lane_that_was_trained_has_a_row_and_no_other() -> None:
    found = study()
    frame = lane_frame({"one": found.trials}, "val_loss")
    assert len(frame) == len(found.trials) == 25 * 3 - 1  # one is missing
    assert frame["status"].value_counts().to_dict() == {"complete": 72, "diverged": 1, "failed": 1}
    assert frame["val_loss"].isna().sum() == 2


def test_nothing_trained_is_a_frame_without_rows() -> None:
    assert list(lane_frame({"one": []}, "a")) == ["lr", "weight_decay", "seed", "status", "detail"]
    assert list(curve_frame({"one": []})) == ["lr", "weight_decay", "seed", "epoch"]


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HostError, match=r"pip install 'lrwd-sweep\[pandas\]'"):
        lane_frame({"one": [COMPLETE]}, "a")
