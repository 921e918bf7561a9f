"""Labels, numbers, formulas and untrusted text have a Unicode and an ASCII form."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.report.view.lane_table import spreadsheet_text
from lrwd_sweep.report.view.notation import (
    ASCII,
    UNICODE,
    AxisStyle,
    ascii_formula,
    axis_labels,
    fit_number,
    labelled_axes,
    plain,
    short_decimal,
    to_ascii,
)
from lrwd_sweep.report.view.paper_figure import LogAxis
from lrwd_sweep.science.optimizer import Optimizer, optimizer_names
from tests.report.view.examples import HOSTILE, harmful
from tests.studies import study


@given(st.text())
def test_any_text_has_a_harmless_and_an_ascii_form(text: str) -> None:
    assert to_ascii(text).isascii()
    assert ascii_formula(text).isascii()
    harmless = plain(text)
    assert not harmful(harmless)
    assert "\n" not in harmless
    assert plain(harmless) == harmless
    assert not spreadsheet_text(text).lstrip().startswith(tuple("=+-@"))
    assert "\\x1b]0;gone\\x07[/x]" in plain(HOSTILE)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 6), st.integers(3, 8))
def test_numbers_keep_to_their_room(value: float, decimals: int, room: int) -> None:
    assert 1 <= len(fit_number(value, decimals, room)) <= room
    assert fit_number(-0.0001, 2, 4) == ".00"  # without a minus
    if 1e-12 < abs(value) < 1e12:
        assert float(short_decimal(abs(value))) == pytest.approx(abs(value), rel=5.1e-3)


def test_formulas_and_labels_have_both_forms() -> None:
    assert ascii_formula(Optimizer.parse("adamp").formula) == (
        "theta <- theta - eta*alpha*(proj(m_hat/(sqrt(v_hat)+eps)) + kappa*w*theta)"
    )
    for name in optimizer_names():
        assert "\\" not in ascii_formula(Optimizer.parse(name + ":normalized").formula), name
    assert axis_labels([0.1, 0.25, 0.0001], UNICODE) == ["0.1", "0.25", "1e-4"]
    assert axis_labels([0.0, 2**-7.5], ASCII) == ["0", "2^-7.5"]
    assert axis_labels([0.10001, 0.10002], UNICODE) == ["0.10001", "0.10002"]


def test_every_view_labels_axes_by_decimals_within_the_block_only() -> None:
    found, power, decimal = study(), "2⁻⁷|2<sup>−7|2<tspan[^>]*>−7", "0.00781"  # a learning rate of the study
    for form in (Format.TABLE, Format.MARKDOWN, Format.HTML):
        powers = text_of(render([found], [], form))
        with labelled_axes(AxisStyle.DECIMAL):
            decimals = text_of(render([found], [], form))
        assert (re.search(power, powers) is None, re.search(power, decimals) is None) == (False, True), form
        assert decimals.count(decimal) > powers.count(decimal), form
        assert text_of(render([found], [], form)) == powers, form
    places, labels = LogAxis.of(found.surface.lr).ticks(decimal=True)
    assert (labels[0], places[0], len(labels) <= 6) == ("0.00195", -9, True)
