"""`study import` stores one study or several, or nothing with one line that names value and remedy."""

from __future__ import annotations

import io
import json
import re
import shlex
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

import lrwd_sweep
from lrwd_sweep.cli import import_export
from lrwd_sweep.cli.docs import FOLDER
from lrwd_sweep.store import open_store
from lrwd_sweep.store.imports import READERS
from tests.cli.conftest import STORE, Run
from tests.store.imports import stubs

ROWS: list[dict[str, Any]] = [
    {"opt": {"lr": lr, "wd": wd}, "seed": seed, "width": width, "loss": lr * wd * width + seed, "state": "ok"}
    for width in (64, 128)
    for lr in (0.001, 0.01, 0.1)
    for wd in (0.01, 0.1, 1.0)
    for seed in (0, 1)
]
READ = ("-o", "adamw:lr-scaled", "--columns", "weight_decay=wd")
WIDE = ("--metric", "loss", "--where", "width=64")
IMPORT = ("study", "import", "runs.json", "--study-name", "x", *READ)


BAD: tuple[tuple[tuple[str, ...], str], ...] = (
    (("bad.json",), "bad.json: line 1, column 2: Expecting property name enclosed in double quotes"),
    (("deep.json",), "deep.json cannot be read as json (RecursionError"),
    (("number.json", "--format", "json"), "number.json holds 3.5; write a list of objects"),
    (("empty.json",), "empty.json: there are no records in it"),
    (("mixed.json",), "mixed.json: its list does not hold objects"),
    (("two.json",), "two.json holds 2 lists of records, 'a[]', 'b[]'; name the one as --columns"),
    (("lines.jsonl",), "lines.jsonl: line 2: Expecting value; write a JSON object per line"),
    (("runs.json", "--format", "xml"), "unknown format 'xml'"),
    (("runs.json", "--where", "width"), "--where 'width' is not COLUMN=VALUE"),
    (("runs.json", "--where", "width=7"), "no run has '7' in column 'width'; it holds '64', '128'"),
    (("runs.json", "--by", "depth"), "--by depth: there is no column 'depth'"),
    (("runs.json", "--take", "first"), "unknown value to take 'first'"),
    (("runs.json", "--steps", "0"), "--steps 0 is too small"),
    (("runs.json", "--initial-loss", "nan"), "--initial-loss 'nan' is not finite"),
    (
        ("runs.json", *READ[2:], *WIDE, "--initial-loss", "0"),
        "--initial-loss 0.0 is better than",
    ),
    (("runs.json", "--from", "{lr}"), "--from '{lr}' is for folders and charts, but runs.json is json"),
    (("runs.json", "--take", "best"), "--take best is for learning curves, but runs.json is json"),
    (("no.db",), "no.db: No such file or directory"),
    (("sqlite:///no.db",), "no.db: there is no such file"),
    (("sqlite://",), "names no file; write sqlite:///FILE.db"),
    (("nodb://user:secret@host/db",), "nodb://user:…@host/db"),
    (("other.db",), "other.db is not a storage of Optuna: there is no table 'studies'"),
    (("other.db", "--format", "mlflow"), "other.db is not a store of MLflow: there is no table"),
    (("broken.db",), "broken.db cannot be read: no such table: study_directions; check the database"),
    (("cut.db",), "cut.db cannot be read: "),
    (("mlruns",), "meta.yaml cannot be read"),
    (("chart.csv",), "the name of run 'a' holds no lr=… and weight_decay=…"),
    (("chart.csv", "--from", "{name}"), "'a - loss': 'x' is not a number"),
    (("runs",), "runs is a directory, but not one of MLflow; say with --from"),
    (("runs", "--from", "lr{lr}.csv"), "is not TEMPLATE:KEY"),
    (("runs", "--from", "lr{lr}{lr}.csv:loss"), "has a part twice"),
    (("runs", "--from", "lr{lr.csv:loss"), "or one that is not closed"),
    (
        ("runs", "--from", "x{lr}.csv:loss"),
        "no file below it fits --from 'x{lr}.csv:loss'; it",
    ),
    (("runs", "--from", "lr{lr}.csv:acc"), "lr0.1.csv: there is no column 'acc', only 'step', 'loss'"),
    (("runs", "--from", "lr{lr}.csv:loss"), "lr0.1.csv: loss 'fast' is not a number"),
    (("runs", "--from", "lr{lr}.json:acc"), "lr0.2.json: there is no number at 'acc'"),
    (("runs", "--from", "{name}.csv:loss"), "latin.csv cannot be read"),
    (("runs.json", "--from", "lr{lr}.csv:loss", "--format", "paths"), "runs.json is not a folder"),
)


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, _empty_directory: None) -> None:
    (tmp_path / "runs.json").write_text(json.dumps(ROWS))


def test_formats_of_the_help_are_those_that_are_read() -> None:
    assert {*import_export.FORMATS} == READERS.keys()


def test_a_study_for_each_value_of_a_column(run: Run) -> None:
    found = run(*IMPORT, "--metric", "loss", "--by", "width", "--initial-loss", "3", "--steps", "500")
    assert (found.code, found.out) == (0, "")
    assert found.err == "".join(
        f"imported 18 lanes as x-width-{width}: 9 cells × 2 seeds, adamw:lr-scaled, lower loss is better\n"
        for width in (64, 128)
    )
    report = run("report", "--full")
    assert report.code == 0
    assert "x-width-64   θ" in report.out
    assert " of the run" in report.out
    sensitivity = lrwd_sweep.load("x-width-64").separability.lr_sensitivity
    assert sensitivity is not None
    assert sensitivity.tuned.value is not None
    again = run(*IMPORT, "--metric", "loss", "--by", "width")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "study 'x-width-64' exists" in again.err


def test_every_line_of_the_guide_runs(run: Run, tmp_path: Path) -> None:
    stubs.write(tmp_path)
    (table,) = re.findall(r"\| your sweep .*?\n\n", (FOLDER / "import.md").read_text(), flags=re.DOTALL)
    lines = re.findall(r"\| `(.*)` \|", table)
    assert len(lines) == 15
    for k, line in enumerate(lines):
        name = ("--study-name", f"s{k}", "--optimizer", "adamw:lr-scaled")
        direction = () if "optuna" in line or "journal" in line else ("--minimize",)
        found = run("study", "import", *shlex.split(line), *name, *direction)
        assert found.code == 0, (line, found.err)
        assert f"imported 3 lanes as s{k}" in found.err, line


def test_bad_imports_are_one_line_and_store_nothing(run: Run, tmp_path: Path) -> None:
    def database(name: str, script: str) -> None:
        with sqlite3.connect(tmp_path / name) as connection:
            connection.executescript(script)
        connection.close()

    database("other.db", "CREATE TABLE a (b)")
    database(
        "broken.db",
        "CREATE TABLE studies (study_id, study_name); CREATE TABLE trials (a);"
        "CREATE TABLE trial_params (a); CREATE TABLE trial_values (a); INSERT INTO studies VALUES (1, 'a')",
    )
    (tmp_path / "cut.db").write_bytes((tmp_path / "other.db").read_bytes()[:1000])
    (tmp_path / "mlruns/1/a").mkdir(parents=True)
    (tmp_path / "mlruns/1/meta.yaml").write_text("experiment_id: 1\n")
    (tmp_path / "mlruns/1/a/meta.yaml").write_text("{[")
    files = {
        "bad.json": "{'lr': 1}",
        "deep.json": "[" * 100_000,
        "number.json": "3.5",
        "empty.json": "[]",
        "mixed.json": "[1, {}]",
        "two.json": json.dumps({"a": [{"lr": 1}], "b": [{"lr": 2}]}),
        "lines.jsonl": '{"lr": 1}\n{"lr": \n',
        "chart.csv": "Step,a - loss,a - loss__MIN,a - loss__MAX\n0,x,1,1\n",
        "runs/lr0.1.csv": "step,loss\n0,fast\n",
        "runs/lr0.2.json": '{"loss": []}',
        "runs/latin.csv": "step,löss\n0,1\n",
    }
    (tmp_path / "runs").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
    named = ("--study-name", "x", "-o", "adam")
    for arguments, text in BAD:
        found = run("study", "import", *arguments, *named)
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), (arguments, found.err)
        assert text in found.err, arguments
        assert "secret" not in found.err
    assert not (tmp_path / STORE).exists()
    assert run(*IMPORT, "--metric", "loss", "--where", "width=64").code == 0
    found = run("study", "import", STORE, *named)
    assert found.err.endswith("is a store of lrwd-sweep and needs no import; read it with --storage\n")


def test_several_files_and_a_chosen_study(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna
    from optuna.distributions import FloatDistribution

    box = {"lr": FloatDistribution(0.001, 0.1), "wd": FloatDistribution(0.01, 1)}
    for width in (64, 128):
        runs = [row for row in ROWS if row["width"] == width]
        (tmp_path / f"w{width}.json").write_text(json.dumps(runs))
        study = optuna.create_study(storage="sqlite:///optuna.db", study_name=f"W{width}")
        study.add_trials(
            optuna.create_trial(params=row["opt"], distributions={**box}, value=row["loss"])
            for row in runs
            if row["seed"] == 0
        )
    found = run("study", "import", "w64.json", "w128.json", *IMPORT[3:], *WIDE[:2], "--by", "file")
    assert found.err.count("imported 18 lanes as x-file-w") == 2
    options = ("study", "import", "optuna.db", "--study-name", "o", *READ)
    assert "choose one as --where study=W64, or import a study of each with --by study" in run(*options).err
    monkeypatch.setattr(import_export, "_on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("w7\nw128\n"))
    found = run(*options)
    assert found.err.count("which study? [W64/W128] ") == 2
    assert "imported 9 lanes as o: 9 cells × 1 seed" in found.err


def test_every_export_is_read_back(run: Run, tmp_path: Path) -> None:
    rows = [dict(row) for row in ROWS if row["width"] == 64]
    rows[0] |= {"loss": None, "state": "diverged"}
    rows[1]["state"] = "crashed"
    rows[2]["state"] = "running"
    scattered = [
        row | {"opt": {"lr": row["opt"]["lr"] * 1.1**k, "wd": 0.3 + k}, "seed": 0}
        for k, row in enumerate(rows)
    ]
    named = ("-o", "adamw:lr-scaled", "--columns", "weight_decay=wd,value=loss", "--cap", "-7")
    for name, sweep, metric in (("a", rows, "f1"), ("b", scattered, "value")):
        (tmp_path / "runs.json").write_text(json.dumps(sweep))
        how = ("--metric", metric, "--maximize")
        assert run(*IMPORT[:4], name, *named, *how).code == 0, name
        for form in ("csv", "json", "wandb", "optuna"):
            back = f"{name}-{form}"
            assert run("study", "export", name, "--format", form, "--output", f"{back}.out").code == 0, back
            told = ("--cap", "-7") if form == "optuna" else ()
            found = run("study", "import", f"{back}.out", "--study-name", back, *named[:2], *how[:2], *told)
            assert found.code == 0, (back, found.err)
            with open_store(STORE, write=False) as store:
                assert store.trials(back) == store.trials(name), back
                assert store.get_study(back).spec == store.get_study(name).spec, back
