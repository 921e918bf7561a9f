"""`report` applies gates, writes files whole, and exits with 1 only if a gate fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Run, assert_refused
from tests.report.view.schema import faults
from tests.studies import Height, bowl, mirrored, plain, ridge, study

FORMATS = ["table", "markdown", "json", "csv", "junit", "html"]
PICTURED = ["table", "markdown", "json", "html"]


def import_(name: str, height: Height) -> None:
    found = plain(study(height, name))
    trials = [replace(trial, curves={"projection": (1.0, 1.0)}) for trial in found.trials]
    with open_store(STORE, write=True) as store:
        store.import_studies({name: (found.spec, trials)})


@pytest.fixture
def judged(tmp_path: Path) -> None:
    """Make a store with the separable study "good" and the coupled one "bad"."""
    import_("good", bowl)
    import_("bad", ridge)


@pytest.mark.usefixtures("judged")
class TestGates:
    """Gates decide the exit code and are part of the report."""

    def test_failed_gate_ends_with_1_and_a_line_after_the_whole_report(self, run: Run) -> None:
        found = run("report", "bad", "--require", "separable", "--no-edge")
        assert found.code == 1
        assert found.err == "lrwd-sweep: gate require failed for bad: product-coupled, limit separable\n"
        assert "FAILED" in found.out
        assert found.out.endswith(run("report", "bad").out[-200:])  # the answer comes last
        assert found.out.index("FAILED") < found.out.index("\nuse ")
        assert run("report", "bad", "--no-edge", "--format", "junit", "--output", "out").code == 0
        assert run("report", "bad", "--max-best", "0", "--format", "junit", "--output", "out").code == 1
        assert ET.parse("out").getroot().attrib["failures"] == "1"  # written although the gate fails
        gate = ("report", "bad", "--max-transfer-regret", "0.02")  # the ridge costs 0.01, at two octaves 0.04
        assert [run(*gate).code, run(*gate, "--octaves", "2").code] == [0, 1]
        found = run("report", "good", "--format", "csv", "--no-edge")  # a CSV holds no gates
        assert found.out == run("report", "good", "--format", "csv").out
        assert found.err == "1 of 1 gate passed\ngate no-edge passed for good: inside, limit inside\n"

    def test_baseline_limits_the_regression(self, run: Run) -> None:
        assert run("report", "good", "bad", "--format", "json", "--output", "old.json").code == 0
        gate = ("--baseline", "old.json", "--max-regression")
        assert run("report", "good", "bad", *gate, "0").code == 0
        run("study", "delete", "good", "--yes")
        import_("good", lambda a, b: bowl(a, b) + 0.05)
        assert [run("report", "good", *gate, limit).code for limit in ("0.051", "0.049")] == [0, 1]
        import_("new", bowl)
        found = run("report", "good", "new", *gate, "1")
        note, failed = found.err.splitlines()
        assert (found.code, note) == (1, "study 'bad' of old.json is not in this report")
        why = "(old.json has no study 'new', only 'good', 'bad')"
        assert failed.endswith(f"gate max-regression failed for new: undetermined, limit 1 {why}")


def test_the_margin_decides_the_verdict(run: Run, judged: None) -> None:
    import_("tilted", lambda a, b: 0.1 + 0.01 * (b + 0.3 * a) ** 2 + 0.002 * a**2)
    for margin, verdict in (("0.2", "COUPLED"), ("0.45", "SEPARABLE")):
        assert f" {verdict} " in run("report", "tilted", "--margin", margin).out, margin


class TestOutput:
    """Files are written whole, and the same store gives the same bytes."""

    def test_file_and_another_process_get_the_same_bytes(self, run: Run, compared: Path) -> None:
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
        environ = os.environ | {"PYTHONHASHSEED": "1"}
        other = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True)
        assert other.stdout.decode() == "".join(printed)

    def test_open_shows_the_page_in_the_browser_and_names_it_without_one(
        self, run: Run, compared: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[str] = []
        monkeypatch.setattr("webbrowser.open", lambda url: not opened.append(url))  # type: ignore[func-returns-value]
        found = run("report", "--open", "--output", "page.html")
        assert (found.code, found.out, found.err) == (0, "", "opened page.html\n")
        assert opened == [Path("page.html").resolve().as_uri()]
        assert Path("page.html").read_text(encoding="utf-8") == run("report", "--format", "html").out
        monkeypatch.setattr("webbrowser.open", lambda url: False)
        monkeypatch.setattr("tempfile.tempdir", str(compared.parent))
        found = run("report", "--open")
        (page,) = compared.parent.glob("lrwd-sweep-*.html")
        assert (found.code, f"open {page} in one" in found.err) == (3, True)
        assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")

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

    def test_figure_and_pictures_are_drawn_beside_the_report(self, run: Run, compared: Path) -> None:
        pytest.importorskip("matplotlib")
        found = run("report", ADAM, "--figure", "figure.svg")
        assert (found.code, found.err) == (0, "wrote figure.svg\n")
        assert found.out == run("report", ADAM).out
        assert Path("figure.svg").read_bytes().startswith(b"<?xml")
        found = run("report", "--show", "norm,effective-lr", "--max-best", "0")
        assert found.code == 1
        drawn, answer = found.out.split("\nuse ")
        assert run("report").out.endswith(answer)
        for part in ("norm: ‖θ‖", "effective_lr, mean over the epochs", "by epoch, one seed", "adamw, best:"):
            assert part in drawn
        assert drawn.index("by epoch") < drawn.index("FAILED")


def test_documents_keep_to_the_json_schemas(run: Run, compared: Path, judged: None) -> None:
    for arguments in ((), (ADAM,), ("good", "bad", ADAMW), ("good", "--no-edge", "--max-best", "1")):
        assert faults(json.loads(run("report", "--format", "json", *arguments).out), "report") == []
    document = json.loads(run("study", "list", "--format", "json").out)
    assert (len(document["studies"]), faults(document, "study_list")) == (4, [])
    document["studies"][0]["counts"]["cells"] = -1
    assert faults(document, "study_list")


def only_study(run: Run, *arguments: str) -> Any:
    (found,) = json.loads(run("report", *arguments, "--format", "json").out)["studies"]
    return found


def test_cap_is_stored_with_the_study_and_belongs_to_its_metric(run: Run, compared: Path) -> None:
    assert only_study(run, ADAMW)["cap"] is None  # losses above a uniform guess count
    refused = run("grid", "--cap", "nan")
    assert (refused.code, refused.err.startswith("lrwd-sweep: --cap 'nan' is not finite")) == (2, True)
    for cap in ("1.5", "2.5"):
        again = run("grid", "--optimizer", "adamw", *TINY, "--cap", cap)
        assert "9 of 9 lanes are in the store; nothing to train" in again.err
        assert only_study(run)["cap"] == float(cap)
    assert "cells at or above the cap of 2.5 are out" in " ".join(run("report", "--full").out.split())
    assert only_study(run, "--metric", "val_error")["cap"] == 0.9
    assert only_study(run, "--metric", "val_error", "--cap", "0.5")["cap"] == 0.5


def test_direction_options_override_the_stored_direction(run: Run) -> None:
    with open_store(STORE, write=True) as store:
        for found in (mirrored(plain(study(bowl, "high"))), plain(study(bowl, "low"))):
            trials = [replace(t, metrics={**t.metrics, "val_acc": 1.0}) for t in found.trials]
            store.import_studies({found.name: (found.spec, trials)})
    high, low, turned = (only_study(run, *words) for words in (("high",), ("low",), ("high", "--minimize")))
    assert [each["direction"] for each in (high, low, turned)] == ["maximize", "minimize", "minimize"]
    assert high["best"]["lr"] == low["best"]["lr"]
    assert turned["best"]["value"] < high["best"]["value"]
    assert run("report", "high", "low", "--minimize").code == 0
    for words, part in (
        ("high --minimize --maximize", "--minimize"),
        ("high low", "a higher val_loss is better in study 'high', a lower one in 'low'"),
        ("low --metric val_acc", "add --maximize, or --minimize if lower is better"),
    ):
        assert_refused(run("report", *words.split()), 2, part)
