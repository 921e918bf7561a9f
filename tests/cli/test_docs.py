"""`lrwd-sweep docs` shows the guide."""

from __future__ import annotations

import pytest

from lrwd_sweep.cli.docs import FOLDER
from tests.cli.conftest import Run

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}


def test_without_a_page_it_lists_every_page_on_one_line(run: Run) -> None:
    listed = run("docs")
    assert (listed.code, listed.err) == (0, "")
    lines = listed.out.splitlines()
    for line, (name, text) in zip(lines, PAGES.items(), strict=False):
        assert line.split(maxsplit=1) == [name, text.splitlines()[0].removeprefix("# ")]
    assert max(map(len, lines)) <= 80


def test_off_a_terminal_a_page_is_its_markdown(run: Run) -> None:
    for name, text in PAGES.items():
        assert run("docs", name).out == text
    assert run("docs", "ci.md").out == PAGES["ci"]


def test_in_colour_a_page_is_rendered(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = run("docs", "separability").out
    assert "\x1b[" in out
    assert "```" not in out
