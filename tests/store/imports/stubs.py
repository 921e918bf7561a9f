"""Sweeps in the formats of other tools: 2 × 2 cells, of which one diverged and one did not finish."""

import csv
import json
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from math import isnan, nan
from pathlib import Path

RUNS = (
    *((0.1, 0.01, 0.5, "done"), (0.1, 0.02, 0.4, "done")),
    *((0.2, 0.01, 9.0, "stopped"), (0.2, 0.02, nan, "diverged")),
)
RECORDS = [
    {"lr": lr, "weight_decay": wd, "val_loss": None if isnan(value) else value, "status": end}
    for lr, wd, value, end in RUNS
]


def curve(value: float, end: str) -> list[float]:
    """Return the losses of three epochs; a stopped run has two, a diverged one ends in NaN."""
    first = 0.0 if isnan(value) else value
    return [first + 2, first + 1, value][: 2 if end == "stopped" else 3]


CURVES = [(lr, wd, curve(value, end)) for lr, wd, value, end in RUNS]


def write(root: Path) -> None:
    """Write a sweep of every tool into a folder, under the names that the guide gives them."""
    write_chart(root / "chart.csv", "lr{}_wd{}_s0")
    write_optuna(root)
    for name, text in [*tables(), *files_of_tools(), *write_mlflow(root / "mlflow.db")]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def tables() -> Iterator[tuple[str, str]]:
    """Yield name and text of each table of runs."""
    rows = [f"{lr},{wd},{value},{end != 'stopped'}" for lr, wd, value, end in RUNS]
    yield "runs.csv", "\n".join(["learning_rate,weight_decay,val_loss,done", *rows, ""])
    words = {"done": "finished", "stopped": "killed", "diverged": "finished"}
    rows = [
        f'"r","{words[end]}","{lr}","{wd}","{"NaN" if isnan(value) else value}"'
        for lr, wd, value, end in RUNS
    ]
    yield "wandb.csv", "\n".join(['"Name","State","optim.lr","optim.weight_decay","val_loss"', *rows])
    yield "runs.jsonl", "".join(json.dumps(record) + "\n" for record in RECORDS)
    new = {"lr": "learning_rate", "val_loss": "value"}
    results = [{new.get(name, name): value for name, value in record.items()} for record in RECORDS]
    yield "results.json", json.dumps({"name": "x", "results": results, "log": [{"a": 1}]})


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
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState, create_trial

    box = {
        "optim.lr": FloatDistribution(1e-3, 1, log=True),
        "optim.weight_decay": CategoricalDistribution([0.02, 0.01]),
        "depth": IntDistribution(1, 9),
    }
    states = {"stopped": TrialState.PRUNED}
    with warnings.catch_warnings(action="ignore"):
        journal = optuna.storages.JournalStorage(JournalFileBackend(str(root / "journal.log")))
    for storage in (f"sqlite:///{root}/optuna.db", journal):
        one = optuna.create_study(storage=storage, study_name="one", direction="maximize")
        for lr, wd, value, end in RUNS:
            trial = create_trial(
                state=states.get(end, TrialState.COMPLETE),
                value=float("inf") if isnan(value) else value,
                params={"optim.lr": lr, "optim.weight_decay": wd, "depth": 3 if end == "done" else 4},
                distributions=box,
                user_attrs={"note": "first"},
                intermediate_values={0: 1.0},
            )
            one.add_trial(trial)
        one.enqueue_trial({"optim.lr": 0.5})
        sampler = optuna.samplers.RandomSampler(seed=0)
        two = optuna.create_study(storage=storage, study_name="two", sampler=sampler)
        for _ in range(2):
            asked = two.ask(box)
            asked.set_user_attr("seed", 0)
            two.tell(asked, asked.params["depth"])
        two.ask(box)


def files_of_tools() -> Iterator[tuple[str, str]]:
    """Yield name and text of each file that the tools write for their runs."""
    for lr, wd, losses in CURVES:
        steps = [*enumerate(losses)]
        sparse = [row for k, x in steps for row in (f"{k},{k * 10},,0.1", f"{k},{k * 10 + 9},{x!r},")]
        folder = f"lightning_logs/version_{lr}_{wd}"
        yield f"{folder}/metrics.csv", "\n".join(["epoch,step,val_loss,train", *sparse, ""])
        hparams = f"lr: {lr}\noptimizer: !!python/object:torch.optim.AdamW {{}}\nweight_decay: {wd}\n"
        yield f"{folder}/hparams.yaml", hparams
        config = {"lr": lr, "opt": {"weight_decay": wd}}
        lines = [json.dumps({"mean_loss": x, "training_iteration": k, "config": config}) for k, x in steps]
        yield f"ray/trial_{10 * lr:.0f}_{wd}/result.json", "\n".join(lines)
        log = [row for k, x in steps for row in ({"step": k, "loss": 1}, {"step": k, "eval_loss": x})]
        yield f"hf/{lr}-{wd}/trainer_state.json", json.dumps({"log_history": log})
        config = {"lr": lr, "weight_decay": {"value": wd, "desc": None}}
        yield f"hf/{lr}-{wd}/params.json", json.dumps(config)
        name = f"deepobs/adam/n__3__weight_decay__{wd:.0e}__lr__{lr:.0e}/random_seed__0__x.json"
        yield name, json.dumps({"valid_losses": losses})
        table = "\n".join(["epoch,val_loss", *(f"{k},{x!r}" for k, x in steps), ""])
        yield f"multirun/{lr}{wd}/log.csv", table
        settings = f"optim:\n  lr: {lr}\n  weight_decay: {wd}\nseed: 0\n"
        yield f"multirun/{lr}{wd}/.hydra/config.yaml", settings
        yield f"out/width64_lr{lr}_wd{wd}.csv", table.replace("val_loss", "loss")
    yield "out/notes.csv", "a\n"
    yield "deepobs/adam/n__3__weight_decay__1e-02__lr__1e-01/settings.yaml", "a: 1\n"


def write_mlflow(path: Path) -> Iterator[tuple[str, str]]:
    """Write MLflow's database, and yield name and text of its files: one run groups, one was deleted."""
    experiment = "experiment_id: '1'\nname: digits\nlifecycle_stage: active\n"
    yield from (("mlruns/1/meta.yaml", experiment), ("mlruns/.trash/a", ""))
    runs = [("group", "FINISHED", {}, [1.0], "active", "")]
    for k, ((lr, wd, losses), (*_, end)) in enumerate(zip(CURVES, RUNS, strict=True)):
        params = {"lr": lr, "weight_decay": wd, "depth": 3}
        runs.append(
            (f"run{k}", "KILLED" if end == "stopped" else "FINISHED", params, losses, "active", "group")
        )
    runs.append(("gone", "FINISHED", {"lr": 0.7, "weight_decay": 3}, [1.0], "deleted", ""))
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER, name TEXT);"
            "CREATE TABLE runs (run_uuid, name, status, lifecycle_stage, experiment_id INTEGER, start_time);"
            "CREATE TABLE params (key, value, run_uuid); CREATE TABLE tags (key, value, run_uuid);"
            "CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan);"
            "INSERT INTO experiments VALUES (1, 'digits'), (2, 'other');"
        )
        for key, state, params, losses, stage, parent in runs:
            database.execute("INSERT INTO runs VALUES (?,?,?,?,1,?)", (key, key, state, stage, key))
            database.execute("INSERT INTO tags VALUES ('mlflow.parentRunId', ?, ?)", (parent, key))
            points = [(0 if isnan(x) else x, k, key, k, isnan(x)) for k, x in enumerate(losses)][::-1]
            database.executemany("INSERT INTO metrics VALUES ('eval/val_loss',?,?,?,?,?)", points)
            database.executemany("INSERT INTO params VALUES (?,?,?)", [(*one, key) for one in params.items()])
            number = {"FINISHED": 3, "KILLED": 5}[state]
            meta = f"run_id: {key}\nrun_name: {key}\nstatus: {number}\nlifecycle_stage: {stage}\n"
            lines = "".join(f"17{k} {x} {k}\n" for k, x in [*enumerate(losses)][::-1])
            files = {"meta.yaml": meta, "tags/mlflow.parentRunId": parent, "metrics/eval/val_loss": lines}
            files |= {f"params/{name}": str(value) for name, value in params.items()}
            yield from ((f"mlruns/1/{key}/{name}", text) for name, text in files.items())
