"""Rows are chosen, conventions are tried, points of a search are scattered: the same for every format."""

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
from lrwd_sweep.store.imports import ImportedStudy, ImportedSweep, to_study
from tests.store.sample import read_sweeps

Rows = list[dict[str, Any]]


def sweeps(path: Path, rows: Rows, where: str = "", **options: Any) -> dict[str, ImportedSweep]:
    """Read rows as JSON, whose table the user does not write by hand."""
    path = path / "runs.json"
    path.write_text(json.dumps(rows))
    pairs = [(name, value) for text in where.split() for name, _, value in [text.partition("=")]]
    return read_sweeps(path, where=pairs, **options)


def study(path: Path, rows: Rows, optimizer: str = "adam", **options: Any) -> ImportedStudy:
    return to_study(sweeps(path, rows)[""], optimizer, **options)


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UsageError) as error:
        sweeps(*arguments, **options)
    return error.value.spelled(option_text)


def lattice(**further: Any) -> Rows:
    """Return the rows of a 3 × 3 lattice of two seeds."""
    cells = itertools.product((0.001, 0.01, 0.1), (0.01, 0.1, 1.0), (0, 1))
    return [{"lr": lr, "weight_decay": wd, "seed": s, "value": lr * wd + s, **further} for lr, wd, s in cells]


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
    for recorded, rule, power, symbol in (
        ("lr-scaled", "independent", -1, "λ = αw"),
        ("independent", "lr-scaled", 1, "w = λ/α"),
    ):
        rows = lattice()
        for row in rows:
            row["weight_decay"] = float(f"{row['weight_decay'] * row['lr'] ** power:.6g}")
        (found,) = sweeps(tmp_path, rows).values()
        assert found.scattered
        theirs = to_study(found, f"adamw:{recorded}")
        assert (theirs.spec.optimizer.rule, len(theirs.spec.lattice)) == (DecayRule(rule), 9), recorded
        fits = f"(3 × 3) in {symbol}"
        assert theirs.notes == (f"not a lattice in weight_decay, but a full one {fits}: read as {rule}",)
        for mine, other in zip(study(tmp_path, lattice()).trials, theirs.trials, strict=True):
            assert mine.metrics == other.metrics
            assert other.cell.weight_decay == pytest.approx(mine.cell.weight_decay, rel=1e-5)
        label = to_study(found, "my own", decay_rule=recorded).spec.optimizer
        assert (str(label), label.rule) == ("my own", rule)
        full = rf"they are a full one \(3 × 3\) in {symbol}, if weight_decay was"
        with pytest.raises(UsageError, match=full):
            to_study(found, f"adamw:{rule}")
        assert to_study(found, "adam").spec.scattered  # L2 has no other convention
        short = study(tmp_path, rows[:-2], "adamw", decay_rule=recorded)
        assert (len(short.trials), short.notes[-1]) == (16, "2 of its lanes have no run: missing")


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
    failed = [row | {"state": "FAIL"} for row in rows]
    assert "no run has a result by column 'state' (40 'FAIL')" in refusal(tmp_path, failed)


def test_lanes_without_a_run_are_missing(tmp_path: Path) -> None:
    found = study(tmp_path, lattice()[:-1])
    assert (len(found.trials), len(found.spec.lattice)) == (17, 9)
    assert found.notes == ("there is no run of lr 0.1, weight_decay 1.0, seed 1: missing",)


def test_initial_value_steps_and_direction(tmp_path: Path) -> None:
    rows, name = lattice(), "adamw:lr-scaled"
    plain, full = study(tmp_path, rows, name), study(tmp_path, rows, name, initial=2.5, steps=1000)
    assert not {"run_steps", "scattered"} & plain.spec.to_dict().keys()
    assert StudySpec.from_dict(full.spec.to_dict()) == full.spec
    found, told = (result("x", each.spec, "", [*each.trials]) for each in (plain, full))
    assert found.conventions(Cell(0.1, 0.1)).normalized is None
    assert told.conventions(Cell(0.1, 0.1)).normalized == pytest.approx(0.1 * 0.1 * 1000**0.5)
    tuned = [each.separability.lr_sensitivity.tuned.value for each in (found, told)]  # type: ignore[union-attr]
    assert tuned == [None, pytest.approx(0.00036)]
    for direction, initial, best in ((Direction.MINIMIZE, -1.0, "1e-05"), (Direction.MAXIMIZE, 5.0, "1.1")):
        with pytest.raises(UsageError) as error:
            study(tmp_path, rows, name, direction=direction, initial=initial)
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
    taus = []
    for steps in (None, 2000):
        found = study(tmp_path, rows, "adamw:independent", steps=steps)
        taus.append(result("x", found.spec, "", [*found.trials]).timescale)
    assert taus[0] is None
    assert taus[1] is not None
    assert taus[1].steps.value == pytest.approx(8, rel=0.1)  # 1/λ* = 2³
    assert taus[1].share.value == pytest.approx((taus[1].steps.value or 0) / 2000)
    assert taus[1].epochs.value is None
