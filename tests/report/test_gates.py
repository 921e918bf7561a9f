"""Every gate compares its value with its limit, and fails with a reason if it is undetermined."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.gates import (
    EarlierBest,
    EarlierReport,
    Gate,
    MaxAbsSlope,
    MaxBest,
    MaxFailed,
    MaxRegression,
    MaxTransferRegret,
    MinBest,
    MinSeeds,
    NoEdge,
    Require,
    read_earlier_report,
)
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view.document import document, dumps
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.separability import Estimate, Verdict
from lrwd_sweep.science.trial import Direction, Status
from lrwd_sweep.spec.study import Kind
from tests.studies import bowl, mirrored, ridge, study, without

BEST = 0.1 + 1e-4  # of every study here
LOW, HIGH = study(), mirrored(study())
NOTHING = study(lost=dict.fromkeys(np.ndindex(7, 7, 3), Status.DIVERGED))


def earlier(
    value: float | None,
    sem: float | None = 0.001,
    metric: str = "val_loss",
    direction: Direction = Direction.MINIMIZE,
) -> EarlierReport:
    return EarlierReport("old.json", {"mine": EarlierBest(metric, value, sem, direction)})


def test_gate_compares_its_value_with_its_limit() -> None:
    cases: list[tuple[Gate, Result, float | str, bool]] = [
        (MaxBest(BEST + 1e-9), study(), BEST, True),
        (MaxBest(BEST - 1e-9), study(), BEST, False),
        (MaxAbsSlope(0.01), study(), 0.0, True),
        (MaxAbsSlope(0.9), study(ridge), 1.0, False),
        (MaxTransferRegret(1e-9), study(), 0.0, True),
        (MaxTransferRegret(0.009), study(ridge), 0.01, False),
        (MaxTransferRegret(0.011), study(ridge), 0.01, True),
        (MaxTransferRegret(0.011, 2), study(ridge), 0.04, False),
        (Require(Verdict.SEPARABLE), study(), "separable", True),
        (Require(Verdict.SEPARABLE), study(ridge), "product-coupled", False),
        (Require(Verdict.PRODUCT_COUPLED), study(ridge), "product-coupled", True),
        (NoEdge(), study(), "inside", True),
        (NoEdge(), study(lambda a, b: bowl(a - 4, b)), "lr:high", False),
        (NoEdge(), study(lambda a, b: bowl(a + 4, b - 4)), "lr:low, weight_decay:high", False),
        (MaxFailed(0), study(), 0, True),
        (MaxFailed(1), study(lost={(0, 0, 0): Status.FAILED, (0, 0, 1): Status.FAILED}), 2, False),
        (MaxFailed(2), study(lost={(0, 0, 0): Status.FAILED, (0, 0, 1): Status.FAILED}), 2, True),
        (MaxFailed(0), study(lost={(0, 0, 0): Status.DIVERGED}), 0, True),
        (MinSeeds(3), study(), 3, True),
        (MinSeeds(4), study(), 3, False),
        (MinSeeds(3), study(lost={(6, 6, 2): Status.DIVERGED}), 3, True),
        (MinSeeds(3), study(lost={(6, 6, 2): Status.FAILED}), 2, False),
        (MaxRegression(0.011, earlier(BEST - 0.01)), study(), 0.01, True),
        (MaxRegression(0.009, earlier(BEST - 0.01)), study(), 0.01, False),
        (MaxRegression(0.0, earlier(BEST + 0.01)), study(), -0.01, True),
        (MaxRegression(0.0, earlier(BEST)), study(), 0.0, True),
        (MaxRegression(0.011, earlier(-BEST + 0.01, direction=Direction.MAXIMIZE)), HIGH, 0.01, True),
        (MaxRegression(0.009, earlier(-BEST + 0.01, direction=Direction.MAXIMIZE)), HIGH, 0.01, False),
        (MaxRegression(0.0, earlier(-BEST - 0.01, direction=Direction.MAXIMIZE)), HIGH, -0.01, True),
        (MinBest(-BEST), HIGH, -BEST, True),
        (MinBest(-BEST - 0.01), HIGH, -BEST, True),
        (MinBest(-BEST + 0.01), HIGH, -BEST, False),
    ]
    for low, high in ((-0.3, 0.1), (-0.1, 0.3)):  # the far end of the slope's interval decides
        slope = Estimate((low + high) / 2, low, high)
        found = replace(LOW, separability=replace(LOW.separability, ridge_slope=slope))
        cases += [(MaxAbsSlope(0.25), found, 0.3, False), (MaxAbsSlope(0.3), found, 0.3, True)]
    for gate, found, value, passed in cases:
        outcome = gate.check(found)
        assert (outcome.gate, outcome.study) == (gate.name, "mine")
        expected = value if isinstance(value, str) else pytest.approx(value, rel=0.02, abs=1e-9)
        assert outcome.value == expected, gate
        assert outcome.passed is passed, gate


def test_undetermined_value_fails_with_the_reason_and_the_other_direction_is_refused() -> None:
    cases: list[tuple[Gate, Result, str]] = [
        (MaxBest(9), NOTHING, "no cell counts"),
        (MaxAbsSlope(9), study(seeds=1), "too few seeds for an interval: 1"),
        (MaxAbsSlope(9), study(seeds=2), "too few seeds for an interval: 2"),
        (MaxAbsSlope(9), study(lambda a, b: bowl(a, b - 9)), "interior in 0 of"),
        (MaxAbsSlope(9), NOTHING, "cells"),
        (MaxTransferRegret(9, 2.5), study(), "at 2.5 octaves the basin has no two rows"),
        (MaxTransferRegret(9), NOTHING, "distances are none"),
        (NoEdge(), NOTHING, "no cell counts"),
        (NoEdge(), study(lambda a, b: 0.1), "every cell that counts is as good"),
        (MaxRegression(9, earlier(BEST)), NOTHING, "no cell counts"),
        (MaxRegression(9, earlier(None)), study(), "in old.json no cell counts"),
        (MaxRegression(9, earlier(BEST, metric="val_error")), study(), "old.json is in val_error"),
        (MaxRegression(9, EarlierReport("old.json", {})), study(), "has no study 'mine', only none"),
    ]
    for gate, found, reason in cases:
        outcome = gate.check(found)
        assert (outcome.value, outcome.passed) == (None, False), gate
        assert reason in outcome.reason, gate
    outcome = Require(Verdict.SEPARABLE).check(study(seeds=1))
    assert (outcome.value, outcome.passed) == ("undetermined", False)
    assert "too few seeds" in outcome.reason
    outcomes = [gate.check(NOTHING) for gate in (MaxFailed(0), Require(Verdict.COUPLED), MaxBest(1))]
    values = [gate["value"] for gate in json.loads(dumps(document([NOTHING], (), outcomes)))["gates"]]
    assert values == [0, "undetermined", None]
    with pytest.raises(UsageError, match=r"max_best=0.5: in study 'mine' a higher val_loss .* min_best=0.5"):
        MaxBest(0.5).check(HIGH)
    with pytest.raises(UsageError, match=r"min_best=0.5: in study 'mine' a lower val_loss .* max_best=0.5"):
        MinBest(0.5).check(LOW)
    reason = MaxRegression(1, earlier(BEST, sem=3e-4)).check(LOW).reason
    assert f"standard error {math.hypot(3e-4, 1e-4 / math.sqrt(3)):.2g}" in reason
    assert "standard error" not in MaxRegression(1, earlier(BEST, sem=None)).check(LOW).reason


def test_transfers_are_judged_by_their_mean_and_seeds_counted_where_they_are_fewest() -> None:
    for seeds, reason in ((2, "at 1 octave, in sample: lies high"), (3, "octave, 0 [0, 0]")):
        outcome = MaxTransferRegret(0.1).check(study(seeds=seeds))
        assert outcome.passed
        assert outcome.reason.endswith(reason)
    found = study(ridge, lost={(2, 3, 0): Status.DIVERGED})
    (regret,) = (r for r in found.separability.transfer_regret if r.octaves == 1)
    assert regret.pairs_out > 0
    outcome = MaxTransferRegret(9).check(found)
    assert (outcome.value, outcome.passed) == (regret.estimate.value, False)
    assert f"{regret.pairs_out} of {regret.pairs_out + regret.pairs} transfers diverge" in outcome.reason
    found = without(study(seeds=5), (3, 3, 0), (3, 3, 4), (0, 0, 1))
    assert MinSeeds(3).check(found).value == 3
    assert MinSeeds(5).check(without(study(), *((0, 0, seed) for seed in range(3)))).value == 0
    found = study(kind=Kind.TPE)
    points = [trial for trial in found.trials if trial.cell == next(found.spec.lattice.cells())]
    moved = [replace(trial, cell=Cell(trial.cell.lr * 1.01, trial.cell.weight_decay)) for trial in points[1:]]
    for trials, fewest in ((points, 3), ([*points, *moved], 2), ([], 0)):
        assert MinSeeds(1).check(result("tpe", found.spec, "", trials)).value == fewest
    assert not MinSeeds(1).check(result("tpe", found.spec, "", [])).passed


def test_report_is_read_back_and_compared_in_its_direction(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(dumps(document([LOW, replace(NOTHING, name="lost")])))
    read = read_earlier_report(path)
    (best,) = LOW.ranked(1)
    assert read.studies == {
        "mine": EarlierBest("val_loss", best.value, best.sem),
        "lost": EarlierBest("val_loss", None, None),
    }
    assert MaxRegression(0, read).check(LOW).value == 0
    with pytest.raises(UsageError, match=r"no\.json.*No such file or directory; name a file"):
        read_earlier_report(tmp_path / "no.json")
    path.write_text(dumps(document([HIGH])))
    outcome = MaxRegression(9, read_earlier_report(path)).check(LOW)
    assert not outcome.passed
    assert "has val_loss maximized, this report minimized; see --maximize and --minimize" in outcome.reason
    older = json.loads(path.read_text())
    del older["studies"][0]["direction"]
    path.write_text(json.dumps(older))
    assert read_earlier_report(path).studies["mine"].direction is Direction.MINIMIZE
    older["studies"][0]["direction"] = "upward"
    path.write_text(json.dumps(older))
    with pytest.raises(UsageError, match="is not a report"):
        read_earlier_report(path)


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    study_of = '{{"studies": [{{"study_name": "a", "metric": "m", "best": {{"value": {}}}}}]}}'
    one = '{"schema_version": 1, "studies": [{"study_name": %s}]}'
    for fault, *texts in (
        ("is not JSON", "", "{", '{"a": NaN}', "[" * 100_000, "\udcff"),
        ("is not a report", "[]", "7", "{}", '{"schema_version": 1, "studies": {"a": 1}}'),
        ("is not a report", '{"studies": [1]}', one % "1", one % '"a", "created": "x"'),
        ("is not a report", *map(study_of.format, ('"1"', "true", "1e999"))),
        ("has schema_version 3", '{"schema_version": 3, "studies": []}'),
        ("has schema_version '1'", '{"schema_version": "1", "studies": []}'),
    ):
        for text in texts:
            path.write_bytes(text.encode(errors="surrogateescape"))
            with pytest.raises(UsageError) as error:
                read_earlier_report(path)
            assert str(error.value).startswith(f"baseline={str(path)!r} {fault}"), text[:80]
            assert "\n" not in str(error.value)
