"""Every format gives the same runs: 2 × 2 cells, of which one diverged and one did not finish."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Direction, Status
from lrwd_sweep.store.imports import ImportedSweep, ImportSource, format_of, read_table, to_sweeps
from tests.store.imports import stubs
from tests.store.imports.stubs import RECORDS, RUNS, curve

UNITS = {"ray": "iteration", "hf": "step", "deepobs": "", "lightning_logs": "step"}
EXPECTED = {Cell(0.1, 0.01): 0.5, Cell(0.1, 0.02): 0.4, Cell(0.2, 0.02): None}  # None: diverged


def sweep(path: Path | str, template: str = "", where: str = "", **options: Any) -> ImportedSweep:
    source = ImportSource(str(path), template, **options)
    pairs = [(name, value) for name, _, value in [where.partition("=")] if name]
    return to_sweeps(read_table([source], where=pairs), source)[""]


def check(found: ImportedSweep, label: object) -> None:
    assert {trial.cell: trial.metrics.get(found.metric) for trial in found.trials} == EXPECTED, label
    assert found.lattice == Lattice((0.1, 0.2), (0.01, 0.02)), label
    assert [trial.status for trial in found.trials].count(Status.DIVERGED) == 1, label
    assert any("left out" in note for note in found.notes), label


def check_curve(found: ImportedSweep, unit: str, label: object) -> None:
    """Check that the first run has its learning curve, with steps if its source has them."""
    curves = dict(found.trials[0].curves)
    assert curves.pop(found.metric) == (2.5, 1.5, 0.5), label
    assert [*curves] == [unit] * bool(unit), label
    for values in curves.values():
        assert len(values) == 3, label
        assert [*values] == sorted(values), label


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of every tool."""
    root = tmp_path_factory.mktemp("tools")
    stubs.write(root)
    return root


def test_both_storages_of_optuna(root: Path) -> None:
    tables = []
    for name in ("optuna.db", "journal.log"):
        path = root / name
        assert format_of(ImportSource(str(path))) == "optuna", name
        found = sweep(path, where="study=one")
        check(found, name)
        assert found.context.direction is Direction.MAXIMIZE, name
        assert "lr × weight_decay is not all" in found.notes[-1], name
        assert "one more hyperparameter varies (depth)" in found.notes[-1], name
        with pytest.raises(UsageError, match=r"2 studies \('one', 'two'\); choose one as where='study=one'"):
            sweep(path)
        tables.append(read_table([ImportSource(str(path))]))
    database, journal = tables
    assert database.header == journal.header
    assert np.array_equal(database.texts, journal.texts)
    states = Counter(database.columns()["state"])
    assert states == {"COMPLETE": 5, "PRUNED": 1, "RUNNING": 1, "WAITING": 1}
    url = f"sqlite:///{root}/optuna.db"
    check(sweep(url, where="study=one"), url)


def test_journal_that_was_cut_off_is_read_to_its_last_whole_line(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_text((root / "journal.log").read_text() + '{"op_code": 4, "wor')
    check(sweep(path, where="study=one"), "cut")
    path.write_text('{"op_code": 0, "study_name": "a", "directions": [1]}\nnot JSON\n{"op_code": 1}\n')
    with pytest.raises(UsageError, match="line 2 is not an entry"):
        sweep(path)


def test_json_of_any_shape(tmp_path: Path) -> None:
    flat = [{name.replace("val_loss", "value"): text for name, text in one.items()} for one in RECORDS]
    nested = [
        {
            "config": {"optim": {"lr": lr}, "wd": wd},
            "loss": curve(value, end),
            "state": end.replace("nan", "ok"),
        }
        for lr, wd, value, end in RUNS
    ]
    by_column = {name: [one[name] for one in flat] for name in flat[0]}
    deep = {"lr": "cells[].lr", "weight_decay": "cells[].wd", "value": "cells[].seeds[].value"}
    cells = [{"lr": lr, "wd": wd, "seeds": [one]} for (lr, wd, *_), one in zip(RUNS, flat, strict=True)]
    ends = [{name: one[name] for name in ("value", "status")} for one in flat]
    for cell, end in zip(cells, ends, strict=True):
        cell["seeds"] = [end]
    paths = {"lr": "config.optim.lr", "weight_decay": "wd", "value": "loss[-1]"}
    lines = "".join(json.dumps(one) + "\n" for one in flat)
    shapes: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("records.json", json.dumps(flat), {}),
        ("indented.json", "\n" + json.dumps(flat, indent=2), {}),
        ("lines.jsonl", lines, {}),
        ("lines.log", lines, {}),
        ("columns.json", json.dumps(by_column), {}),
        ("pandas.json", json.dumps({k: dict(enumerate(v)) for k, v in by_column.items()}), {}),
        ("split.json", json.dumps({"columns": [*by_column], "data": [[*one.values()] for one in flat]}), {}),
        ("named.json", json.dumps({f"run {k}": one for k, one in enumerate(flat)}), {}),
        ("list.json", json.dumps({"name": "x", "results": flat, "log": [{"a": 1}]}), {}),
        ("nested.json", json.dumps(nested), paths),
        ("deep.json", json.dumps({"cells": cells, "other": [{"lr": 1, "weight_decay": 1}]}), deep),
    )
    for name, text, columns in shapes:
        path = tmp_path / name
        path.write_text(text)
        assert format_of(ImportSource(str(path))) == "json", name
        check(sweep(path, columns=columns), name)
    files = []
    for k, one in enumerate(flat):  # a file per run, with the run's curve in it
        files.append(tmp_path / f"run{k}.json")
        files[-1].write_text(json.dumps(one | {"curve": [{"loss": 1}, {"loss": 2}]}))
    table = read_table([ImportSource(str(path)) for path in files])
    check(to_sweeps(table, ImportSource("runs"))[""], "a file per run")


def test_paths_of_the_tools(root: Path, tmp_path: Path) -> None:
    for folder, template in (
        ("lightning_logs", "version_*/metrics.csv:val_loss"),
        ("ray", "**/result.json:mean_loss"),
        ("ray", "trial_*/result.json:mean_loss"),
        ("hf", "{lr}-{weight_decay}/trainer_state.json:log_history[].eval_loss"),
        ("hf", "*/trainer_state.json:log_history[].eval_loss"),
        ("deepobs", "**/*__{weight_decay}__lr__{lr}/random_seed__{seed}__*:valid_losses"),
        ("multirun", "*/log.csv:val_loss"),
        ("out", "./width{width}_lr{lr}_wd{weight_decay}.csv:loss"),
    ):
        found = sweep(root / folder, template)
        check(found, (folder, template))
        check_curve(found, UNITS.get(folder, "epoch"), folder)
        best = sweep(root / folder, template, best=True, maximize=True)
        assert best.trials[0].metrics["value"] == 2.5, folder
    assert found.notes[0] == "1 more .csv there do not fit width{width}_lr{lr}_wd{weight_decay}.csv"
    for _, name, text in filter(lambda file: file[0] == "out", stubs.files_of_tools()):
        (tmp_path / name).write_text(text)
    (tmp_path / "width64_lr0.4_wd0.1.csv").write_text("epoch,loss\n")  # killed before its first epoch
    (tmp_path / "config.yaml").write_text("lr: 7\n")  # the path says more
    check(sweep(tmp_path, "width*_lr{lr}_wd{weight_decay}.csv:loss"), "a run without a value")


def test_charts_and_tables_of_wandb(root: Path, tmp_path: Path) -> None:
    check(sweep(root / "wandb.csv", metric="val_loss"), "table")
    path = tmp_path / "chart.csv"
    for form, template in (
        ("lr={} weight_decay={}", ""),
        ("lr: {}, weight_decay: {}", ""),
        ("a{}_b{}", "a{lr}_b{weight_decay}"),
    ):
        stubs.write_chart(path, form)
        assert format_of(ImportSource(str(path))) == "wandb", form
        found = sweep(path, template)
        check(found, form)
        check_curve(found, "step", form)
        assert found.context.higher == "column 'val_acc'", form
        assert sweep(path, template, best=True).trials[0].metrics["value"] == 0.5
        assert sweep(path, template, best=True, maximize=True).trials[0].metrics["value"] == 2.5
    with pytest.raises(UsageError, match=r"run 'a0.1_b0.01' holds no lr=… .* from='lr\{lr\}_wd"):
        sweep(path)
    with pytest.raises(UsageError, match="does not fit x"):
        sweep(path, "x{lr}")


def test_both_stores_of_mlflow(root: Path) -> None:
    for source in (root / "mlruns", root / "mlruns/1", root / "mlflow.db", f"sqlite:///{root}/mlflow.db"):
        assert format_of(ImportSource(str(source))) == "mlflow", source
        found = sweep(source, metric="val_loss")
        check(found, source)
        check_curve(found, "step", source)
        assert "left out, as they only group others: 1 run" in found.notes, source
        best = sweep(source, best=True, maximize=True, metric="val_loss")
        assert best.trials[0].metrics["val_loss"] == 2.5, source
