"""Every format gives the same runs: 2 × 2 cells, of which one diverged and one did not finish."""

from __future__ import annotations

import csv
import json
import sqlite3
import warnings
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Direction, Status
from lrwd_sweep.store.imports import ImportedSweep, ImportSource, format_of, read_table, to_sweeps

RUNS = (
    (0.1, 0.01, 0.5, "done"),
    (0.1, 0.02, 0.4, "done"),
    (0.2, 0.01, 9.0, "stopped"),
    (0.2, 0.02, 0.0, "nan"),
)
NAN = float("nan")
EXPECTED = {Cell(0.1, 0.01): 0.5, Cell(0.1, 0.02): 0.4, Cell(0.2, 0.02): None}  # None: diverged


def sweep(path: Path | str, template: str = "", where: str = "", **options: Any) -> ImportedSweep:
    source = ImportSource(str(path), template, **options)
    pairs = [(name, value) for name, _, value in [where.partition("=")] if name]
    return to_sweeps(read_table([source], where=pairs), source)[""]


def values(found: ImportedSweep) -> dict[Cell, float | None]:
    return {trial.cell: trial.metrics.get(found.metric) for trial in found.trials}


def check(found: ImportedSweep, label: object) -> None:
    assert values(found) == EXPECTED, label
    assert found.lattice == Lattice((0.1, 0.2), (0.01, 0.02)), label
    assert [trial.status for trial in found.trials].count(Status.DIVERGED) == 1, label
    assert any("left out" in note for note in found.notes), label


def curve(value: float, end: str) -> list[float]:
    """Return the losses of three epochs; a stopped run has two, a diverged one ends in NaN."""
    return [value + 2, value + 1, NAN if end == "nan" else value][: 2 if end == "stopped" else 3]


@pytest.fixture(scope="module")
def optuna_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same two studies in both storages of Optuna."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.samplers import RandomSampler
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState, create_trial

    folder = tmp_path_factory.mktemp("optuna")
    box = {
        "optim.lr": FloatDistribution(1e-3, 1, log=True),
        "wd": CategoricalDistribution([0.02, 0.01]),
        "depth": IntDistribution(1, 9),
    }
    states = {"done": TrialState.COMPLETE, "nan": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    with warnings.catch_warnings(action="ignore"):
        journal = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    for storage in (f"sqlite:///{folder}/optuna.db", journal):
        one = optuna.create_study(storage=storage, study_name="one", direction="maximize")
        for lr, wd, value, end in RUNS:
            params = {"optim.lr": lr, "wd": wd, "depth": 3 if end == "done" else 4}
            told = float("inf") if end == "nan" else value
            options: dict[str, Any] = {"user_attrs": {"note": "first"}, "intermediate_values": {0: 1.0}}
            one.add_trial(
                create_trial(state=states[end], value=told, params=params, distributions=box, **options)
            )
        one.enqueue_trial({"optim.lr": 0.5})
        two = optuna.create_study(storage=storage, study_name="two", sampler=RandomSampler(seed=0))
        for _ in range(2):
            trial = two.ask(box)
            trial.set_user_attr("seed", trial.number)
            two.tell(trial, trial.params["depth"])
        two.ask(box)
    return {path.name: path for path in folder.iterdir()}


def test_both_storages_of_optuna(optuna_files: Mapping[str, Path]) -> None:
    columns = {"weight_decay": "wd"}
    tables = {}
    for name in ("optuna.db", "journal.log"):
        path = optuna_files[name]
        assert format_of(ImportSource(str(path))) == "optuna", name
        found = sweep(path, where="study=one", columns=columns)
        check(found, name)
        assert found.context.direction is Direction.MAXIMIZE, name
        assert "lr × weight_decay is not all" in found.notes[-1], name
        assert "one more hyperparameter varies (depth)" in found.notes[-1], name
        with pytest.raises(UsageError, match=r"2 studies \('one', 'two'\); choose one as where='study=one'"):
            sweep(path, columns=columns)
        tables[name] = read_table([ImportSource(str(path))])
    assert tables["optuna.db"].rows == tables["journal.log"].rows
    assert tables["optuna.db"].header == tables["journal.log"].header
    states = [
        dict(zip(tables["optuna.db"].header, row, strict=True))["state"]
        for _, row in tables["optuna.db"].rows
    ]
    assert states == [
        "COMPLETE",
        "COMPLETE",
        "PRUNED",
        "COMPLETE",
        "WAITING",
        "COMPLETE",
        "COMPLETE",
        "RUNNING",
    ]
    url = f"sqlite:///{optuna_files['optuna.db']}"
    check(sweep(url, where="study=one", columns=columns), url)


def test_a_journal_that_was_cut_off_is_read_to_its_last_whole_line(
    optuna_files: Mapping[str, Path], tmp_path: Path
) -> None:
    text = optuna_files["journal.log"].read_text()
    path = tmp_path / "journal.log"
    path.write_text(text + '{"op_code": 4, "wor')
    check(sweep(path, where="study=one", columns={"weight_decay": "wd"}), "cut")
    path.write_text('{"op_code": 0, "study_name": "a", "directions": [1]}\nnot JSON\n{"op_code": 1}\n')
    with pytest.raises(UsageError, match="line 2 is not an entry"):
        sweep(path)


def test_json_of_any_shape(tmp_path: Path) -> None:
    flat = [
        {
            "lr": lr,
            "weight_decay": wd,
            "value": None if end == "nan" else value,
            "status": end.replace("nan", "diverged"),
        }
        for lr, wd, value, end in RUNS
    ]
    nested = [
        {
            "config": {"optim": {"lr": run["lr"]}, "wd": run["weight_decay"]},
            "loss": [9, 8, run["value"]],
            "state": run["status"],
        }
        for run in flat
    ]
    for run in nested:
        run["loss"] = [NAN if x is None else x for x in run["loss"]]  # type: ignore[union-attr]
    by_column = {name: [run[name] for run in flat] for name in flat[0]}
    deep = {"lr": "cells[].lr", "weight_decay": "cells[].wd", "value": "cells[].seeds[].value"}
    cells = [
        {
            "lr": run["lr"],
            "wd": run["weight_decay"],
            "seeds": [{"seed": 0, "value": run["value"], "status": run["status"]}],
        }
        for run in flat
    ]
    paths = {"lr": "config.optim.lr", "weight_decay": "wd", "value": "loss[-1]"}
    lines = "".join(json.dumps(run) + "\n" for run in flat)
    for name, text, columns in (
        ("records.json", json.dumps(flat), {}),
        ("indented.json", "\n" + json.dumps(flat, indent=2), {}),
        ("lines.jsonl", lines, {}),
        ("lines.log", lines, {}),
        ("columns.json", json.dumps(by_column), {}),
        ("pandas.json", json.dumps({k: dict(enumerate(v)) for k, v in by_column.items()}), {}),
        ("split.json", json.dumps({"columns": [*by_column], "data": [[*run.values()] for run in flat]}), {}),
        ("named.json", json.dumps({f"run {k}": run for k, run in enumerate(flat)}), {}),
        ("list.json", json.dumps({"name": "x", "results": flat, "log": [{"a": 1}]}), {}),
        ("nested.json", json.dumps(nested), paths),
        ("deep.json", json.dumps({"cells": cells, "other": [{"lr": 1, "weight_decay": 1}]}), deep),
    ):
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


def test_paths_of_the_tools(tmp_path: Path) -> None:
    def csv_text(header: str, rows: list[str]) -> str:
        return "\n".join([header, *rows]) + "\n"

    def lightning(lr: float, wd: float, losses: list[float]) -> dict[str, str]:
        sparse = [
            row for k, x in enumerate(losses) for row in (f"{k},{k * 10},,0.1", f"{k},{k * 10 + 9},{x!r},")
        ]
        hparams = f"lr: {lr}\noptimizer: !!python/object:torch.optim.AdamW {{}}\nweight_decay: {wd}\n"
        folder = f"version_{lr}_{wd}"
        return {
            f"{folder}/metrics.csv": csv_text("epoch,step,val_loss,train", sparse),
            f"{folder}/hparams.yaml": hparams,
        }

    def ray(lr: float, wd: float, losses: list[float]) -> dict[str, str]:
        lines = [
            json.dumps(
                {"mean_loss": x, "training_iteration": k, "config": {"lr": lr, "opt": {"weight_decay": wd}}}
            )
            for k, x in enumerate(losses)
        ]
        return {f"trial_lr={100 * lr:.0f}_{wd}/result.json": "\n".join(lines)}

    def hugging_face(lr: float, wd: float, losses: list[float]) -> dict[str, str]:
        log = [
            row for k, x in enumerate(losses) for row in ({"step": k, "loss": 1}, {"step": k, "eval_loss": x})
        ]
        return {f"out/{lr}-{wd}/trainer_state.json": json.dumps({"log_history": log})}

    def deepobs(lr: float, wd: float, losses: list[float]) -> dict[str, str]:
        name = f"adam/num_epochs__3__weight_decay__{wd:.0e}__lr__{lr:.0e}/random_seed__0__x.json"
        return {name: json.dumps({"valid_losses": losses})}

    def hydra(lr: float, wd: float, losses: list[float]) -> dict[str, str]:
        rows = [f"{k},{x!r}" for k, x in enumerate(losses)]
        own = f"optim:\n  lr: {lr}\n  weight_decay: {wd}\nseed: 0\n"
        folder = f"multirun/{lr}{wd}"
        return {f"{folder}/log.csv": csv_text("epoch,loss", rows), f"{folder}/.hydra/config.yaml": own}

    for layout, template in (
        (lightning, "version_*/metrics.csv:val_loss"),
        (ray, "**/result.json:mean_loss"),
        (hugging_face, "out/{lr}-{weight_decay}/trainer_state.json:log_history[].eval_loss"),
        (
            deepobs,
            "**/num_epochs__{epochs}__weight_decay__{weight_decay}__lr__{lr}/random_seed__{seed}__*.json:valid_losses",
        ),
        (hydra, "multirun/*/log.csv:loss"),
    ):
        root = tmp_path / layout.__name__
        for lr, wd, value, end in RUNS:
            for name, text in layout(lr, wd, curve(value, end)).items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
        (root / "notes.csv").write_text("a\n")
        check(sweep(root, template), layout.__name__)
    (root / "empty").mkdir()
    begun = root / "multirun/0.40.1"
    begun.mkdir()
    (begun / "log.csv").write_text("epoch,loss\n")  # it was killed before its first epoch
    found = sweep(root, "multirun/{run}/log.csv:loss", columns={"lr": "optim.lr"})
    check(found, "a run without a value")


def test_charts_and_tables_of_wandb(tmp_path: Path) -> None:
    for form, template in (
        ("lr={} weight_decay={}", ""),
        ("lr: {}, weight_decay: {}", ""),
        ("a{}_b{}", "a{lr}_b{weight_decay}"),
    ):
        names = [form.format(lr, wd) + " - val_acc" for lr, wd, *_ in RUNS]
        curves = [curve(value, end) for *_, value, end in RUNS]
        path = tmp_path / "chart.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerow(["Step", *(name + bound for name in names for bound in ("", "__MIN", "__MAX"))])
            for k in range(3):
                points = ["" if len(c) <= k else "NaN" if isnan(c[k]) else c[k] for c in curves]
                writer.writerow([k * 10, *(point for point in points for _ in range(3))])
        assert format_of(ImportSource(str(path))) == "wandb", form
        found = sweep(path, template)
        check(found, form)
        assert found.context.higher == "column 'val_acc'", form
        assert sweep(path, template, best=True).trials[0].metrics["value"] == 0.5
        assert sweep(path, template, best=True, maximize=True).trials[0].metrics["value"] == 2.5
    with pytest.raises(UsageError, match=r"run 'a0.1_b0.01' holds no lr=… .* from='lr\{lr\}_wd"):
        sweep(path)
    with pytest.raises(UsageError, match="does not fit x"):
        sweep(path, "x{lr}")
    words = {"done": "finished", "stopped": "killed", "nan": "finished"}
    rows = [
        f'"r","{words[end]}","{lr}","{wd}","{"NaN" if end == "nan" else value}"'
        for lr, wd, value, end in RUNS
    ]
    (tmp_path / "runs.csv").write_text(
        '"Name","State","optim.lr","optim.weight_decay","loss"\n' + "\n".join(rows)
    )
    check(sweep(tmp_path / "runs.csv", metric="loss"), "table")


def test_both_stores_of_mlflow(tmp_path: Path) -> None:
    folder = tmp_path / "mlruns"
    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.executescript(
        "CREATE TABLE experiments (experiment_id INTEGER, name TEXT);"
        "CREATE TABLE runs (run_uuid, name, status, lifecycle_stage, experiment_id INTEGER, start_time);"
        "CREATE TABLE params (key, value, run_uuid); CREATE TABLE tags (key, value, run_uuid);"
        "CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan);"
        "INSERT INTO experiments VALUES (1, 'digits'), (2, 'other');"
    )

    def add(
        key: str, state: int, params: dict[str, Any], losses: list[float], stage: str, of: str = ""
    ) -> None:
        words = ("", "RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
        database.execute("INSERT INTO runs VALUES (?,?,?,?,1,?)", (key, key, words[state], stage, key))
        meta = f"run_id: {key}\nrun_name: {key}\nstatus: {state}\nlifecycle_stage: {stage}\n"
        files = {"meta.yaml": meta, "tags/mlflow.parentRunId": of, "metrics/val/loss": ""}
        database.execute("INSERT INTO tags VALUES ('mlflow.parentRunId', ?, ?)", (of, key))
        for name, value in params.items():
            files[f"params/{name}"] = str(value)
            database.execute("INSERT INTO params VALUES (?,?,?)", (name, value, key))
        for step, x in reversed([*enumerate(losses)]):
            files["metrics/val/loss"] += f"17{step} {x} {step}\n"
            row = ("val/loss", 0 if isnan(x) else x, step, key, step, isnan(x))
            database.execute("INSERT INTO metrics VALUES (?,?,?,?,?,?)", row)
        for name, text in files.items():
            path = folder / "1" / key / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    (folder / "1").mkdir(parents=True)
    (folder / "1/meta.yaml").write_text("experiment_id: '1'\nname: digits\nlifecycle_stage: active\n")
    (folder / ".trash").mkdir()
    add("group", 3, {}, [], "active")
    for k, (lr, wd, value, end) in enumerate(RUNS):
        state = 5 if end == "stopped" else 3
        add(
            f"run{k}", state, {"lr": lr, "weight_decay": wd, "depth": 3}, curve(value, end), "active", "group"
        )
    add("gone", 3, {"lr": 0.7, "weight_decay": 3}, [1.0], "deleted")
    database.commit()
    for source in (folder, folder / "1", tmp_path / "mlflow.db", f"sqlite:///{tmp_path}/mlflow.db"):
        assert format_of(ImportSource(str(source))) == "mlflow", source
        found = sweep(source, metric="val/loss")
        check(found, source)
        assert sweep(source, best=True, maximize=True, metric="val/loss").trials[0].metrics["val/loss"] == 2.5
    database.close()
