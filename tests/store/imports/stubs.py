"""Sweeps in the formats of other tools: 2 × 2 cells, of which one diverged and one did not finish."""

from __future__ import annotations

import csv
import json
import sqlite3
import warnings
from collections.abc import Iterator
from math import isnan, nan
from pathlib import Path
from typing import Any

RUNS = (
    *((0.1, 0.01, 0.5, "done"), (0.1, 0.02, 0.4, "done")),
    *((0.2, 0.01, 9.0, "stopped"), (0.2, 0.02, 0.0, "nan")),
)
RECORDS = [
    {
        "lr": lr,
        "weight_decay": wd,
        "val_loss": None if end == "nan" else value,
        "status": end.replace("nan", "diverged"),
    }
    for lr, wd, value, end in RUNS
]


def curve(value: float, end: str) -> list[float]:
    """Return the losses of three epochs; a stopped run has two, a diverged one ends in NaN."""
    return [value + 2, value + 1, nan if end == "nan" else value][: 2 if end == "stopped" else 3]


CURVES = [(lr, wd, curve(value, end)) for lr, wd, value, end in RUNS]


def write(root: Path) -> None:
    """Write a sweep of every tool into a folder, under the names that the guide gives them."""
    write_tables(root)
    write_chart(root / "chart.csv", "lr{}_wd{}_s0")
    write_optuna(root)
    write_mlflow(root)
    for folder, name, text in files_of_tools():
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_tables(root: Path) -> None:
    rows = [
        {
            "learning_rate": lr,
            "weight_decay": wd,
            "val_loss": "nan" if end == "nan" else value,
            "done": end != "stopped",
        }
        for lr, wd, value, end in RUNS
    ]
    with (root / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    words = {"done": "finished", "stopped": "killed", "nan": "finished"}
    lines = ['"Name","State","optim.lr","optim.weight_decay","val_loss"']
    lines += [
        f'"r","{words[end]}","{lr}","{wd}","{"NaN" if end == "nan" else value}"'
        for lr, wd, value, end in RUNS
    ]
    (root / "wandb.csv").write_text("\n".join(lines))
    (root / "runs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    named = [
        {"learning_rate": r["lr"], "weight_decay": r["weight_decay"], "value": r["val_loss"]} for r in RECORDS
    ]
    results = [one | {"status": record["status"]} for one, record in zip(named, RECORDS, strict=True)]
    (root / "results.json").write_text(json.dumps({"name": "x", "results": results, "log": [{"a": 1}]}))


def write_chart(path: Path, form: str) -> None:
    """Write a chart panel of Weights & Biases; `form` makes the name of a run of lr and weight decay."""
    names = [form.format(lr, wd) + " - val_acc" for lr, wd, _ in CURVES]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["Step", *(name + bound for name in names for bound in ("", "__MIN", "__MAX"))])
        for k in range(3):
            points = ["" if len(c) <= k else "NaN" if isnan(c[k]) else c[k] for *_, c in CURVES]
            writer.writerow([k * 10, *(point for point in points for _ in range(3))])


def write_optuna(root: Path) -> None:
    """Write the same two studies in both storages of Optuna."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.samplers import RandomSampler
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState, create_trial

    box = {
        "optim.lr": FloatDistribution(1e-3, 1, log=True),
        "optim.weight_decay": CategoricalDistribution([0.02, 0.01]),
        "depth": IntDistribution(1, 9),
    }
    states = {"done": TrialState.COMPLETE, "nan": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    with warnings.catch_warnings(action="ignore"):
        journal = optuna.storages.JournalStorage(JournalFileBackend(str(root / "journal.log")))
    for storage in (f"sqlite:///{root}/optuna.db", journal):
        one = optuna.create_study(storage=storage, study_name="one", direction="maximize")
        for lr, wd, value, end in RUNS:
            params = {"optim.lr": lr, "optim.weight_decay": wd, "depth": 3 if end == "done" else 4}
            told = float("inf") if end == "nan" else value
            further: dict[str, Any] = {"user_attrs": {"note": "first"}, "intermediate_values": {0: 1.0}}
            one.add_trial(
                create_trial(state=states[end], value=told, params=params, distributions=box, **further)
            )
        one.enqueue_trial({"optim.lr": 0.5})
        two = optuna.create_study(storage=storage, study_name="two", sampler=RandomSampler(seed=0))
        for _ in range(2):
            trial = two.ask(box)
            trial.set_user_attr("seed", 0)
            two.tell(trial, trial.params["depth"])
        two.ask(box)


def files_of_tools() -> Iterator[tuple[str, str, str]]:
    """Yield folder, name and text of each file that the tools write for their runs."""
    for lr, wd, losses in CURVES:
        steps = [*enumerate(losses)]
        sparse = [row for k, x in steps for row in (f"{k},{k * 10},,0.1", f"{k},{k * 10 + 9},{x!r},")]
        folder = f"version_{lr}_{wd}"
        yield "lightning_logs", f"{folder}/metrics.csv", "\n".join(["epoch,step,val_loss,train", *sparse, ""])
        hparams = f"lr: {lr}\noptimizer: !!python/object:torch.optim.AdamW {{}}\nweight_decay: {wd}\n"
        yield "lightning_logs", f"{folder}/hparams.yaml", hparams
        config = {"lr": lr, "opt": {"weight_decay": wd}}
        lines = [json.dumps({"mean_loss": x, "training_iteration": k, "config": config}) for k, x in steps]
        yield "ray", f"trial_{10 * lr:.0f}_{wd}/result.json", "\n".join(lines)
        log = [row for k, x in steps for row in ({"step": k, "loss": 1}, {"step": k, "eval_loss": x})]
        yield "hf", f"{lr}-{wd}/trainer_state.json", json.dumps({"log_history": log})
        yield (
            "hf",
            f"{lr}-{wd}/params.json",
            json.dumps({"lr": lr, "weight_decay": {"value": wd, "desc": None}}),
        )
        name = f"adam/n__3__weight_decay__{wd:.0e}__lr__{lr:.0e}/random_seed__0__x.json"
        yield "deepobs", name, json.dumps({"valid_losses": losses})
        table = "\n".join(["epoch,val_loss", *(f"{k},{x!r}" for k, x in steps), ""])
        yield "multirun", f"{lr}{wd}/log.csv", table
        yield (
            "multirun",
            f"{lr}{wd}/.hydra/config.yaml",
            f"optim:\n  lr: {lr}\n  weight_decay: {wd}\nseed: 0\n",
        )
        yield "out", f"width64_lr{lr}_wd{wd}.csv", table.replace("val_loss", "loss")
    yield "out", "notes.csv", "a\n"
    yield "deepobs", "adam/n__3__weight_decay__1e-02__lr__1e-01/settings.yaml", "a: 1\n"


def write_mlflow(root: Path) -> None:
    """Write the same runs in both stores of MLflow: one run groups them, another was deleted."""
    folder = root / "mlruns"
    (folder / "1").mkdir(parents=True)
    (folder / "1/meta.yaml").write_text("experiment_id: '1'\nname: digits\nlifecycle_stage: active\n")
    (folder / ".trash").mkdir()
    database = sqlite3.connect(root / "mlflow.db")
    database.executescript(
        "CREATE TABLE experiments (experiment_id INTEGER, name TEXT);"
        "CREATE TABLE runs (run_uuid, name, status, lifecycle_stage, experiment_id INTEGER, start_time);"
        "CREATE TABLE params (key, value, run_uuid); CREATE TABLE tags (key, value, run_uuid);"
        "CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan);"
        "INSERT INTO experiments VALUES (1, 'digits'), (2, 'other');"
    )
    words = ("", "RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")

    def add(key: str, state: int, params: dict[str, float], losses: list[float], stage: str, of: str) -> None:
        database.execute("INSERT INTO runs VALUES (?,?,?,?,1,?)", (key, key, words[state], stage, key))
        database.execute("INSERT INTO tags VALUES ('mlflow.parentRunId', ?, ?)", (of, key))
        meta = f"run_id: {key}\nrun_name: {key}\nstatus: {state}\nlifecycle_stage: {stage}\n"
        files = {"meta.yaml": meta, "tags/mlflow.parentRunId": of}
        for name, value in params.items():
            files[f"params/{name}"] = str(value)
            database.execute("INSERT INTO params VALUES (?,?,?)", (name, value, key))
        points = [*enumerate(losses)][::-1]
        files["metrics/eval/val_loss"] = "".join(f"17{step} {x} {step}\n" for step, x in points)
        database.executemany(
            "INSERT INTO metrics VALUES ('eval/val_loss',?,?,?,?,?)",
            [(0 if isnan(x) else x, step, key, step, isnan(x)) for step, x in points],
        )
        for name, text in files.items():
            path = folder / "1" / key / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    add("group", 3, {}, [1.0], "active", "")
    for k, ((lr, wd, losses), (*_, end)) in enumerate(zip(CURVES, RUNS, strict=True)):
        params = {"lr": lr, "weight_decay": wd, "depth": 3}
        add(f"run{k}", 5 if end == "stopped" else 3, params, losses, "active", "group")
    add("gone", 3, {"lr": 0.7, "weight_decay": 3}, [1.0], "deleted", "")
    database.commit()
    database.close()
