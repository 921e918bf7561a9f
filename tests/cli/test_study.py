"""`study` imports and exports without loss, and deletes nothing without asking."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import lrwd_sweep
from lrwd_sweep.cli import import_export
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAM, ADAMW, Run, assert_refused
from tests.report.view.examples import HOSTILE
from tests.studies import bowl, plain, study

SWEEP = "lr,weight_decay,seed,value\n" + "".join(
    f"{lr},{wd},{seed},{value}\n"
    for lr, rest in ((0.001, "1.5 1.25"), (0.01, "0.1 nan"), (0.1, "inf 1e-3"))
    for wd, value in zip((0.0, 0.1), rest.split(), strict=True)
    for seed in (0, 7)
)
IMPORT = ("study", "import", "sweep.csv", "--study-name")


@pytest.fixture(autouse=True)
def _sweep(tmp_path: Path, _empty_directory: None) -> None:
    """A sweep of another program with a diverged cell."""
    (tmp_path / "sweep.csv").write_text(SWEEP)


def exported(run: Run, name: str, tmp_path: Path) -> bytes:
    assert run("study", "export", name, "--output", "out.csv").code == 0
    return (tmp_path / "out.csv").read_bytes()


def test_imported_sweep_is_analysed(run: Run) -> None:
    found = run(*IMPORT, "theirs", "-o", "adamw:independent")
    assert (found.code, found.out) == (0, "")
    said = "imported 12 lanes as theirs: 6 cells × 2 seeds, adamw (independent), lower value is better\n"
    assert found.err == said
    report = run("report")
    assert report.code == 0
    assert "θ ← θ − η(α m̂/(√v̂+ε) + λθ)" in report.out
    assert run("study", "show", "theirs").out == report.out
    shown = run("study", "show", "theirs", "--format", "json").out
    assert json.loads(shown) == json.loads(run("report", "--format", "json").out)


def test_diverged_lanes_direction_cap_and_gaps_survive_the_round_trip(run: Run, tmp_path: Path) -> None:
    rows = [f"{lr},{wd},{lr + wd},COMPLETE\n" for lr in (0.1, 0.2) for wd in (0, 0.1, 0.2)]
    rows[2] = rows[2].replace("COMPLETE", "PRUNED")
    rows[3] = rows[3].replace("COMPLETE", "FAIL")
    gaps = "lr,weight_decay,f1,state\n" + "".join(rows)
    label = ("-o", "Lion (ours)", "--decay-rule", "lr-scaled")
    capped = ("-o", "adamw:lr-scaled", "--columns", "value=f1", "--cap", "0.15", "--metric", "f1")
    for k, (text, how, back) in enumerate(
        (
            (SWEEP, label, label),
            (gaps, (*capped, "--maximize"), ("-o", "adamw", "--metric", "f1")),
        )
    ):
        (tmp_path / "sweep.csv").write_text(text)
        assert run(*IMPORT, f"a{k}", *how).code == 0
        first = exported(run, f"a{k}", tmp_path)
        (tmp_path / "sweep.csv").write_bytes(first)
        assert run(*IMPORT, f"b{k}", *back).code == 0
        assert exported(run, f"b{k}", tmp_path) == first
        surfaces = [lrwd_sweep.load(f"{name}{k}").surface for name in "ab"]
        assert (surfaces[0].lanes == surfaces[1].lanes).all()
        if k:
            assert surfaces[0].direction == surfaces[1].direction == how[-1].removeprefix("--")
            assert surfaces[0].cap == surfaces[1].cap == 0.15


def test_open_questions_are_asked_on_a_terminal_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(*IMPORT, "x", "-o", "adamw")
    assert (found.code, found.out) == (2, "")
    assert found.err == (
        "lrwd-sweep: adamw: did you train torch.optim.AdamW (adamw:lr-scaled) or the paper's rule "
        "(adamw:independent)? add --decay-rule lr-scaled or --decay-rule independent\n"
    )
    assert run(*IMPORT, "x", "-o", "adamw", "--decay-rule", "lr-scaled").code == 0
    assert "torch.optim.AdamW(" in run("report", "x").out
    monkeypatch.setattr(import_export, "_on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\nwhat\nlr\nHigher\n"))
    found = run(*IMPORT, "y", "-o", "adamw", "--metric", "acc")
    assert found.code == 0
    assert found.err.count("(adamw:independent)? [lr-scaled/independent] ") == 3
    assert found.err.count("[higher/lower] ") == 1
    assert "adamw:lr-scaled, higher acc is better" in found.err
    assert run(*IMPORT, "z", "-o", "adamw", "--metric", "acc").code == 2  # the input has ended


def test_impossible_imports_change_nothing(run: Run, compared: Path) -> None:
    before = compared.read_bytes()
    for options, text in (
        (("x", "--cap", "nan"), "--cap 'nan' is not a finite number; write one like 10"),
        (("x", "--columns", "lr"), "is not a list of OURS=THEIRS"),
        (("x", "--metric", " "), "--metric ' ' is empty"),
        ((ADAM,), f"study '{ADAM}' exists; delete it first (study delete)"),
    ):
        assert_refused(run(*IMPORT, *options, "-o", "adam"), 2, text)
    assert compared.read_bytes() == before


def test_hostile_names_are_shown_harmlessly(run: Run) -> None:
    assert run(*IMPORT, HOSTILE, "-o", HOSTILE, "--decay-rule", "independent").code == 0
    commands = [("study", "show", HOSTILE), ("study", "list"), ("study", "list", "--format", "json")]
    commands += [("report", HOSTILE, "--format", form) for form in ("table", "markdown", "json", "csv")]
    for command in [*commands, ("study", "export", HOSTILE), ("study", "delete", HOSTILE, "--yes")]:
        found = run(*command)
        assert found.code == 0
        assert not set("\x1b\x07\x9b\u202e") & set(found.out + found.err)


def test_delete_asks_first_and_keeps_other_studies(
    run: Run, compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run("report", ADAMW).out
    for answer, deleted, code in (("\n", False, 0), ("", False, 2), ("y\n", True, 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        found = run("study", "delete", ADAM)
        assert (found.code, found.out) == (code, ""), answer
        assert f"delete {ADAM} with 9 lanes? [y/N]" in found.err
        assert (ADAM not in run("study", "list").out) is deleted, answer
    assert run("report", ADAMW).out == expected
    assert run("report", ADAM).code == 2
    found = run("study", "delete", ADAMW, "--yes")
    assert (found.code, found.err) == (0, f"deleted {ADAMW} with 9 lanes\n")


def test_optuna_reads_its_export_in_the_studys_direction(run: Run, compared: Path, tmp_path: Path) -> None:
    lower = plain(study(bowl, "mirrored", seeds=1))
    with open_store(str(compared), write=True) as store:
        store.import_study("mirrored", replace(lower.spec, direction=Direction.MAXIMIZE), lower.trials)
    import optuna

    assert run("study", "export", "mirrored", "--format", "optuna", "--output", "optuna.db").code == 0
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/optuna.db")
    loaded = optuna.load_study(study_name="mirrored", storage=storage)
    assert loaded.direction.name == "MAXIMIZE"
    values = sorted(trial.values[0] for trial in loaded.trials)
    storage.engine.dispose()
    rows = run("study", "export", "mirrored").out.splitlines()[1:]
    assert values == sorted(float(row.split(",")[3]) for row in rows)
    for arguments, part in (
        (("--format", "optuna"), "--output FILE.db"),
        (("--output", "no/such/file.csv"), "name a file that can be written"),
        (("--format", "optuna", "--output", "no/such/file.db"), "no/such"),
    ):
        assert_refused(run("study", "export", ADAMW, *arguments), 2, part)
