"""Points of a search are scattered; initial value and steps of a run complete the analysis."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.report.result import result
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store.imports import ImportedStudy, to_study
from tests.store.sample import read_sweep

Rows = list[dict[str, Any]]


def study(path: Path, rows: Rows, optimizer: str = "adam", **options: Any) -> ImportedStudy:
    (path / "runs.json").write_text(json.dumps(rows))
    return to_study(read_sweep(path / "runs.json"), optimizer, **options)


def test_points_of_a_search_are_scattered(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows: Rows = [
        {
            "lr": 10 ** draw.uniform(-4, -1),
            "weight_decay": 10 ** draw.uniform(-3, 0),
            "value": k,
            "state": {3: "FAIL", 4: "PRUNED"}.get(k, "COMPLETE"),
            "params": {"depth": k % 3, "name": "ab"[k % 2], "fixed": 7},
        }
        for k in range(40)
    ]
    found = study(tmp_path, rows)
    spec, trials = found.spec, [*found.trials]
    assert spec.scattered
    assert StudySpec.from_dict(spec.to_dict()) == spec == spec.extended(spec)
    assert {*trials[0].metrics} == {"value"}  # hyperparameters are no metrics
    assert (len(trials), {trial.status for trial in trials}) == (38, {Status.COMPLETE})
    assert (len(spec.lattice.lr), len(spec.lattice.weight_decay)) == (4, 4)
    points = "not a lattice: 38 scattered points, as of a search, averaged on 4 × 4 cells"
    for note, text in zip(
        found.notes, (points, "1 FAIL, 1 PRUNED left out", "(params.depth, params.name)"), strict=True
    ):
        assert text in note
    shown = result("x", spec, "", trials)
    assert shown.best == Cell(rows[0]["lr"], rows[0]["weight_decay"])  # the point itself
    assert shown.surface.counts()["cells"] == 16
    for seeds in ((0, 1), (2, 3)):  # two runs of each point, with seeds of their own
        twice = [row | {"seed": seed * (1 + k)} for k, row in enumerate(rows) for seed in seeds]
        found = study(tmp_path, twice)
        assert (found.spec.seeds, len(found.trials)) == ((0, 1), 76), seeds


def test_initial_value_and_steps(tmp_path: Path) -> None:
    cells = itertools.product((0.001, 0.01, 0.1), (0.01, 0.1, 1.0), (0, 1))
    rows = [{"lr": lr, "weight_decay": wd, "seed": seed, "value": lr * wd + seed} for lr, wd, seed in cells]
    name = "adamw:lr-scaled"
    plain, full = study(tmp_path, rows, name), study(tmp_path, rows, name, initial=2.5, steps=1000)
    assert not {"run_steps", "scattered"} & plain.spec.to_dict().keys()
    assert StudySpec.from_dict(full.spec.to_dict()) == full.spec
    found, told = (result("x", each.spec, "", [*each.trials]) for each in (plain, full))
    assert found.conventions(Cell(0.1, 0.1)).normalized is None
    assert told.conventions(Cell(0.1, 0.1)).normalized == pytest.approx(0.1 * 0.1 * 1000**0.5)
    tuned = [each.separability.lr_sensitivity.tuned.value for each in (found, told)]  # type: ignore[union-attr]
    assert tuned == [None, pytest.approx(0.00036)]


def test_steps_of_a_run_give_the_ridge_a_share_of_it(tmp_path: Path) -> None:
    rows = [
        {
            "lr": 2.0**a,
            "weight_decay": 2.0**b,
            "seed": s,
            "value": (a + 5) ** 2 + (b + 3) ** 2 + s * a * b / 99,
        }
        for a, b, s in itertools.product(range(-8, -1), range(-6, 1), range(3))
    ]
    taus = []
    for steps in (None, 2000):
        found = study(tmp_path, rows, "adamw:independent", steps=steps)
        taus.append(result("x", found.spec, "", [*found.trials]).timescale)
    assert taus[0] is None
    assert taus[1] is not None
    assert taus[1].steps.value == pytest.approx(8, rel=0.1)  # 1/λ* = 2³
    assert taus[1].share.value == pytest.approx((taus[1].steps.value or 0) / 2000)
    assert taus[1].epochs.value is None
