"""Every format gives the same runs: 2 × 2 cells, of which one diverged and one did not finish."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Direction, Status
from lrwd_sweep.store.imports import ImportedSweep, ImportSource, format_of, read_table, to_sweeps
from tests.store.imports import stubs
from tests.store.imports.stubs import RECORDS, RUNS, curve
from tests.store.sample import read_sweep

ONE = [("study", "one")]
EXPECTED = {Cell(0.1, 0.01): 0.5, Cell(0.1, 0.02): 0.4, Cell(0.2, 0.02): None}  # None: diverged


def check(found: ImportedSweep, label: object, unit: str | None = None) -> None:
    """Check the runs, and the learning curve of the first with its steps if the source has curves."""
    trials = [*found.trials]
    assert {trial.cell: trial.metrics.get(found.metric) for trial in trials} == EXPECTED, label
    assert found.lattice == Lattice((0.1, 0.2), (0.01, 0.02)), label
    assert [trial.status for trial in trials].count(Status.DIVERGED) == 1, label
    assert any("left out" in note for note in found.notes), label
    if unit is not None:
        curves = dict(trials[0].curves)
        assert curves.pop(found.metric) == (2.5, 1.5, 0.5), label
        assert [(name, len(values), sorted(values) == [*values]) for name, values in curves.items()] == [
            (unit, 3, True)
        ] * bool(unit), label


def format_name(path: Path) -> str:
    return format_of(ImportSource(str(path)))


def first(found: ImportedSweep) -> float:
    return next(iter(found.trials)).metrics[found.metric]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of every tool."""
    root = tmp_path_factory.mktemp("tools")
    stubs.write(root)
    return root


def test_both_storages_of_optuna(root: Path, tmp_path: Path) -> None:
    tables = []
    for name in ("optuna.db", "journal.log"):
        path = root / name
        assert format_name(path) == "optuna", name
        found = read_sweep(path, where=ONE)
        check(found, name)
        assert found.context.direction is Direction.MAXIMIZE, name
        assert "lr × weight_decay is not all" in found.notes[-1], name
        assert "one more hyperparameter varies (depth)" in found.notes[-1], name
        with pytest.raises(UsageError, match=r"2 studies \('one', 'two'\); choose one as where='study=one'"):
            read_sweep(path)
        tables.append(read_table([ImportSource(str(path))]))
    database, journal = tables
    assert database.header == journal.header
    assert np.array_equal(database.texts, journal.texts)
    states = Counter(database.columns()["state"])
    assert states == {"COMPLETE": 5, "PRUNED": 1, "RUNNING": 1, "WAITING": 1}
    path = tmp_path / "journal.log"
    path.write_text((root / "journal.log").read_text() + '{"op_code": 4, "wor')
    check(read_sweep(path, where=ONE), "the last line was cut off")
    path.write_text('{"op_code": 0, "study_name": "a", "directions": [1]}\nnot JSON\n{"op_code": 1}\n')
    with pytest.raises(UsageError, match="line 2 is not an entry"):
        read_sweep(path)


def test_json_of_any_shape(tmp_path: Path) -> None:
    flat = [{name.replace("val_loss", "value"): text for name, text in one.items()} for one in RECORDS]
    nested = [
        {
            "config": {"optim": {"lr": lr}, "wd": wd},
            "loss": curve(value, end),
            "state": end.replace("diverged", "ok"),
        }
        for lr, wd, value, end in RUNS
    ]
    by_column = {name: [one[name] for one in flat] for name in flat[0]}
    ends = [{name: one[name] for name in ("value", "status")} for one in flat]
    cells = [{"lr": lr, "wd": wd, "seeds": [end]} for (lr, wd, *_), end in zip(RUNS, ends, strict=True)]
    deep = {"lr": "cells[].lr", "weight_decay": "cells[].wd", "value": "cells[].seeds[].value"}
    paths = {"lr": "config.optim.lr", "weight_decay": "wd", "value": "loss[-1]"}
    lines = "".join(json.dumps(one) + "\n" for one in flat)
    for name, text, columns in (
        ("records.json", json.dumps(flat), {}),
        ("indented.json", "\n" + json.dumps(flat, indent=2), {}),
        *(("lines.jsonl", lines, {}), ("lines.log", lines, {})),
        ("columns.json", json.dumps(by_column), {}),
        ("pandas.json", json.dumps({k: dict(enumerate(v)) for k, v in by_column.items()}), {}),
        ("split.json", json.dumps({"columns": [*by_column], "data": [[*one.values()] for one in flat]}), {}),
        ("named.json", json.dumps({f"run {k}": one for k, one in enumerate(flat)}), {}),
        ("list.json", json.dumps({"name": "x", "results": flat, "log": [{"a": 1}]}), {}),
        ("nested.json", json.dumps(nested), paths),
        ("deep.json", json.dumps({"cells": cells, "other": [{"lr": 1, "weight_decay": 1}]}), deep),
    ):
        path = tmp_path / name
        path.write_text(text)
        assert format_name(path) == "json", name
        check(read_sweep(path, columns=columns), name)
    files = []
    for k, one in enumerate(flat):  # a file per run, with the run's curve in it
        files.append(ImportSource(str(tmp_path / f"run{k}.json")))
        files[-1].path.write_text(json.dumps(one | {"curve": [{"loss": 1}, {"loss": 2}]}))
    check(to_sweeps(read_table(files), files[0])[""], "a file per run")


def test_paths_of_the_tools(root: Path, tmp_path: Path) -> None:
    for folder, template, unit in (
        ("lightning_logs", "version_*/metrics.csv:val_loss", "step"),
        ("ray", "**/result.json:mean_loss", "iteration"),
        ("ray", "trial_*/result.json:mean_loss", "iteration"),
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
    for name, text in stubs.files_of_tools():
        if name.startswith("out/"):
            (tmp_path / Path(name).name).write_text(text)
    (tmp_path / "width64_lr0.4_wd0.1.csv").write_text("epoch,loss\n")  # killed before its first epoch
    (tmp_path / "config.yaml").write_text("lr: 7\n")  # the path says more
    check(read_sweep(tmp_path, "width*_lr{lr}_wd{weight_decay}.csv:loss"), "a run without a value")


def test_charts_and_tables_of_wandb(root: Path, tmp_path: Path) -> None:
    check(read_sweep(root / "wandb.csv", metric="val_loss"), "table")
    path = tmp_path / "chart.csv"
    for form, template in (
        *(("lr={} weight_decay={}", ""), ("lr: {}, weight_decay: {}", "")),
        ("a{}_b{}", "a{lr}_b{weight_decay}"),
    ):
        stubs.write_chart(path, form)
        assert format_name(path) == "wandb", form
        found = read_sweep(path, template)
        check(found, form, "step")
        assert found.context.higher == "column 'val_acc'", form
        assert first(read_sweep(path, template, best=True)) == 0.5
        assert first(read_sweep(path, template, best=True, maximize=True)) == 2.5
    with pytest.raises(UsageError, match=r"run 'a0.1_b0.01' holds no lr=… .* from='lr\{lr\}_wd"):
        read_sweep(path)
    with pytest.raises(UsageError, match="does not fit x"):
        read_sweep(path, "x{lr}")


def test_both_stores_of_mlflow(root: Path) -> None:
    for source in (root / "mlruns", root / "mlruns/1", root / "mlflow.db", f"sqlite:///{root}/mlflow.db"):
        assert format_of(ImportSource(str(source))) == "mlflow", source
        found = read_sweep(source, metric="val_loss")
        check(found, source, "step")
        assert "left out, as they only group others: 1 run" in found.notes, source
        assert first(read_sweep(source, best=True, maximize=True, metric="val_loss")) == 2.5, source
