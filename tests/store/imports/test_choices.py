"""Rows are chosen, conventions are tried, points of a search are scattered: the same for every format."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.cli.options import option_text
from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.result import result
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.science.trial import Direction, Status
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store.imports import (
    ImportedStudy,
    ImportedSweep,
    ImportSource,
    read_table,
    to_study,
    to_sweeps,
)

Rows = list[dict[str, Any]]


def sweeps(
    path: Path, rows: Rows, by: str | None = None, where: str = "", **options: Any
) -> dict[str, ImportedSweep]:
    """Read rows as JSON, whose table the user does not write by hand."""
    path = path / "runs.json"
    path.write_text(json.dumps(rows))
    source = ImportSource(str(path), **options)
    pairs = [(name, value) for text in where.split() for name, _, value in [text.partition("=")]]
    return to_sweeps(read_table([source], where=pairs), source, by)


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UsageError) as error:
        sweeps(*arguments, **options)
    return error.value.spelled(option_text)


def lattice(**further: Any) -> Rows:
    """Return the rows of a 3 × 3 lattice of two seeds."""
    cells = itertools.product((0.001, 0.01, 0.1), (0.01, 0.1, 1.0), (0, 1))
    return [{"lr": lr, "weight_decay": wd, "seed": s, "value": lr * wd + s, **further} for lr, wd, s in cells]


def as_recorded(rows: Rows, rule: str, digits: int = 6) -> Rows:
    """Return rows whose weight decay is what a user of another convention records, rounded."""
    power = {"lr-scaled": -1, "independent": 1}[rule]
    recorded = [row["weight_decay"] * row["lr"] ** power for row in rows]
    return [row | {"weight_decay": float(f"{wd:.{digits}g}")} for row, wd in zip(rows, recorded, strict=True)]


def test_where_and_by_choose_rows(tmp_path: Path) -> None:
    rows = [row for width in (64, 512) for row in lattice(config={"width": width, "act": "relu"})]
    text = refusal(tmp_path, rows)
    assert "repeats record 1 (lr 0.001, weight_decay 0.01, seed 0); they differ in 'config.width'" in text
    assert "--where config.width=64 keeps one value, --by config.width makes a study of each" in text
    assert text.endswith(" (and 17 more records)")
    for where in ("width=512", "config.width=512.0 act=relu"):
        assert len(sweeps(tmp_path, rows, where=where)[""].trials) == 18, where
    found = sweeps(tmp_path, rows, by="width")
    assert [*found] == ["64", "512"]  # as numbers
    assert all(len(each.trials) == 18 for each in found.values())
    text = refusal(tmp_path, rows, where="width=3")
    assert text.endswith("--where width=3: no run has '3' in column 'config.width'; it holds '64', '512'")
    assert "there is no column 'wide'; there are 'config.width', 'lr'" in refusal(tmp_path, rows, by="wide")
    rows[0]["config"] = {"act": "relu"}
    assert "1 runs without width are left out" in sweeps(tmp_path, rows, by="width")["64"].notes


def test_a_lattice_in_another_convention_is_found(tmp_path: Path) -> None:
    for recorded, rule, symbol in (
        ("lr-scaled", "independent", "λ = αw"),
        ("independent", "lr-scaled", "w = λ/α"),
    ):
        fits = f"(3 × 3) in {symbol}"
        rows = as_recorded(lattice(), recorded)
        (found,) = sweeps(tmp_path, rows).values()
        assert found.scattered
        study = to_study(found, f"adamw:{recorded}")
        assert (study.spec.optimizer.rule, len(study.spec.lattice)) == (DecayRule(rule), 9), recorded
        assert study.notes == (f"not a lattice in weight_decay, but a full one {fits}: read as {rule}",)
        ours = to_study(sweeps(tmp_path, lattice())[""], f"adamw:{rule}")
        for mine, theirs in zip(ours.trials, study.trials, strict=True):
            assert mine.metrics == theirs.metrics
            assert theirs.cell.weight_decay == pytest.approx(mine.cell.weight_decay, rel=1e-5)
        label = to_study(found, "lion", decay_rule=recorded).spec.optimizer
        assert (str(label), label.rule) == ("lion", rule)
        with pytest.raises(
            UsageError, match=rf"they are a full one \(3 × 3\) in {symbol}, if weight_decay was"
        ):
            to_study(found, f"adamw:{rule}")
        assert to_study(found, "adam").spec.scattered  # L2 has no other convention
        (short,) = sweeps(tmp_path, rows[:-2]).values()
        study = to_study(short, "adamw", decay_rule=recorded)
        assert len(study.trials) == 16
        assert study.notes[-1] == "2 of its lanes have no run: missing"


def test_points_of_a_search_are_scattered(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows: Rows = [
        {
            "lr": 10 ** draw.uniform(-4, -1),
            "weight_decay": 10 ** draw.uniform(-3, 0),
            "value": k,
            "state": "COMPLETE",
        }
        for k in range(40)
    ]
    for k, row in enumerate(rows):
        row["params"] = {"depth": k % 3, "name": "ab"[k % 2], "fixed": 7}
    rows[3]["state"], rows[4]["state"] = "FAIL", "PRUNED"
    study = to_study(sweeps(tmp_path, rows)[""], "adam")
    assert study.spec.scattered
    assert StudySpec.from_dict(study.spec.to_dict()) == study.spec == study.spec.extended(study.spec)
    assert {*study.trials[0].metrics} == {"value"}  # hyperparameters are no metrics
    assert (len(study.trials), {trial.status for trial in study.trials}) == (38, {Status.COMPLETE})
    assert (len(study.spec.lattice.lr), len(study.spec.lattice.weight_decay)) == (4, 4)
    assert study.notes[0].startswith(
        "not a lattice: 38 scattered points, as of a search, averaged on 4 × 4 cells"
    )
    assert study.notes[1].startswith("column 'state': 1 FAIL, 1 PRUNED left out, without a result")
    assert "2 more hyperparameters vary (params.depth, params.name)" in study.notes[2]
    shown = result("x", study.spec, "", study.trials)
    assert shown.best == Cell(rows[0]["lr"], rows[0]["weight_decay"])  # the point itself
    assert shown.surface.counts()["cells"] == 16
    for seeds in ((0, 1), (2, 3)):  # two runs of each point, with seeds of their own
        twice = [row | {"seed": seed * (1 + k)} for k, row in enumerate(rows) for seed in seeds]
        study = to_study(sweeps(tmp_path, twice)[""], "adam")
        assert (study.spec.seeds, len(study.trials)) == ((0, 1), 76), seeds


def test_lanes_without_a_run_are_missing_unless_the_user_writes_the_rows(tmp_path: Path) -> None:
    study = to_study(sweeps(tmp_path, lattice()[:-1])[""], "adam")
    assert (len(study.trials), len(study.spec.lattice)) == (17, 9)
    assert study.notes == ("there is no run of lr 0.1, weight_decay 1.0, seed 1: missing",)


def test_initial_value_steps_and_direction(tmp_path: Path) -> None:
    rows = lattice()

    def study(**options: Any) -> ImportedStudy:
        return to_study(sweeps(tmp_path, rows)[""], "adamw:lr-scaled", **options)

    plain, full = study(), study(initial=2.5, steps=1000)
    assert not {"run_steps", "scattered"} & plain.spec.to_dict().keys()
    assert StudySpec.from_dict(full.spec.to_dict()) == full.spec
    found, told = (result("x", each.spec, "", each.trials) for each in (plain, full))
    assert found.conventions(Cell(0.1, 0.1)).normalized is None
    assert told.conventions(Cell(0.1, 0.1)).normalized == pytest.approx(0.1 * 0.1 * 1000**0.5)
    tuned = [each.separability.lr_sensitivity.tuned.value for each in (found, told)]  # type: ignore[union-attr]
    assert tuned == [None, pytest.approx(0.00036)]
    for direction, initial, best in ((Direction.MINIMIZE, -1.0, "1e-05"), (Direction.MAXIMIZE, 5.0, "1.1")):
        with pytest.raises(UsageError) as error:
            study(direction=direction, initial=initial)
        text = error.value.spelled(option_text)
        assert text.startswith(f"--initial-loss {initial} is better than the best value of all runs, {best};")


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
    (found,) = sweeps(tmp_path, rows).values()
    taus = []
    for steps in (None, 2000):
        study = to_study(found, "adamw:independent", steps=steps)
        taus.append(result("x", study.spec, "", study.trials).timescale)
    assert taus[0] is None
    assert taus[1] is not None
    assert taus[1].steps.value == pytest.approx(8, rel=0.1)  # 1/λ* = 2³
    assert taus[1].share.value == pytest.approx((taus[1].steps.value or 0) / 2000)
    assert taus[1].epochs.value is None
