"""Options of `report` are refused in one line, on standard error, with nothing lost and nothing opened."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import pytest

from tests.cli.conftest import Run, assert_refused

REFUSED = [  # options, words of the line
    ("--margin 0", "--margin '0' is not a number above 0 and at most 0.5"),
    ("--margin nan", "--margin 'nan'"),
    ("--cap nan", "--cap 'nan' is not finite"),
    ("--axis log", "unknown axis 'log'; known: powers, decimal"),
]
OF_REPORT = [
    ("--axis decimal --format json", "--axis decimal: json has no axis labels"),
    ("--axis decimal --format github", "choose table, markdown or html"),
    ("--max-sequential-regret -1", "--max-sequential-regret -1 is too small; choose at least 0"),
    ("--max-lr-sensitivity nan", "--max-lr-sensitivity 'nan' is not finite"),
    ("--format github --show norm", "github holds no pictures"),
    ("--format github --full", "--full adds nothing to github"),
    ("--format github --open", "leave out --format github"),
]


def test_bad_values_are_refused_by_every_command_that_takes_them(run: Run, tmp_path: Path) -> None:
    for command in ("report", "report --format json", "grid", "compare adam adamw", "tpe"):
        for options, words in REFUSED + OF_REPORT * (command == "report"):
            assert_refused(run(*command.split(), *options.split()), 2, words)
    assert not list(tmp_path.iterdir())


def test_without_a_browser_the_page_is_kept_and_named(
    run: Run, compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def fails(url: str) -> bool:
        opened.append(url)
        return False

    monkeypatch.setattr(webbrowser, "open", fails)
    before = compared.read_bytes()
    assert_refused(
        run("report", "--open", "--output", "page.html"), 3, "there is no browser here", "page.html"
    )
    assert Path("page.html").read_text().startswith("<!DOCTYPE html>")
    assert opened == [Path("page.html").resolve().as_uri()]
    assert compared.read_bytes() == before
    monkeypatch.setattr(webbrowser, "open", lambda url: True)
    found = run("report", "--open", "--output", "page.html", "--max-best", "0")  # a gate fails
    assert (found.code, found.out) == (1, "")
    assert found.err.startswith("opened page.html\n")
    assert "<h1>" in Path("page.html").read_text()


def test_machine_readable_output_stays_clean_beside_notes_and_failed_gates(run: Run, compared: Path) -> None:
    gates = ("--max-best", "0", "--max-sequential-regret", "0")
    found = run("report", "--format", "json", *gates)
    assert found.code == 1
    assert json.loads(found.out)["gate_summary"]["failed"] >= 2
    assert found.err.count("lrwd-sweep: gate ") == json.loads(found.out)["gate_summary"]["failed"]
    found = run("report", "--format", "github", *gates)
    assert all(line.startswith(("::error title=", "::notice title=")) for line in found.out.splitlines())
    assert run("report", "--axis", "decimal").out.count("0.00391") > run("report").out.count("0.00391")
