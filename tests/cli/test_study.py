"""`study` asks what an import leaves open, and deletes nothing without asking."""

import io
import json
import sys
from pathlib import Path

import pytest

from lrwd_sweep.cli import transfer
from tests.cli.conftest import ADAM, ADAMW, Run, assert_refused
from tests.report.view.examples import HOSTILE

SWEEP = "lr,weight_decay,seed,value\n" + "".join(
    f"{lr},{wd},{seed},{lr + wd}\n" for lr in (0.001, 0.01, 0.1) for wd in (0.0, 0.1) for seed in (0, 7)
)
IMPORT = ("study", "import", "sweep.csv", "--study-name")


@pytest.fixture(autouse=True)
def _sweep(tmp_path: Path, _empty_directory: None) -> None:
    """A sweep of another program."""
    (tmp_path / "sweep.csv").write_text(SWEEP)


def test_open_questions_are_asked_on_a_terminal_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(*IMPORT, "x", "-o", "adamw")
    assert (found.code, found.out) == (2, "")
    assert found.err == (
        "lrwd-sweep: adamw: did you train torch.optim.AdamW (adamw:lr-scaled) or the paper's rule "
        "(adamw:independent)? add --decay-rule lr-scaled or --decay-rule independent\n"
    )
    assert run(*IMPORT, "x", "-o", "adamw", "--decay-rule", "lr-scaled").code == 0
    assert "θ ← θ − ηα(m̂/(√v̂+ε) + wθ)" in (report := run("report", "x").out)
    assert run("study", "show", "x").out == report
    shown = run("study", "show", "x", "--format", "json").out
    assert json.loads(shown) == json.loads(run("report", "--format", "json").out)
    monkeypatch.setattr(transfer, "_on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\nwhat\nlr\nHigher\n"))
    found = run(*IMPORT, "y", "-o", "adamw", "--metric", "acc")
    assert found.code == 0
    assert found.err.count("(adamw:independent)? [lr-scaled/independent] ") == 3
    assert found.err.count("[higher/lower] ") == 1
    assert "adamw:lr-scaled, higher acc is better" in found.err
    assert run(*IMPORT, "z", "-o", "adamw", "--metric", "acc").code == 2  # the input has ended


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


def test_exports_that_cannot_be_written_are_refused(run: Run) -> None:
    assert run(*IMPORT, "x", "-o", "adam").code == 0
    for arguments, part in (
        (("--format", "optuna"), "--output FILE.db"),
        (("--output", "no/such/file.csv"), "name a file that can be written"),
        (("--format", "optuna", "--output", "no/such/file.db"), "no/such"),
    ):
        assert_refused(run("study", "export", "x", *arguments), 2, part)
