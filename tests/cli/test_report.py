"""`report` applies gates, writes files whole, and exits with 1 only if a gate fails."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAM, ADAMW, STORE, Run
from tests.report.view.schema import faults
from tests.studies import Height, bowl, plain, ridge, study

FORMATS = ["table", "markdown", "json", "csv", "junit", "html"]
PICTURED = ["table", "markdown", "json", "html"]


def import_(name: str, height: Height) -> None:
    found = plain(study(height, name))
    trials = [replace(trial, curves={"projection": (1.0, 1.0)}) for trial in found.trials]
    with open_store(STORE, write=True) as store:
        store.import_study(name, found.spec, trials)


@pytest.fixture
def judged(tmp_path: Path) -> None:
    """Make a store with the separable study "good" and the coupled one "bad"."""
    import_("good", bowl)
    import_("bad", ridge)


@pytest.mark.usefixtures("judged")
class TestGates:
    """Gates decide the exit code and are part of the report."""

    def test_all_hold(self, run: Run) -> None:
        gates = "--require separable --no-edge --max-failed 0 --min-seeds 3 --max-best 0.11"
        found = run(
            "report", "good", *gates.split(), "--max-abs-slope", "0.1", "--max-transfer-regret", "0.001"
        )
        assert (found.code, found.err) == (0, "")
        assert found.out.count("passed") == 7

    def test_one_that_fails_ends_with_1_and_a_line_after_the_whole_report(self, run: Run) -> None:
        found = run("report", "bad", "--require", "separable", "--no-edge")
        assert found.code == 1
        assert found.err == "lrwd-sweep: gate require failed for bad: product-coupled, limit separable\n"
        assert "FAILED" in found.out
        assert "passed" in found.out
        assert found.out.endswith(run("report", "bad").out[-200:])  # the answer comes last
        assert found.out.index("FAILED") < found.out.index("\nuse ")
        found = run("report", "good", "--format", "csv", "--no-edge")  # a CSV holds no gates
        assert found.out == run("report", "good", "--format", "csv").out
        assert found.err == "gate no-edge passed for good: inside, limit inside\n"

    def test_every_gate_applies_to_every_study(self, run: Run) -> None:
        gates = ("--max-abs-slope", "0.5", "--max-failed", "0")
        found = run("report", "good", "bad", *gates, "--format", "json")
        assert found.code == 1
        document = json.loads(found.out)
        assert faults(document, "report") == []
        assert [(g["study_name"], g["gate"], g["passed"]) for g in document["gates"]] == [
            ("good", "max-abs-slope", True),
            ("good", "max-failed", True),
            ("bad", "max-abs-slope", False),
            ("bad", "max-failed", True),
        ]

    def test_octaves_choose_the_distance(self, run: Run) -> None:
        gate = ("report", "bad", "--max-transfer-regret", "0.02")  # the ridge costs 0.01, at two octaves 0.04
        assert run(*gate).code == 0
        assert run(*gate, "--octaves", "2").code == 1
        found = run(*gate, "--octaves", "2.5")
        assert found.code == 1
        assert "undetermined, limit 0.02 (at 2.5 octaves there are no two rows" in found.err

    def test_value_and_limit_are_in_every_format(self, run: Run) -> None:
        for form in FORMATS:
            found = run("report", "good", "--max-failed", "12", "--min-seeds", "57", "--format", form)
            assert found.code == 1
            assert "gate min-seeds failed for good: 3, limit 57" in found.err, form
            told = found.out if form != "csv" else found.err
            for part in ("max-failed", "12", "min-seeds", "57"):
                assert part in told, (form, part)

    def test_a_baseline_limits_the_regression(self, run: Run) -> None:
        assert run("report", "good", "bad", "--format", "json", "--output", "old.json").code == 0
        gate = ("--baseline", "old.json", "--max-regression")
        found = run("report", "good", "bad", *gate, "0")
        assert (found.code, found.err) == (0, "")
        run("study", "delete", "good", "--yes")
        import_("good", lambda a, b: bowl(a, b) + 0.05)
        import_("new", bowl)
        assert run("report", "good", *gate, "0.051").code == 0
        found = run("report", "good", *gate, "0.049")
        assert found.code == 1
        assert "failed for good: 0.05, limit 0.049 (0.1501 now, 0.1001 in old.json" in found.err
        found = run("report", "good", "new", *gate, "1")
        assert found.code == 1
        note, failed = found.err.splitlines()
        assert note == "study 'bad' of old.json is not in this report"
        why = "(old.json has no study 'new', only 'good', 'bad')"
        assert failed.endswith(f"gate max-regression failed for new: undetermined, limit 1 {why}")


BAD_OPTIONS = {  # parts of the message by arguments
    "--max-best low": ("--max-best 'low'", "is not a number"),
    "--max-best nan": ("--max-best 'nan'", "is not finite"),
    "--max-best inf": ("--max-best 'inf'", "leave the option out"),
    "--max-abs-slope -0.1": ("--max-abs-slope -0.1", "at least 0"),
    "--max-transfer-regret -1": ("--max-transfer-regret -1", "at least 0"),
    "--max-transfer-regret 1 --octaves 0": ("--octaves 0", "more than 0"),
    "--octaves 1": ("--octaves 1", "requires --max-transfer-regret"),
    "--require seperable": ("'seperable'", "did you mean separable?"),
    "--require x": ("'x'", "known: separable, product-coupled, coupled, undetermined"),
    "--max-failed -1": ("--max-failed -1", "at least 0"),
    "--max-failed 1.5": ("--max-failed '1.5'", "whole number"),
    "--min-seeds 0": ("--min-seeds 0", "at least 1"),
    "--max-regression 0.1": ("--max-regression 0.1", "requires --baseline OLD.json"),
    "--max-regression -0.1 --baseline x": ("--max-regression -0.1", "at least 0"),
    "--baseline x": ("--baseline 'x'", "requires --max-regression"),
    "--baseline no.json --max-regression 1": ("no.json", "report --format json"),
    f"--baseline {STORE} --max-regression 1": (STORE, "is not JSON"),
    "--baseline . --max-regression 1": ("--baseline .", "Is a directory"),
    "--format pdf": ("'pdf'", "html"),
    "--full --format csv": ("--full adds nothing to csv", "choose table"),
    "--output a.svg --figure ./a.svg": ("--output and --figure are both a.svg", "name two files"),
    "--output no/such/file": ("--output no/such/file", "can be written"),
    "--output .": ("--output .", "can be written"),
    "--show nrm": ("'nrm'", "did you mean norm?"),
    "--show norm,": ("--show 'norm,'", "empty name"),
    "--show norm --format csv": ("--show norm", "csv holds no pictures"),
    "--show norm --format junit": ("junit holds no pictures", "html"),
    "--margin 0": ("--margin '0'", "above 0 and at most 0.5"),
    "--margin nan": ("--margin 'nan'", "write one like 0.25"),
    "--margin 0.6": ("--margin '0.6'", "at most 0.5"),
    "--open --format csv": ("--open shows html, not csv", "leave out --format"),
    "--cap nan": ("--cap 'nan'", "is not finite"),
    "--at-restart 1": ("--at-restart 1", "no snapshot of a restart"),
    "--at-restart 0": ("--at-restart 0", "at least 1"),
    "--at-restart last": ("--at-restart 'last'", "whole number"),
    "--figure figure.doc": ("'.doc'", ".svg"),
    "--figure figure": ("'figure'", ".svg"),
    "--figure no/such/figure.pdf": ("--figure no/such/figure.pdf", "can be written"),
}


def test_a_bad_option_is_refused_in_one_line_and_writes_nothing(run: Run, compared: Path) -> None:
    for arguments, parts in BAD_OPTIONS.items():
        found = run("report", *arguments.split())
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), arguments
        assert all(part in found.err for part in parts), (arguments, found.err)
        assert [path.name for path in compared.parent.iterdir()] == [STORE], arguments


def test_the_margin_decides_the_verdict(run: Run, judged: None) -> None:
    import_("tilted", lambda a, b: 0.1 + 0.01 * (b + 0.3 * a) ** 2 + 0.002 * a**2)
    for margin, verdict in (("0.2", "COUPLED"), ("0.45", "SEPARABLE")):
        assert f" {verdict} " in run("report", "tilted", "--margin", margin).out, margin


class TestOutput:
    """Files are written whole, and the same store gives the same bytes."""

    def test_a_file_and_another_process_get_the_bytes_of_standard_output(
        self, run: Run, compared: Path
    ) -> None:
        printed = []
        for form in FORMATS:
            printed.append(run("report", "--format", form).out)
            written = run("report", "--format", form, "--output", "out")
            assert (written.code, written.out, written.err) == (0, "", "wrote out\n"), form
            assert Path("out").read_text(encoding="utf-8") == printed[-1], form
            assert {path.name for path in compared.parent.iterdir()} == {STORE, "out"}, form
        assert "learning curves" in printed[-1]
        code = (
            "import sys; from lrwd_sweep.cli import app\n"
            f"for form in {FORMATS}:\n"
            "    sys.argv = ['lrwd-sweep', 'report', '--format', form]\n"
            "    assert app.run() == 0\n"
        )
        other = [sys.executable, "-c", code]
        environ = os.environ | {"PYTHONHASHSEED": "1"}
        assert subprocess.run(other, env=environ, capture_output=True, check=True).stdout.decode() == "".join(
            printed
        )

    def test_open_shows_the_page_in_the_browser_and_names_it_without_one(
        self, run: Run, compared: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[str] = []

        def show(url: str) -> bool:
            opened.append(url)
            return True

        monkeypatch.setattr("webbrowser.open", show)
        found = run("report", "--open", "--output", "page.html")
        assert (found.code, found.out, found.err) == (0, "", "opened page.html\n")
        assert opened == [Path("page.html").resolve().as_uri()]
        assert Path("page.html").read_text(encoding="utf-8") == run("report", "--format", "html").out
        monkeypatch.setattr("webbrowser.open", lambda url: False)
        monkeypatch.setattr("tempfile.tempdir", str(compared.parent))
        found = run("report", "--open")
        (page,) = compared.parent.glob("lrwd-sweep-*.html")
        assert (found.code, found.err.count("\n")) == (3, 1)
        assert f"open {page} in one" in found.err
        assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")

    def test_a_file_is_written_although_a_gate_fails(self, run: Run, compared: Path) -> None:
        assert run("report", "--max-best", "0", "--output", "out", "--format", "junit").code == 1
        assert ET.parse("out").getroot().attrib["failures"] == "2"

    def test_links_and_pipes_are_written_through(self, run: Run, compared: Path) -> None:
        Path("target").write_text("old")
        Path("link").symlink_to("target")
        assert run("report", "--output", "link", "--format", "csv").code == 0
        assert Path("link").is_symlink()
        assert Path("target").read_text().startswith("lr,weight_decay,seed,value")
        os.mkfifo("pipe")
        reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
        assert run("report", ADAM, "--format", "csv", "--output", "pipe").code == 0
        assert os.read(reader, 100_000).decode() == run("report", ADAM, "--format", "csv").out
        os.close(reader)
        assert Path("pipe").is_fifo()

    def test_a_figure_is_drawn_beside_the_report(self, run: Run, compared: Path) -> None:
        pytest.importorskip("matplotlib")
        found = run("report", ADAM, "--figure", "figure.svg")
        assert (found.code, found.err) == (0, "wrote figure.svg\n")
        assert found.out == run("report", ADAM).out
        assert Path("figure.svg").read_bytes().startswith(b"<?xml")

    def test_a_csv_is_imported_again_exactly(self, run: Run, compared: Path) -> None:
        run("report", ADAMW, "--format", "csv", "--output", "first.csv")
        words = "first.csv --study-name back -o adamw --metric val_loss"
        assert run("study", "import", *words.split()).code == 0
        assert run("report", "back", "--format", "csv").out == Path("first.csv").read_text()


class TestShow:
    """Further pictures are drawn from the stored curves and metrics."""

    def test_diagnostics_of_a_real_run_are_drawn_before_the_gates(self, run: Run, compared: Path) -> None:
        found = run("report", "--show", "norm,effective-lr", "--max-best", "0")
        assert found.code == 1
        drawn, answer = found.out.split("\nuse ")
        assert run("report").out.endswith(answer)
        for part in ("norm: ‖θ‖", "effective_lr, mean over the epochs", "by epoch, one seed", "adamw, best:"):
            assert part in drawn
        assert drawn.index("by epoch") < drawn.index("FAILED")

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
                assert all(0 < cell["value"] < 2 for cell in document["studies"][0]["shown"][0]["cells"])

    def test_a_study_that_diverged_everywhere_is_shown(self, run: Run) -> None:
        axes = ("--lr", "1e35,1e36", "--wd", "1e35,1e36", "--seeds", "1", "--epochs", "1")
        assert run("grid", "-o", "adamw", *axes).code == 0
        for form in PICTURED:
            found = run("report", "--show", "scatter,curves,norm", "--format", form)
            assert (found.code, found.err) == (0, ""), form


def test_each_cycle_of_warm_restarts_is_reported(run: Run) -> None:
    axes = "--lr 2^-8:2^-6 --wd 2^-8:2^-6 --seeds 1 --epochs 3 --t0 1"
    assert run("grid", "-o", "adamwr", *axes.split()).code == 0
    found = {}
    for k, epoch, steps in (("1", 1, 6), ("2", 3, 12)):
        asked = ("report", "--at-restart", k)
        assert f"at restart {k} (epoch {epoch})" in " ".join(run(*asked).out.split())
        text = run(*asked, "--format", "json").out
        assert faults(json.loads(text), "report") == []
        (found[k],) = json.loads(text)["studies"]
        assert found[k]["snapshot"] == {"restart": int(k), "epoch": epoch}
        decay = found[k]["best"]["conventions"]
        assert decay["normalized"] == pytest.approx(decay["independent"] * steps**0.5)
    assert text == run("report", "--format", "json").out  # the last by default
    assert found["1"]["best"]["value"] > found["2"]["best"]["value"]
    refused = run("report", "--at-restart", "3")
    assert (refused.code, refused.out) == (2, "")
    assert "has 2, at the end of epoch 1, 3; choose 1 to 2" in refused.err


def test_documents_keep_to_the_json_schemas(run: Run, compared: Path, judged: None) -> None:
    for arguments in ((), (ADAM,), ("good", "bad", ADAMW), ("good", "--no-edge", "--max-best", "1")):
        assert faults(json.loads(run("report", "--format", "json", *arguments).out), "report") == []
    document = json.loads(run("study", "list", "--format", "json").out)
    assert len(document["studies"]) == 4
    assert faults(document, "study_list") == []
    document["studies"][0]["counts"]["cells"] = -1
    assert faults(document, "study_list")


def test_a_hostile_preset_is_harmless(run: Run) -> None:
    name = "<script>\u202e=cmd().toml"
    Path(name).write_text('about = "\\u001b[31m\\u202e <script> \\u0000 [/x]"\n')
    found = run("preset", "show", name)
    assert found.code == 0
    assert not set("\x1b\u202e\x00") & set(found.out + found.err)
    assert "\\x1b[31m\\u202e <script> \\x00 [/x]" in found.out


def test_an_import_is_one_transaction(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("pulled the plug")

    (tmp_path / "x.csv").write_text("lr,weight_decay,value\n1,1,1\n1,2,1\n2,1,1\n2,2,1\n")
    with monkeypatch.context() as patch:
        patch.setattr("lrwd_sweep.store.trials.insert_trials", broken)
        assert run("study", "import", "x.csv", "--study-name", "x", "-o", "adamw").code != 0
    assert run("study", "list").code == 4
