"""`study` imports whole sweeps or nothing, asks what they leave open, and deletes nothing without asking."""

import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.cli import import_export
from lrwd_sweep.cli.docs import FOLDER
from lrwd_sweep.store import open_store
from lrwd_sweep.store.imports import READERS
from tests.cli.conftest import ADAM, ADAMW, STORE, Patch, Run, assert_refused, strict
from tests.faults import stored
from tests.report.view.examples import HOSTILE
from tests.store.sample import execute, write_tools

ROWS: list[dict[str, Any]] = [
    {"opt": {"lr": lr, "wd": wd}, "seed": seed, "width": width, "loss": lr * wd * width + seed, "state": "ok"}
    for width in (64, 128)
    for lr in (0.001, 0.01, 0.1)
    for wd in (0.01, 0.1, 1.0)
    for seed in (0, 1)
]
OURS = "-o adamw:lr-scaled"
IMPORT = f"study import runs.json {OURS} --columns weight_decay=wd --study-name x --metric loss"
ONE = "study import runs.json --columns weight_decay=wd,value=loss --where width=64"
CASES = Path(__file__).with_name("imports.txt")  # a title, a file, commands and what they print

BAD = {
    "deep.json": "deep.json cannot be read as json (RecursionError",
    "no.db": "no.db: No such file or directory",
    "sqlite:///no.db": "no.db: there is no such file",
    "sqlite://": "names no file; write sqlite:///FILE.db",
    "nodb://user:secret@host/db": "nodb://user:…@host/db",
    "other.db": "other.db is not a storage of Optuna: there is no table 'studies'",
    "other.db --format mlflow": "other.db is not a store of MLflow: there is no table",
    "broken.db": "broken.db cannot be read: no such table: study_directions; check the database",
    "cut.db": "cut.db cannot be read: ",
    "mlruns": "meta.yaml cannot be read",
    "runs --from {name}.csv:loss": "latin.csv cannot be read",
    "runs.json --from lr{lr}.csv:loss --format paths": "runs.json is not a folder",
}


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, _empty_directory: None) -> None:
    (tmp_path / "runs.json").write_text(json.dumps(ROWS))


def test_imports_print_and_store_what_the_cases_say(run: Run) -> None:
    said = "imported 18 lanes as x-width-{}: 9 cells × 2 seeds, adamw:lr-scaled, lower loss is better\n"
    found = run(f"{IMPORT} --by width --initial-loss 3 --steps 500")
    assert found == (0, "", said.format(64) + said.format(128))
    report = run("report --full").out
    assert all(text in report for text in ("x-width-64   θ", " of the run", "θ ← θ − η"))
    exists = "study 'x-width-64' exists; delete it first (study delete)"
    assert_refused(run(f"{IMPORT} --by width"), 2, exists)
    found = run(f"study import {STORE} --study-name x -o adam")
    assert found.err.endswith("is a store of lrwd-sweep and needs no import; read it with --storage\n")
    Path(STORE).unlink()
    for case in CASES.read_text(encoding="utf-8").strip().split("\n\n"):
        content, *commands = case.split("\n$ ")
        title, _, rows = content.partition("\n")
        for line, _, expected in (command.partition("\n") for command in commands):
            words = shlex.split(line)
            name, _, text = rows[2:].partition("\n") if rows.startswith("> ") else (words[0], "", rows)
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(text + "\n")
            found = run("study", "import", *words, "--study-name", "x")
            is_stored = "imported " in expected
            assert (found.code, Path(STORE).exists()) == (0 if is_stored else 2, is_stored), (title, found)
            export = run("study", "export", "x").out if "\nlr,weight_decay" in expected else ""
            assert (found.err + export).rstrip("\n") == expected, (title, line)
            Path(STORE).unlink(missing_ok=True)


def test_every_line_of_the_guide_runs_and_a_terminal_is_asked(run: Run, monkeypatch: Patch) -> None:
    assert {*import_export.FORMATS} == READERS.keys()
    write_tools(Path.cwd())
    (table,) = re.findall(r"\| your sweep .*?\n\n", (FOLDER / "import.md").read_text(), flags=re.DOTALL)
    lines = re.findall(r"\| `(.*)` \|", table)
    assert len(lines) == 15
    for k, line in enumerate(lines):
        direction = "" if "optuna" in line or "journal" in line else "--minimize"
        found = run(f"study import {line} --study-name s{k} {OURS} {direction}", code=0)
        assert f"imported 3 lanes as s{k}" in found.err, (line, found.err)
    several = f"study import runs.jsonl wandb.csv --metric val_loss --by file --study-name x {OURS}"
    assert run(several).err.count("imported 3 lanes as x-file-") == 2
    options = f"study import optuna.db --study-name o {OURS}"
    assert "choose one as --where study=one, or import a study of each with --by study" in run(options).err
    monkeypatch.setattr(import_export, "_on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("w7\nON\n"))
    found = run(options)
    assert found.err.count("which study? [one/two] ") == 2
    assert "imported 3 lanes as o: 4 cells × 1 seed" in found.err


def test_bad_imports_are_one_line_and_store_nothing(run: Run, tmp_path: Path) -> None:
    execute(tmp_path / "other.db", "CREATE TABLE a (b)")
    execute(
        *(tmp_path / "broken.db", "CREATE TABLE studies (study_id, study_name)"),
        *(f"CREATE TABLE {name} (a)" for name in ("trials", "trial_params", "trial_values")),
        "INSERT INTO studies VALUES (1, 'a')",
    )
    (tmp_path / "cut.db").write_bytes((tmp_path / "other.db").read_bytes()[:1000])
    for name, text in {
        "mlruns/1/meta.yaml": "experiment_id: 1\n",
        "mlruns/1/a/meta.yaml": "{[",
        "deep.json": "[" * 100_000,
        "runs/latin.csv": "step,löss\n0,1\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="latin-1")
    for words, text in BAD.items():
        assert_refused(run(f"study import {words} --study-name x -o adam"), 2, text)
    assert not Path(STORE).exists()


def test_every_export_is_read_back(run: Run) -> None:
    rows = [dict(row) for row in ROWS if row["width"] == 64]
    rows[0] |= {"loss": None, "state": "diverged"}
    rows[1]["state"], rows[2]["state"] = "crashed", "running"
    scattered = [
        row | {"opt": {"lr": row["opt"]["lr"] * 1.1**k, "wd": 0.3 + k}, "seed": 0}
        for k, row in enumerate(rows)
    ]
    for name, sweep, how in (
        ("a", rows, f"{OURS} --metric f1"),
        ("b", scattered, "-o 'Lion (ours)' --decay-rule lr-scaled --metric value"),
    ):
        Path("runs.json").write_text(json.dumps(sweep))
        columns, more = "--columns weight_decay=wd,value=loss", "--cap -7 --maximize"
        run(f"study import runs.json --study-name {name} {columns} {more} {how}", code=0)
        for form in ("csv", "json", "wandb", "optuna"):
            back = f"{name}-{form}"
            run(f"study export {name} --format {form} --output {back}.out", code=0)
            told = more if form == "optuna" else ""
            run(f"study import {back}.out --study-name {back} {how} {told}", code=0)
            with open_store(STORE, write=False) as store:
                assert store.trials(back) == store.trials(name), back
                assert store.get_study(back).spec == store.get_study(name).spec, back
    for options, part in (
        ("--format optuna", "--output FILE.db"),
        ("--output no/such/file.csv", "name a file that can be written"),
        ("--format optuna --output no/such/file.db", "no/such"),
    ):
        assert_refused(run(f"study export a {options}"), 2, part)


def test_open_questions_are_asked_on_a_terminal(run: Run, monkeypatch: Patch) -> None:
    adamw = f"{ONE} -o adamw --study-name"
    run(f"{adamw} x --decay-rule lr-scaled", code=0)
    assert "θ ← θ − ηα(m̂/(√v̂+ε) + wθ)" in (report := run("report x").out)
    assert run("study show x").out == report
    shown = run("study show x --format json").out
    assert strict(shown) == strict(run("report --format json").out)
    monkeypatch.setattr(import_export, "_on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\nwhat\nlr\nHigher\n"))
    found = run(f"{adamw} y --metric acc", code=0)
    questions = ("(adamw:independent)? [lr-scaled/independent] ", "[higher/lower] ")
    assert [*map(found.err.count, questions)] == [3, 1]
    assert "adamw:lr-scaled, higher acc is better" in found.err
    run(f"{adamw} z --metric acc", code=2)  # the input has ended


def test_hostile_names_are_shown_harmlessly(run: Run) -> None:
    run(*ONE.split(), "--study-name", HOSTILE, "-o", HOSTILE, "--decay-rule", "independent", code=0)
    commands = [("study", "show", HOSTILE), ("study", "list"), ("study", "list", "--format", "json")]
    commands += [("report", HOSTILE, "--format", form) for form in ("table", "markdown", "json", "csv")]
    for command in [*commands, ("study", "export", HOSTILE), ("study", "delete", HOSTILE, "--yes")]:
        found = run(*command, code=0)
        assert not set("\x1b\x07\x9b\u202e") & set(found.out + found.err)


def test_delete_asks_first_and_keeps_others(run: Run, compared: Path, monkeypatch: Patch) -> None:
    expected = run(f"report {ADAMW}").out
    for answer, deleted, code in (("\n", False, 0), ("", False, 2), ("y\n", True, 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        found = run(f"study delete {ADAM}", code=code)
        assert (found.out, f"delete {ADAM} with 9 lanes? [y/N]" in found.err) == ("", True)
        assert (ADAM not in run("study list").out) is (stored(compared, ADAM) == {}) is deleted, answer
    assert run(f"report {ADAMW}").out == expected
    run(f"report {ADAM}", code=2)
