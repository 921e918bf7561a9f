"""`report` applies gates, writes files whole, and exits with 1 only if a gate fails."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Run
from tests.report.view.schema import faults
from tests.studies import Height, bowl, ridge, study

FORMATS = ["table", "markdown", "json", "csv", "junit", "html"]
PICTURED = ["table", "markdown", "json", "html"]
PASSED = (
    "--require",
    "separable",
    "--no-edge",
    "--max-failed",
    "0",
    "--min-seeds",
    "3",
    "--max-best",
    "0.11",
)


@pytest.fixture
def judged(run: Run, tmp_path: Path) -> Path:
    """A store with the separable study "good" and the coupled one "bad", asked for last together."""
    for name, height in (("good", bowl), ("bad", ridge)):
        import_(run, tmp_path, name, height)
    return tmp_path / STORE


def import_(run: Run, directory: Path, name: str, height: Height) -> None:
    from lrwd_sweep.report.view.csv_table import csv_table

    (directory / f"{name}.csv").write_text(csv_table([study(height, name)]))
    found = run("study", "import", f"{name}.csv", "--study-name", name, "-o", "adamw", "--metric", "val_loss")
    assert found.code == 0
    (directory / f"{name}.csv").unlink()


class TestGates:
    """Gates decide the exit code and are part of the report."""

    def test_all_hold(self, run: Run, judged: Path) -> None:
        found = run("report", "good", *PASSED, "--max-abs-slope", "0.1", "--max-transfer-regret", "0.001")
        assert (found.code, found.err) == (0, "")
        assert found.out.count("passed") == 7

    def test_one_that_fails_ends_with_1_and_a_line_after_the_whole_report(
        self, run: Run, judged: Path
    ) -> None:
        found = run("report", "bad", "--require", "separable", "--no-edge")
        assert found.code == 1
        assert found.err == "lrwd-sweep: gate require failed for bad: product-coupled, limit separable\n"
        assert "FAILED" in found.out
        assert "passed" in found.out
        assert found.out.startswith(run("report", "bad").out)

    def test_every_gate_applies_to_every_study(self, run: Run, judged: Path) -> None:
        found = run(
            "report", "good", "bad", "--max-abs-slope", "0.5", "--max-failed", "0", "--format", "json"
        )
        assert found.code == 1
        gates = [(g["study_name"], g["gate"], g["passed"]) for g in json.loads(found.out)["gates"]]
        assert gates == [
            ("good", "max-abs-slope", True),
            ("good", "max-failed", True),
            ("bad", "max-abs-slope", False),
            ("bad", "max-failed", True),
        ]

    def test_octaves_choose_the_distance(self, run: Run, judged: Path) -> None:
        """The ridge costs 0.01 at one octave and 0.04 at two."""
        gate = ("report", "bad", "--max-transfer-regret", "0.02")
        assert run(*gate).code == 0
        assert run(*gate, "--octaves", "2").code == 1
        found = run(*gate, "--octaves", "2.5")
        assert found.code == 1
        assert "undetermined, limit 0.02 (at 2.5 octaves there are no two rows" in found.err

    def test_value_and_limit_are_in_every_format(self, run: Run, judged: Path) -> None:
        for form in FORMATS:
            found = run("report", "good", "--max-failed", "12", "--min-seeds", "57", "--format", form)
            assert found.code == 1
            assert "gate min-seeds failed for good: 3, limit 57" in found.err, form
            told = found.out if form != "csv" else found.err  # the CSV of a study holds no gates
            for part in ("max-failed", "12", "min-seeds", "57"):
                assert part in told, (form, part)

    def test_the_csv_with_gates_is_the_csv_without(self, run: Run, judged: Path) -> None:
        found = run("report", "good", "--format", "csv", "--no-edge")
        assert found.out == run("report", "good", "--format", "csv").out
        assert found.err == "gate no-edge passed for good: inside, limit inside\n"

    def test_a_report_without_an_interval_passes_no_slope(self, run: Run, compared: Path) -> None:
        found = run("report", ADAMW, "--max-abs-slope", "9", "--require", "separable", "--format", "json")
        assert found.code == 1
        outcomes = json.loads(found.out)["gates"]
        assert [(gate["value"], gate["passed"]) for gate in outcomes] == [
            (None, False),
            ("undetermined", False),
        ]
        assert all(gate["reason"] for gate in outcomes)


class TestBaseline:
    """An earlier report limits the regression of the best value."""

    @pytest.fixture
    def old(self, run: Run, judged: Path) -> str:
        assert run("report", "good", "bad", "--format", "json", "--output", "old.json").code == 0
        return "old.json"

    def test_the_same_study_is_no_regression(self, run: Run, old: str) -> None:
        found = run("report", "good", "bad", "--baseline", old, "--max-regression", "0")
        assert (found.code, found.err) == (0, "")

    def test_a_worse_study_fails_in_the_metrics_units(self, run: Run, old: str, tmp_path: Path) -> None:
        run("study", "delete", "good", "--yes")
        import_(run, tmp_path, "good", lambda a, b: bowl(a, b) + 0.05)
        gate = ("report", "good", "--baseline", old, "--max-regression")
        assert run(*gate, "0.051").code == 0
        found = run(*gate, "0.049")
        assert found.code == 1
        assert (
            "gate max-regression failed for good: 0.05, limit 0.049 (0.1501 now, 0.1001 in old.json"
            in found.err
        )

    def test_what_is_missing_on_either_side_is_said(self, run: Run, old: str, tmp_path: Path) -> None:
        import_(run, tmp_path, "new", bowl)
        found = run("report", "good", "new", "--baseline", old, "--max-regression", "1")
        assert found.code == 1
        note, failed = found.err.splitlines()
        assert note == "study 'bad' of old.json is not in this report"
        assert failed.endswith(
            "gate max-regression failed for new: undetermined, limit 1 "
            "(old.json has no study 'new', only 'good', 'bad')"
        )

    def test_another_metric_is_not_compared(self, run: Run, old: str, compared: Path) -> None:
        document = json.loads(run("report", ADAM, "--format", "json").out)
        Path("other.json").write_text(json.dumps(document))
        found = run(
            "report", ADAM, "--metric", "val_error", "--baseline", "other.json", "--max-regression", "1"
        )
        assert found.code == 1
        assert "other.json is in val_loss, this report in val_error; see --metric" in found.err


BAD_OPTIONS: list[tuple[tuple[str, ...], tuple[str, str]]] = [
    (("--max-best", "low"), ("--max-best 'low'", "is not a number")),
    (("--max-best", "nan"), ("--max-best 'nan'", "is not finite")),
    (("--max-best", "inf"), ("--max-best 'inf'", "leave the option out")),
    (("--max-abs-slope", "-0.1"), ("--max-abs-slope -0.1", "at least 0")),
    (("--max-transfer-regret", "-1"), ("--max-transfer-regret -1", "at least 0")),
    (("--max-transfer-regret", "1", "--octaves", "0"), ("--octaves 0", "more than 0")),
    (("--octaves", "1"), ("--octaves 1", "requires --max-transfer-regret")),
    (("--require", "seperable"), ("'seperable'", "did you mean separable?")),
    (("--require", "x"), ("'x'", "known: separable, product-coupled, coupled, undetermined")),
    (("--max-failed", "-1"), ("--max-failed -1", "at least 0")),
    (("--max-failed", "1.5"), ("--max-failed '1.5'", "whole number")),
    (("--min-seeds", "0"), ("--min-seeds 0", "at least 1")),
    (("--max-regression", "0.1"), ("--max-regression 0.1", "requires --baseline OLD.json")),
    (("--max-regression", "-0.1", "--baseline", "x"), ("--max-regression -0.1", "at least 0")),
    (("--baseline", "x"), ("--baseline 'x'", "requires --max-regression")),
    (("--baseline", "no.json", "--max-regression", "1"), ("no.json", "report --format json")),
    (("--baseline", STORE, "--max-regression", "1"), (f"'{STORE}'", "is not JSON")),
    (("--baseline", ".", "--max-regression", "1"), ("'.'", "Is a directory")),
    (("--format", "pdf"), ("'pdf'", "html")),
    (("--output", "no/such/file"), ("--output no/such/file", "can be written")),
    (("--output", "."), ("--output .", "can be written")),
    (("--show", "nrm"), ("'nrm'", "did you mean norm?")),
    (("--show", "norm,"), ("--show 'norm,'", "empty name")),
    (("--show", "norm", "--format", "csv"), ("--show norm", "csv holds no pictures")),
    (("--show", "norm", "--format", "junit"), ("junit holds no pictures", "html")),
    (("--at-restart", "1"), ("--at-restart 1", "no snapshot of a restart")),
    (("--at-restart", "0"), ("--at-restart 0", "at least 1")),
    (("--at-restart", "last"), ("--at-restart 'last'", "whole number")),
    (("--figure", "figure.doc"), ("'.doc'", ".svg")),
    (("--figure", "figure"), ("'figure'", ".svg")),
    (("--figure", "no/such/figure.pdf"), ("--figure no/such/figure.pdf", "can be written")),
]


def test_a_bad_option_is_one_line_and_writes_nothing(run: Run, compared: Path) -> None:
    for arguments, parts in BAD_OPTIONS:
        found = run("report", *arguments)
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), arguments
        for part in parts:
            assert part in found.err, arguments
        assert [path.name for path in compared.parent.iterdir()] == [STORE], arguments


def test_with_gates_and_no_study_there_is_still_nothing_to_report(run: Run, judged: Path) -> None:
    for name in ("good", "bad"):
        run("study", "delete", name, "--yes")
    assert run("report", "--max-best", "0").code == 4


class TestOutput:
    """Files are written whole, and the same store gives the same bytes."""

    def test_a_file_holds_what_standard_output_would(self, run: Run, compared: Path) -> None:
        for form in FORMATS:
            printed = run("report", "--format", form)
            written = run("report", "--format", form, "--output", "out")
            assert (written.code, written.out, written.err) == (0, "", "wrote out\n"), form
            assert Path("out").read_text(encoding="utf-8") == printed.out, form
            assert {path.name for path in compared.parent.iterdir()} == {STORE, "out"}, form

    def test_the_bytes_are_the_same_in_another_process(self, run: Run, compared: Path) -> None:
        code = (
            "import sys; from lrwd_sweep.cli import app\n"
            f"for form in {FORMATS}:\n"
            "    sys.argv = ['lrwd-sweep', 'report', '--no-edge', '--format', form]\n"
            "    assert app.run() == 1\n"
        )
        found = [
            subprocess.run(
                [sys.executable, "-c", code],
                env=os.environ | {"PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
            ).stdout
            for seed in "12"
        ]
        assert found[0] == found[1]
        assert len(found[0]) > 1000

    def test_a_file_is_written_although_a_gate_fails(self, run: Run, compared: Path) -> None:
        assert run("report", "--max-best", "0", "--output", "out", "--format", "junit").code == 1
        assert ET.parse("out").getroot().attrib["failures"] == "2"

    def test_a_file_is_replaced_and_a_link_stays_a_link(
        self, run: Run, compared: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "target").write_text("old")
        (tmp_path / "link").symlink_to("target")
        assert run("report", "--output", "link", "--format", "csv").code == 0
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "target").read_text().startswith("lr,weight_decay,seed,value")

    def test_what_is_no_ordinary_file_is_written_as_it_is(self, run: Run, compared: Path) -> None:
        os.mkfifo("pipe")
        reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
        found = run("report", ADAM, "--format", "csv", "--output", "pipe")
        text = os.read(reader, 100_000).decode()
        os.close(reader)
        assert found.code == 0
        assert text == run("report", ADAM, "--format", "csv").out
        assert Path("pipe").is_fifo()

    def test_a_figure_is_drawn_beside_the_report(self, run: Run, compared: Path) -> None:
        pytest.importorskip("matplotlib")
        found = run("report", "--figure", "figure.svg")
        assert (found.code, found.err) == (0, "wrote figure.svg\n")
        assert found.out == run("report").out
        first = Path("figure.svg").read_bytes()
        assert first.startswith(b"<?xml")
        run("report", "--figure", "figure.svg")
        assert Path("figure.svg").read_bytes() == first

    def test_html_carries_the_learning_curves(self, run: Run, compared: Path) -> None:
        assert "learning curves" in run("report", "--format", "html").out


class TestShow:
    """Further pictures are drawn from the stored curves and metrics."""

    def test_diagnostics_of_a_real_run_are_drawn(self, run: Run, compared: Path) -> None:
        plain = run("report").out
        found = run("report", "--show", "norm,effective-lr")
        assert (found.code, found.err) == (0, "")
        assert found.out.startswith(plain.rstrip("\n"))
        drawn = found.out[len(plain) :]
        for part in ("norm: ‖θ‖", "effective_lr, mean over the epochs", "by epoch, one seed", "adamw, best:"):
            assert part in drawn

    def test_every_format_shows_each(self, run: Run, compared: Path) -> None:
        names = "rotation,projection,scatter,curves,val-error"
        for form in PICTURED:
            found = run("report", "--show", names, "--format", form)
            assert (found.code, found.err) == (0, ""), form
            assert "rotation" in found.out, form
            assert "no projection: only adamp and sgdp have one" in found.out, form
            if form == "json":
                document = json.loads(found.out)
                assert faults(document, "report") == []
                cells = document["studies"][0]["shown"][0]["cells"]
                assert all(0 < cell["value"] < 2 for cell in cells)
            else:
                assert run("report", "--format", form).out != found.out, form

    def test_a_study_that_diverged_everywhere_is_shown(self, run: Run) -> None:
        axes = ("--lr", "1e35,1e36", "--wd", "1e35,1e36", "--seeds", "1", "--epochs", "1")
        assert run("grid", "-o", "adamw", *axes).code == 0
        for form in PICTURED:
            found = run("report", "--show", "scatter,curves,norm", "--format", form)
            assert (found.code, found.err) == (0, ""), form

    def test_the_share_of_projected_steps_is_shown_by_default(self, run: Run) -> None:
        assert run("grid", "-o", "adamp", *TINY).code == 0
        for form in PICTURED:
            found = run("report", "--format", form)
            assert (found.code, found.err) == (0, ""), form
            shown = '"timescale_steps_projected": null' if form == "json" else "in 100% of steps, else 1"
            assert shown in found.out, form

    def test_gates_stand_last(self, run: Run, compared: Path) -> None:
        found = run("report", "--show", "norm", "--max-best", "0")
        assert found.code == 1
        assert found.out.index("by epoch") < found.out.index("FAILED")


@pytest.fixture
def restarted(run: Run, tmp_path: Path) -> Path:
    """A store with a tiny AdamWR study of two cycles."""
    axes = ("--lr", "2^-8:2^-6", "--wd", "2^-8:2^-6", "--seeds", "1", "--epochs", "3", "--t0", "1")
    assert run("grid", "-o", "adamwr", *axes).code == 0
    return tmp_path / STORE


class TestAtRestart:
    """Each cycle of warm restarts is a surface of its own."""

    def test_the_report_says_which_and_how_far(self, run: Run, restarted: Path) -> None:
        assert "at restart 2 (epoch 3)" in " ".join(run("report").out.split())
        assert "at restart 1 (epoch 1)" in " ".join(run("report", "--at-restart", "1").out.split())

    def test_metrics_are_those_of_the_snapshot(self, run: Run, restarted: Path) -> None:
        documents = {
            k: json.loads(run("report", "--format", "json", *(("--at-restart", k) if k else ())).out)
            for k in ("1", "2", "")
        }
        assert faults(documents["1"], "report") == []
        assert documents["2"] == documents[""]
        first, second = (documents[k]["studies"][0] for k in ("1", "2"))
        assert (first["snapshot"], second["snapshot"]) == (
            {"restart": 1, "epoch": 1},
            {"restart": 2, "epoch": 3},
        )
        assert first["best"]["value"] > second["best"]["value"]
        decay = {k: found["best"]["conventions"] for k, found in (("1", first), ("2", second))}
        for found, steps in ((decay["1"], 6), (decay["2"], 12)):
            assert found["normalized"] == pytest.approx(found["independent"] * steps**0.5)

    def test_a_cycle_too_many_is_refused(self, run: Run, restarted: Path) -> None:
        found = run("report", "--at-restart", "3")
        assert (found.code, found.out) == (2, "")
        assert "has 2, at the end of epoch 1, 3; choose 1 to 2" in found.err


class TestContract:
    """Documents of a real store keep to the JSON Schemas that the package ships."""

    def test_report(self, run: Run, compared: Path, judged: Path) -> None:
        for arguments in ((), (ADAM,), ("good", "bad", ADAMW), ("good", *PASSED)):
            assert faults(json.loads(run("report", "--format", "json", *arguments).out), "report") == []

    def test_study_list(self, run: Run, compared: Path, judged: Path) -> None:
        document = json.loads(run("study", "list", "--format", "json").out)
        assert len(document["studies"]) == 4
        assert faults(document, "study_list") == []
        document["studies"][0]["counts"]["cells"] = -1
        assert faults(document, "study_list")


def test_report_csv_is_imported_again_exactly(run: Run, compared: Path) -> None:
    run("report", ADAMW, "--format", "csv", "--output", "first.csv")
    back = ("study", "import", "first.csv", "--study-name", "back", "-o", "adamw", "--metric", "val_loss")
    assert run(*back).code == 0
    assert run("report", "back", "--format", "csv").out == Path("first.csv").read_text()


def test_an_import_is_one_transaction(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("pulled the plug")

    (tmp_path / "x.csv").write_text("lr,weight_decay,value\n1,1,1\n1,2,1\n2,1,1\n2,2,1\n")
    monkeypatch.setattr("lrwd_sweep.store.trials.insert_trials", broken)
    assert run("study", "import", "x.csv", "--study-name", "x", "-o", "adamw").code != 0
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run("study", "list").code == 4


def test_a_hostile_preset_is_harmless(run: Run, tmp_path: Path) -> None:
    name = "<script>\u202e=cmd().toml"
    (tmp_path / name).write_text('about = "\\u001b[31m\\u202e <script> \\u0000 [/x]"\n')
    found = run("preset", "show", name)
    assert found.code == 0
    assert not set("\x1b\u202e\x00") & set(found.out + found.err)
    assert "\\x1b[31m\\u202e <script> \\x00 [/x]" in found.out
