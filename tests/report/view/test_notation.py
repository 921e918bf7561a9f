"""Labels, numbers, formulas and untrusted text, in Unicode and in ASCII."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.view.csv_table import spreadsheet_text
from lrwd_sweep.report.view.notation import (
    ASCII,
    UNICODE,
    ascii_formula,
    axis_labels,
    fit_number,
    plain,
    short_decimal,
    to_ascii,
)
from lrwd_sweep.science.optimizer import Optimizer, optimizer_names
from tests.report.view.examples import HOSTILE


def test_ascii_formula_writes_every_product() -> None:
    assert ascii_formula("m ← β₁m + ηα(g + λ′θ) ; θ ← θ − m") == (
        "m <- beta1*m + eta*alpha*(g + lambda'*theta) ; theta <- theta - m"
    )


def test_ascii_formula_of_projected_decay_names_its_factor() -> None:
    assert ascii_formula(Optimizer.parse("adamp").formula) == (
        "theta <- theta - eta*alpha*(proj(m_hat/(sqrt(v_hat)+eps)) + kappa*w*theta)"
    )


def test_every_formula_has_an_ascii_form() -> None:
    for name in optimizer_names():
        for end in ("", ":normalized"):
            formula = ascii_formula(Optimizer.parse(name + end).formula)
            assert formula.isascii(), name + end
            assert "\\" not in formula, name + end


@given(st.text())
def test_any_text_has_an_ascii_form(text: str) -> None:
    assert to_ascii(text).isascii()
    assert ascii_formula(text).isascii()


def test_an_axis_that_is_not_all_powers_of_two_is_decimal_throughout() -> None:
    assert axis_labels([0.1, 0.25, 0.0001], UNICODE) == ["0.1", "0.25", "1e-4"]


def test_half_powers_have_superscript_points() -> None:
    assert axis_labels([0.0, 2**-7.5], UNICODE) == ["0", "2⁻⁷·⁵"]
    assert axis_labels([0.0, 2**-7.5], ASCII) == ["0", "2^-7.5"]


def test_close_values_get_different_labels() -> None:
    assert axis_labels([0.10001, 0.10002], UNICODE) == ["0.10001", "0.10002"]


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 6), st.integers(3, 8))
def test_numbers_keep_to_their_room(value: float, decimals: int, room: int) -> None:
    assert 1 <= len(fit_number(value, decimals, room)) <= room


@given(st.floats(1e-12, 1e12))
def test_short_decimals_are_right_to_three_digits(value: float) -> None:
    assert float(short_decimal(value)) == pytest.approx(value, rel=5.1e-3)


def test_a_small_negative_number_is_not_written_as_minus_zero() -> None:
    assert fit_number(-0.0001, 2, 4) == ".00"


@given(st.text())
def test_plain_text_has_no_invisible_characters_and_stays_as_it_is(text: str) -> None:
    harmless = plain(text)
    assert not {unicodedata.category(c) for c in harmless} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert plain(harmless) == harmless
    assert not spreadsheet_text(text).lstrip().startswith(tuple("=+-@"))


def test_hostile_text_stays_readable() -> None:
    assert "\\x1b]0;gone\\x07[/x]" in plain(HOSTILE)
    assert "\\n\\u202e=cmd()" in plain(HOSTILE)
