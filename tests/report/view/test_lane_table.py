"""CSV and frames hold one row per lane, or per lane and epoch."""

import csv
import io
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from lrwd_sweep.errors import HostError
from lrwd_sweep.report.result import result
from lrwd_sweep.report.view.lane_table import csv_table, curve_frame, lane_frame
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from tests.report.view.examples import HOSTILE, labelled, study

NAN = math.nan
DIVERGED = Trial(
    Cell(0.1, 0.01), 0, Status.DIVERGED, {}, {"a": (1.0, NAN), "b": (2.0, NAN)}, "at epoch 2, batch 1"
)
COMPLETE = Trial(
    Cell(0.1, 0.001), 1, Status.COMPLETE, {"b": 3.0, "a": 1.0}, {"a": (1.0, 0.5), "b": (4.0, 3.0)}
)


def test_frames_have_a_row_per_lane_or_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = lane_frame({"one": [DIVERGED, COMPLETE]}, "b")
    assert list(frame) == ["lr", "weight_decay", "seed", "status", "detail", "b", "a"]
    assert frame.iloc[0].tolist() == [0.1, 0.001, 1, "complete", "", 3.0, 1.0]
    assert frame[["a", "b"]].iloc[1].isna().all()
    frame = curve_frame({"one": [COMPLETE, replace(DIVERGED, curves={"c": (7.0, NAN)})]})
    assert list(frame) == ["lr", "weight_decay", "seed", "epoch", "a", "b", "c"]
    assert frame["epoch"].tolist() == [1, 2, 1, 2]
    np.testing.assert_array_equal(frame[["a", "c"]], [[1, NAN], [0.5, NAN], [NAN, 7], [NAN, NAN]])
    both = {"one": [COMPLETE], HOSTILE: [DIVERGED]}
    for frame in (lane_frame(both, "a"), curve_frame(both)):
        assert next(iter(frame)) == "study"
        assert frame["study"].unique().tolist() == ["one", HOSTILE]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HostError, match=r"pip install 'lrwd-sweep\[pandas\]'"):
        lane_frame({"one": [COMPLETE]}, "a")


def test_csv_keeps_every_bit_and_has_no_row_for_missing_lanes() -> None:
    found, zero = study(), study().trials[40].metrics["val_loss"]  # becomes a value of exactly 0.0
    shifted = [replace(t, metrics={m: v - zero for m, v in t.metrics.items()}) for t in found.trials]
    for each in (found, labelled("it"), result("zero", found.spec, "", shifted)):
        rows = list(csv.DictReader(io.StringIO(csv_table([each]))))
        gone = [row for row in rows if row["status"] == "missing"]  # an import cannot be finished
        assert len(gone) == (each.spec.task is None)
        rows = rows[: len(rows) - len(gone)]
        assert list(rows[0]) == ["lr", "weight_decay", "seed", "value", "status", "decay_rule", "test_loss"]
        lanes = {}
        for row in rows:
            value = float(row["value"]) if row["status"] == "complete" else row["value"]
            assert isinstance(value, str) or float(row["test_loss"]) == pytest.approx(value + 0.01)
            cell = Cell(float(row["lr"]), float(row["weight_decay"]))
            lanes[cell, int(row["seed"])] = row["status"], value
        lost = {Status.DIVERGED: "nan", Status.FAILED: ""}
        assert lanes == {
            (t.cell, t.seed): (t.status, t.metrics.get("val_loss", lost.get(t.status))) for t in each.trials
        }
