"""Text of any origin becomes harmless."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.view.plain import plain, spreadsheet_text
from tests.report.view.examples import HOSTILE


@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    assert not {unicodedata.category(c) for c in plain(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text())
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert plain(plain(text)) == plain(text)


@given(st.text())
def test_no_spreadsheet_cell_begins_like_a_formula(text: str) -> None:
    assert not spreadsheet_text(text).lstrip().startswith(tuple("=+-@"))


def test_hostile_text_stays_readable() -> None:
    shown = plain(HOSTILE)
    assert "\\x1b]0;gone\\x07[/x]" in shown
    assert "\\n\\u202e=cmd()" in shown
