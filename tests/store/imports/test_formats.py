"""Every format gives the same runs: 2 × 2 cells, of which one diverged and one did not finish.

What imports print is in `tests/cli/imports.txt`.
"""

import csv
import io
import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lrwd_sweep.report.result import result
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import imports
from lrwd_sweep.store.imports.extent import merged_rates
from tests.refusal import assert_raises
from tests.store.sample import read_sweep, write_tools

ONE = [("study", "one")]
EXPECTED = {Cell(0.1, 0.01): 0.5, Cell(0.1, 0.02): 0.4, Cell(0.2, 0.02): None}  # None: diverged


def check(found: imports.ImportedSweep, label: object, unit: str | None = None) -> None:
    """Check the runs, and the learning curve of the first with its steps if the source has curves."""
    trials = [*found.trials]
    assert {trial.cell: trial.metrics.get(found.metric) for trial in trials} == EXPECTED, label
    assert found.lattice == Lattice((0.1, 0.2), (0.01, 0.02)), label
    assert [trial.status for trial in trials].count(Status.DIVERGED) == 1, label
    assert any("left out" in note for note in found.notes), label
    if unit is not None:
        curves = dict(trials[0].curves)
        assert curves.pop(found.metric) == (2.5, 1.5, 0.5), label
        steps = {name: (len(values), sorted(values) == [*values]) for name, values in curves.items()}
        assert steps == ({unit: (3, True)} if unit else {}), label


def first(found: imports.ImportedSweep) -> float:
    return next(iter(found.trials)).metrics[found.metric]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_tools(root := tmp_path_factory.mktemp("tools"))
    return root


def test_both_storages_of_optuna(root: Path, tmp_path: Path) -> None:
    tables = []
    for name in ("optuna.db", "journal.log"):
        path = root / name
        assert imports.format_of(imports.ImportSource(str(path))) == "optuna", name
        found = read_sweep(path, where=ONE)
        check(found, name)
        assert found.context.direction is Direction.MAXIMIZE, name
        for text in ("lr × weight_decay is not all", "one more hyperparameter varies (depth)"):
            assert text in found.notes[-1], name
        assert_raises(r"2 studies \('one', 'two'\); choose one as where='study=one'", read_sweep, path)
        tables.append(imports.read_table([imports.ImportSource(str(path))]))
    database, journal = tables
    assert database.header == journal.header
    assert np.array_equal(database.texts, journal.texts)
    states = {"COMPLETE": 5, "PRUNED": 1, "RUNNING": 1, "WAITING": 1}
    assert Counter(database.columns()["state"]) == states
    path = tmp_path / "journal.log"
    pareto = '{"op_code": 0, "study_name": "three", "directions": [1, 2]}\n{"op_code": 4, "study_id": 2}\n'
    path.write_text((root / "journal.log").read_text() + pareto + '{"op_code": 4, "wor')
    check(read_sweep(path, where=ONE), "a study of two objectives follows, and the last line was cut off")
    path.write_text('{"op_code": 0, "study_name": "a", "directions": [1]}\nnot JSON\n{"op_code": 1}\n')
    assert_raises("line 2 is not an entry", read_sweep, path)


def test_paths_of_the_tools(root: Path) -> None:
    for folder, template, unit in (
        ("lightning_logs", "version_*/metrics.csv:val_loss", "step"),
        ("ray", "**/result.json:mean_loss", "iteration"),
        ("hf", "{lr}-{weight_decay}/trainer_state.json:log_history[].eval_loss", "step"),
        ("hf", "*/trainer_state.json:log_history[].eval_loss", "step"),
        ("deepobs", "**/*__{weight_decay}__lr__{lr}/random_seed__{seed}__*:valid_losses", ""),
        ("multirun", "*/log.csv:val_loss", "epoch"),
        ("out", "./width{width}_lr{lr}_wd{weight_decay}.csv:loss", "epoch"),
    ):
        found = read_sweep(root / folder, template)
        check(found, (folder, template), unit)
        assert first(read_sweep(root / folder, template, best=True, maximize=True)) == 2.5, folder
    assert found.notes[0] == "1 more .csv there do not fit width{width}_lr{lr}_wd{weight_decay}.csv"
    (root / "out/width64_lr0.4_wd0.1.csv").write_text("epoch,loss\n")  # killed before its first epoch
    (root / "out/config.yaml").write_text("lr: 7\n")  # the path says more
    check(read_sweep(root / "out", "width*_lr{lr}_wd{weight_decay}.csv:loss"), "a run without a value")


def test_charts_and_tables_of_wandb(root: Path, tmp_path: Path) -> None:
    check(read_sweep(root / "wandb.csv", metric="val_loss"), "table")
    path = tmp_path / "chart.csv"
    for form, template in (
        *((r"lr=\1 weight_decay=\2", ""), (r"lr: \1, weight_decay: \2", "")),
        (r"a\1_b\2", "a{lr}_b{weight_decay}"),
    ):
        path.write_text(re.sub("lr([0-9.]+)_wd([0-9.]+)_s0", form, (root / path.name).read_text()))
        assert imports.format_of(imports.ImportSource(str(path))) == "wandb", form
        found = read_sweep(path, template)
        check(found, form, "step")
        assert found.context.higher == "column 'val_acc'", form
        assert first(read_sweep(path, template, best=True)) == 0.5
        assert first(read_sweep(path, template, best=True, maximize=True)) == 2.5
    assert_raises(r"run 'a0.1_b0.01' holds no lr=… .* from='lr\{lr\}_wd", read_sweep, path)
    assert_raises("does not fit x", read_sweep, path, "x{lr}")


def test_both_stores_of_mlflow(root: Path) -> None:
    for source in (root / "mlruns", root / "mlruns/1", root / "mlflow.db", f"sqlite:///{root}/mlflow.db"):
        assert imports.format_of(imports.ImportSource(str(source))) == "mlflow", source
        found = read_sweep(source, metric="val_loss")
        check(found, source, "step")
        assert "left out, as they only group others: 1 run" in found.notes, source
        assert first(read_sweep(source, best=True, maximize=True, metric="val_loss")) == 2.5, source


GOOD = "lr,weight_decay,seed,value\n0.1,0,0,1.5\n0.1,0.01,0,1.25\n0.2,0,0,nan\n0.2,0.01,0,2\n"


def test_csv_dialects_give_the_same_trials(tmp_path: Path) -> None:
    file = tmp_path / "sweep.csv"
    file.write_text(GOOD)
    expected = [*read_sweep(file).trials]
    for text in (
        *("\ufeff" + GOOD, GOOD.replace("\n", "\r\n")),
        *(GOOD.replace(",", ";"), GOOD.replace(",", " , ")),
        GOOD.replace("0.1", '"0.1"').replace("lr", '"lr"'),
        GOOD.replace("\n0.2,0,", "\n\n,,,\n0.2,0,"),
        GOOD.replace("0.1", "1.0e-1").replace(",0,1.5", ",0.0,1.5"),
    ):
        file.write_bytes(text.encode())
        assert [*read_sweep(file).trials] == expected, text
    file.write_bytes(GOOD.encode("utf-16"))
    assert_raises("byte 0 is not UTF-8; save the file as UTF-8 CSV", read_sweep, file)
    assert_raises("No such file", read_sweep, tmp_path / "no")
    assert_raises("is a directory", read_sweep, tmp_path)


@given(st.data())
def test_written_trials_are_read_without_loss(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    positive, finite = st.floats(1e-12, 1e12), st.floats(allow_nan=False, allow_infinity=False)
    axes = [data.draw(st.lists(axis, min_size=1, max_size=3)) for axis in (positive, st.floats(0, 1e12))]
    lattice = Lattice(*map(tuple, axes))
    assume(not any(merged_rates(dict.fromkeys(axis, 1)) for axis in (lattice.lr, lattice.weight_decay)))
    trials, out = [], io.StringIO()
    writer = csv.DictWriter(out, ["lr", "weight_decay", "seed", "value", "status", "extra"])
    writer.writeheader()
    for cell, seed in itertools.product(lattice.cells(), (-3, 2**40)):
        status = data.draw(st.sampled_from(Status))
        names = ("value", "extra") if status is Status.COMPLETE else ()
        metrics = {name: data.draw(finite) for name in names}
        trials.append(Trial(cell, seed, status, metrics))
        lane = {"lr": cell.lr, "weight_decay": cell.weight_decay, "seed": seed, "status": status}
        writer.writerow(lane | metrics)
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_text(out.getvalue())
    assert [*read_sweep(path).trials] == trials


def study(path: Path, rows: object, optimizer: str = "adam", **options: Any) -> imports.ImportedStudy:
    (path / "runs.json").write_text(json.dumps(rows))
    return imports.to_study(read_sweep(path / "runs.json"), optimizer, **options)


def test_points_of_a_search_are_scattered(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows: list[dict[str, Any]] = [
        {"lr": 10 ** draw.uniform(-4, -1), "weight_decay": 10 ** draw.uniform(-3, 0), "value": k}
        | {"state": {3: "FAIL", 4: "PRUNED"}.get(k, "COMPLETE")}
        | {"params": {"depth": k % 3, "name": "ab"[k % 2], "fixed": 7}}
        for k in range(40)
    ]
    found = study(tmp_path, rows)
    spec, trials = found.spec, [*found.trials]
    assert spec.scattered
    assert StudySpec.from_dict(spec.to_dict()) == spec == spec.extended(spec)
    assert {*trials[0].metrics} == {"value"}  # hyperparameters are no metrics
    assert [trial.status for trial in trials] == [Status.COMPLETE] * 38
    assert (len(spec.lattice.lr), len(spec.lattice.weight_decay)) == (4, 4)
    points = "not a lattice: 38 scattered points, as of a search, averaged on 4 × 4 cells"
    told = points, "1 FAIL, 1 PRUNED left out", "(params.depth, params.name)"
    assert all(text in note for note, text in zip(found.notes, told, strict=True)), found.notes
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
