"""`study`: sweeps come in and go out without loss, and nothing is deleted unasked."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

import lrwd_sweep
from lrwd_sweep.cli import transfer
from tests.cli.conftest import ADAM, ADAMW, Run

SWEEP = "lr,weight_decay,seed,value\n" + "".join(
    f"{lr},{wd},{seed},{value}\n"
    for lr, rest in ((0.001, "1.5 1.25"), (0.01, "0.1 nan"), (0.1, "inf 1e-3"))
    for wd, value in zip((0.0, 0.1), rest.split(), strict=True)
    for seed in (0, 7)
)
HOSTILE = "\x1b]0;gone\x07[/x] |`<script>\n\u202e=cmd() @all \x9b31m"


@pytest.fixture
def sweep(tmp_path: Path) -> str:
    """Somebody's sweep with a diverged cell."""
    (tmp_path / "sweep.csv").write_text(SWEEP)
    return "sweep.csv"


def test_an_imported_sweep_is_judged(run: Run, sweep: str) -> None:
    found = run("study", "import", sweep, "--study-name", "theirs", "-o", "adamw:independent")
    assert (found.code, found.out) == (0, "")
    assert found.err == (
        "imported 12 lanes as theirs: 6 cells × 2 seeds, adamw (independent), lower value is better\n"
    )
    report = run("report")
    assert report.code == 0
    assert "θ ← θ − η(α m̂/(√v̂+ε) + λθ)" in report.out


def test_csv_goes_out_in_and_out_again_byte_for_byte(run: Run, compared: Path, tmp_path: Path) -> None:
    assert run("study", "export", ADAMW, "--output", "first.csv").code == 0
    back = ("study", "import", "first.csv", "--study-name", "back", "-o", "adamw", "--metric", "val_loss")
    assert run(*back).code == 0
    assert run("study", "export", "back", "--output", "second.csv").code == 0
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()
    assert run("study", "export", "back").out == (tmp_path / "first.csv").read_text()


def test_a_foreign_sweep_with_diverged_lanes_survives_the_round_trip(
    run: Run, sweep: str, tmp_path: Path
) -> None:
    foreign = ("-o", "Lion (ours)", "--decay-rule", "lr-scaled")
    assert run("study", "import", sweep, "--study-name", "a", *foreign).code == 0
    assert run("study", "export", "a", "--output", "first.csv").code == 0
    assert run("study", "import", "first.csv", "--study-name", "b", *foreign).code == 0
    assert run("study", "export", "b", "--output", "second.csv").code == 0
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


@pytest.mark.parametrize("option", ["--maximize", "--minimize"])
def test_direction_cap_and_gaps_survive_the_round_trip(run: Run, tmp_path: Path, option: str) -> None:
    rows = [f"{lr},{wd},{lr + wd},COMPLETE\n" for lr in (0.1, 0.2) for wd in (0, 0.1, 0.2)]
    rows[2] = rows[2].replace("COMPLETE", "PRUNED")
    rows[3] = rows[3].replace("COMPLETE", "FAIL")
    (tmp_path / "f1.csv").write_text("lr,weight_decay,f1,state\n" + "".join(rows))
    how = ("-o", "adamw:lr-scaled", "--columns", "value=f1", option, "--cap", "0.15")
    assert run("study", "import", "f1.csv", "--study-name", "a", "--metric", "f1", *how).code == 0
    assert run("study", "export", "a", "--output", "first.csv").code == 0
    back = run("study", "import", "first.csv", "--study-name", "b", "--metric", "f1", "-o", "adamw")
    assert back.code == 0
    assert run("study", "export", "b", "--output", "second.csv").code == 0
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()
    surfaces = [lrwd_sweep.load(name).surface for name in "ab"]
    assert surfaces[0].direction == surfaces[1].direction == option.removeprefix("--")
    assert surfaces[0].cap == surfaces[1].cap == 0.15
    assert (surfaces[0].lanes == surfaces[1].lanes).all()


def test_the_best_cell_is_the_highest_where_higher_is_better(run: Run, tmp_path: Path) -> None:
    (tmp_path / "acc.csv").write_text(
        "lr,weight_decay,acc\n0.1,0.1,0.5\n0.1,0.2,0.9\n0.2,0.1,0.3\n0.2,0.2,0.4\n"
    )
    asked = ("study", "import", "acc.csv", "--study-name", "x", "-o", "adam", "--columns", "value=acc")
    refused = run(*asked)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--maximize, or --minimize" in refused.err
    assert "higher value is better" in run(*asked, "--maximize").err
    best = lrwd_sweep.load("x").best
    assert best is not None
    assert best.value == 0.9


def test_decoupled_name_needs_its_convention_off_a_terminal(run: Run, sweep: str) -> None:
    found = run("study", "import", sweep, "--study-name", "x", "-o", "adamw")
    assert (found.code, found.out) == (2, "")
    assert found.err == (
        "lrwd-sweep: adamw: did you train torch.optim.AdamW (adamw:lr-scaled) or the paper's rule "
        "(adamw:independent)? add --decay-rule lr-scaled or --decay-rule independent\n"
    )
    assert (
        run("study", "import", sweep, "--study-name", "x", "-o", "adamw", "--decay-rule", "lr-scaled").code
        == 0
    )
    assert "torch.optim.AdamW(" in run("report", "x").out


def test_open_questions_are_asked_on_a_terminal(
    run: Run, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_on_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\nwhat\nlr\nHigher\n"))
    asked = ("study", "import", sweep, "-o", "adamw", "--metric", "acc", "--study-name")
    found = run(*asked, "x")
    assert found.code == 0
    assert found.err.count("(adamw:independent)? [lr-scaled/independent] ") == 3
    assert found.err.count("[higher/lower] ") == 1
    assert "adamw:lr-scaled, higher acc is better" in found.err
    assert run(*asked, "y").code == 2  # the input has ended


@pytest.mark.parametrize("value", ["nan", "inf", "ten"])
def test_cap_is_a_finite_number(run: Run, sweep: str, value: str) -> None:
    found = run("study", "import", sweep, "--study-name", "x", "-o", "adam", "--cap", value)
    assert (found.code, found.err) == (
        2,
        f"lrwd-sweep: --cap '{value}' is not a finite number; write one like 10\n",
    )


def test_columns_of_other_names_are_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "wandb.csv").write_text(
        "learning_rate,wd,val_err\n0.1,0.1,1\n0.1,0.2,2\n0.2,0.1,3\n0.2,0.2,4\n"
    )
    columns = "lr=learning_rate, weight_decay=wd,value=val_err"
    found = run("study", "import", "wandb.csv", "--study-name", "x", "-o", "sgd", "--columns", columns)
    assert found.code == 0
    assert "4 cells × 1 seed," in found.err


def test_a_name_that_is_taken_is_not_imported_over(run: Run, sweep: str, compared: Path) -> None:
    before = compared.read_bytes()
    found = run("study", "import", sweep, "--study-name", ADAM, "-o", "adam")
    assert found.code == 2
    assert f"'{ADAM}'" in found.err
    assert "study delete" in found.err
    assert compared.read_bytes() == before


def test_hostile_names_are_harmless_everywhere(run: Run, sweep: str) -> None:
    label = ("-o", HOSTILE, "--decay-rule", "independent")
    texts = [run("study", "import", sweep, "--study-name", HOSTILE, *label)]
    texts += [run("report", HOSTILE, "--format", form) for form in ("table", "markdown", "json", "csv")]
    texts += [run("study", "list"), run("study", "list", "--format", "json"), run("study", "show", HOSTILE)]
    texts += [run("study", "export", HOSTILE), run("study", "delete", HOSTILE, "--yes")]
    for found in texts:
        assert found.code == 0
        assert not set("\x1b\x07\x9b\u202e") & set(found.out + found.err)
    assert run("study", "show", HOSTILE).err.count("\n") == 1


@pytest.mark.parametrize(
    ("answer", "gone", "code"), [("y\n", True, 0), ("n\n", False, 0), ("\n", False, 0), ("", False, 2)]
)
def test_delete_asks_first(
    run: Run, compared: Path, monkeypatch: pytest.MonkeyPatch, answer: str, gone: bool, code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    found = run("study", "delete", ADAM)
    assert found.out == ""
    assert f"delete {ADAM} with 9 lanes? [y/N]" in found.err
    assert (ADAM not in run("study", "list").out) is gone
    assert found.code == code


def test_delete_keeps_the_other_studies(run: Run, compared: Path) -> None:
    expected = run("report", ADAMW).out
    found = run("study", "delete", ADAM, "--yes")
    assert (found.code, found.err) == (0, f"deleted {ADAM} with 9 lanes\n")
    assert run("report", ADAMW).out == expected
    assert run("report", ADAM).code == 2


def test_optuna_reads_what_is_exported_for_it(run: Run, compared: Path, tmp_path: Path) -> None:
    import optuna

    assert run("study", "export", ADAMW, "--format", "optuna", "--output", "optuna.db").code == 0
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/optuna.db")
    study = optuna.load_study(study_name=ADAMW, storage=storage)
    values = sorted(trial.values[0] for trial in study.trials)
    storage.engine.dispose()
    rows = run("study", "export", ADAMW).out.splitlines()[1:]
    assert values == sorted(float(row.split(",")[3]) for row in rows)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--format", "optuna"), "--output FILE.db"),
        (("--output", "no/such/file.csv"), "name a file that can be written"),
        (("--format", "optuna", "--output", "no/such/file.db"), "no/such"),
    ],
)
def test_an_export_that_has_no_place_is_refused(
    run: Run, compared: Path, arguments: tuple[str, ...], part: str
) -> None:
    found = run("study", "export", ADAMW, *arguments)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert part in found.err


def test_an_export_to_a_file_leaves_nothing_beside_it(run: Run, compared: Path, tmp_path: Path) -> None:
    run("study", "export", ADAMW, "--output", "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [compared.name, "out.csv"]
