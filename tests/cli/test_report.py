"""`report` shows what `compare` showed, applies gates, and writes files whole."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock
from xml.etree import ElementTree as ET

from lrwd_sweep.store import open_store
from tests.cli import conftest
from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Patch, Run, assert_refused, reported, strict
from tests.studies import Height, bowl, mirrored, plain, ridge, study

FORMATS = ["table", "markdown", "json", "csv", "junit", "html"]


def import_(name: str, height: Height) -> None:
    found = plain(study(height, name))
    with open_store(STORE, write=True) as store:
        store.import_studies({name: (found.spec, found.trials)})


def test_compare_trains_only_what_is_missing_and_report_shows_the_same(run: Run, compared: Path) -> None:
    found = run("compare", "adam", "adamw", *TINY)
    assert found.err.count("9 of 9 lanes are in the store; nothing to train") == 2
    assert found.out == run(f"report {ADAM} {ADAMW}").out
    full = run("compare", "adam", "adamw", *TINY, "--full").out
    assert full == run(f"report {ADAM} {ADAMW} --full").out
    assert full.endswith(found.out[found.out.index("\nuse ") : found.out.index("\nmore ")] + "\n")
    before = compared.read_bytes()
    compared.chmod(0o444)
    compared.parent.chmod(0o555)
    again = run("report")
    compared.parent.chmod(0o755)
    assert again == found._replace(err="")
    assert (compared.read_bytes(), [path.name for path in compared.parent.iterdir()]) == (before, [STORE])
    run("grid", "-o", "adam", *TINY)  # the latest study or comparison
    assert run("report").out == run(f"report {ADAM}").out
    assert "sgdw: trained 9 runs" in run("compare", "adamw", "sgdw", *TINY).err
    run("compare", "adamw", "adam", *TINY)
    assert run("report").out == run(f"report {ADAMW} {ADAM}").out
    run(f"study delete {ADAMW} --yes", code=0)
    assert run("report").out == run(f"report {ADAM}").out


def test_failed_gate_or_regression_ends_with_1_and_a_line_after_the_report(run: Run) -> None:
    import_("good", bowl)  # separable
    import_("bad", ridge)  # coupled
    found = run("report bad --require separable --no-edge", code=1)
    assert found.err == "lrwd-sweep: gate require failed for bad: product-coupled, limit separable\n"
    assert found.out.endswith(run("report bad").out[-200:])  # the answer comes last
    run("report bad --max-best 0 --format junit --output out", code=1)
    assert ET.parse("out").getroot().attrib["failures"] == "1"  # written although the gate fails
    gate = "report bad --max-transfer-regret 0.02"  # the ridge costs 0.01, at two octaves 0.04
    assert [run(gate).code, run(f"{gate} --octaves 2").code] == [0, 1]
    found = run("report good --format csv --no-edge")  # a CSV holds no gates
    assert found.out == run("report good --format csv").out
    assert found.err == "1 of 1 gate passed\ngate no-edge passed for good: inside, limit inside\n"
    gates = "report bad --max-best 0 --min-seeds 9 --max-failed 0 --max-abs-slope 0.1"
    found = run(f"{gates} --format json", code=1)
    summary = strict(found.out)["gate_summary"]
    assert (summary["failed"], summary["all"], found.err.count("lrwd-sweep: gate ")) == (3, 4, 3)
    found = run(f"{gates} --format github")
    assert all(line.startswith(("::error title=", "::notice title=")) for line in found.out.splitlines())
    import_("tilted", lambda a, b: 0.1 + 0.01 * (b + 0.3 * a) ** 2 + 0.002 * a**2)
    for margin, verdict in (("0.2", "COUPLED"), ("0.45", "SEPARABLE")):
        assert f" {verdict} " in run(f"report tilted --margin {margin}").out, margin
    run("report good bad --format json --output old.json", code=0)
    gate = "--baseline old.json --max-regression"
    run(f"report good bad {gate} 0", code=0)
    run("study delete good --yes")
    import_("good", lambda a, b: bowl(a, b) + 0.05)
    assert [run(f"report good {gate} {limit}").code for limit in ("0.051", "0.049")] == [0, 1]
    import_("new", bowl)
    note, failed = run(f"report good new {gate} 1", code=1).err.splitlines()
    assert note == "study 'bad' of old.json is not in this report"
    why = "(old.json has no study 'new', only 'good', 'bad')"
    assert failed.endswith(f"gate max-regression failed for new: undetermined, limit 1 {why}")


def test_file_and_another_process_get_the_same_bytes(run: Run, compared: Path) -> None:
    printed = []
    for form in FORMATS:
        printed.append(run(f"report --format {form}").out)
        written = run(f"report --format {form} --output out")
        assert (written.code, written.out, written.err) == (0, "", "wrote out\n"), form
        assert Path("out").read_text(encoding="utf-8") == printed[-1], form
        assert {path.name for path in compared.parent.iterdir()} == {STORE, "out"}, form
    code = f"""import sys; from lrwd_sweep.cli import app
for form in {FORMATS}:
    sys.argv = ["lrwd-sweep", "report", "--format", form]
    assert app.run() == 0"""
    environ = os.environ | {"PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True)
    assert other.stdout.decode() == "".join(printed)
    Path("link").symlink_to("target")  # links and pipes are written through
    run("report --output link --format csv", code=0)
    assert Path("link").is_symlink()
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    run("report --format csv --output pipe", code=0)
    assert os.read(reader, 100_000).decode() == Path("target").read_text()
    os.close(reader)


def test_page_opens_and_figures_accompany_the_report(run: Run, compared: Path, monkeypatch: Patch) -> None:
    opened = Mock(return_value=True)
    monkeypatch.setattr("webbrowser.open", opened)
    found = run("report --open --output page.html --max-best 0", code=1)  # a gate fails
    assert (found.out, found.err.splitlines()[0]) == ("", "opened page.html")
    opened.assert_called_once_with(Path("page.html").resolve().as_uri())
    assert "<h1>" in Path("page.html").read_text(encoding="utf-8")
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    monkeypatch.setattr("tempfile.tempdir", str(compared.parent))
    found = run("report --open")
    (page,) = compared.parent.glob("lrwd-sweep-*.html")
    assert_refused(found, 3, f"there is no browser here; open {page} in one")
    assert page.read_text(encoding="utf-8") == run("report --format html").out
    found = run(f"report {ADAM} --figure figure.svg")
    assert (found.code, found.err, found.out) == (0, "wrote figure.svg\n", run(f"report {ADAM}").out)
    assert Path("figure.svg").read_bytes().startswith(b"<?xml")
    assert run("report --axis decimal").out.count("0.00391") > run("report").out.count("0.00391")


def test_stored_cap_and_direction_hold_unless_options_override_them(run: Run, compared: Path) -> None:
    assert reported(run, ADAMW)["cap"] is None  # losses above a uniform guess count
    for cap in ("1.5", "2.5"):
        again = run("grid", *TINY, "--cap", cap)
        assert "9 of 9 lanes are in the store; nothing to train" in again.err
        assert reported(run)["cap"] == float(cap)
    assert "cells at or above the cap of 2.5 are out" in " ".join(run("report --full").out.split())
    assert reported(run, "--metric val_error")["cap"] == 0.9
    assert reported(run, "--metric val_error --cap 0.5")["cap"] == 0.5
    with open_store(STORE, write=True) as store:
        for found in (mirrored(plain(study(bowl, "high"))), plain(study(bowl, "low"))):
            trials = [replace(t, metrics={**t.metrics, "val_acc": 1.0}) for t in found.trials]
            store.import_studies({found.name: (found.spec, trials)})
    for words, direction in (("high", "maximize"), ("low", "minimize"), ("high --minimize", "minimize")):
        assert reported(run, words)["direction"] == direction
    run("report high low --minimize", code=0)
    for words, part in (
        ("high low", "a higher val_loss is better in study 'high', a lower one in 'low'"),
        ("low --metric val_los", "unknown metric 'val_los'; did you mean val_loss"),
        ("low --metric val_acc", "add --maximize, or --minimize if lower is better"),
    ):
        assert_refused(run(f"report {words}"), 2, part)


def test_command_loads_only_the_libraries_it_needs(compared: Path) -> None:
    for words, absent in (
        ("convert -o adamw --lr 1 --wd 1", "torch numpy sqlalchemy optuna sklearn"),
        ("report", "torch optuna sklearn matplotlib jinja2 pandas"),
    ):
        found = conftest.ended(conftest.process(*words.split(), PYTHONPROFILEIMPORTTIME="1"))
        loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in found.err.splitlines()}
        assert (found.code, loaded & {"lrwd_sweep", *absent.split()}) == (0, {"lrwd_sweep"}), words
