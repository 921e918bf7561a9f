"""Axes are labelled by decimals on request, and terminals of 16 colours get five steps of them."""

from __future__ import annotations

import re

from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.report.view.notation import UNICODE, axis_labels, decimal_axes
from lrwd_sweep.report.view.paper_figure import LogAxis
from lrwd_sweep.report.view.terminal import Report
from tests.report.view.examples import drawn
from tests.studies import study

POWERS, DECIMALS = "2⁻⁷", "0.00781"  # a learning rate of the study


def test_every_view_labels_axes_by_decimals_within_the_block_only() -> None:
    found = study()
    for form in (Format.TABLE, Format.MARKDOWN, Format.HTML):
        powers = text_of(render([found], [], form))
        with decimal_axes():
            decimals = text_of(render([found], [], form))
        assert re.search(f"{POWERS}|2<sup>−7|2<tspan[^>]*>−7", powers), form
        assert not re.search(f"{POWERS}|2<sup>−7|2<tspan[^>]*>−7", decimals), form
        assert decimals.count(DECIMALS) > powers.count(DECIMALS), form
        assert text_of(render([found], [], form)) == powers, form
    for values in ([2.0**-9, 2.0**-4], [0.0, 0.5, 0.25]):
        with decimal_axes():
            assert "2" not in {label[0] for label in axis_labels(values, UNICODE)}
            with decimal_axes(on=False):
                assert axis_labels(values[-1:], UNICODE)[0].startswith("2⁻")
    axis = LogAxis.of(found.surface.lr)
    assert axis.ticks()[1][0] == "$2^{-9}$"
    with decimal_axes():
        places, labels = axis.ticks()
    assert (labels[0], places[0]) == ("0.00195", -9)
    assert len(labels) <= 6


def test_sixteen_colours_give_five_backgrounds_and_eight_colours_suffice() -> None:
    text = drawn(Report([study()]), 120, force_terminal=True, color_system="standard")
    used = {int(code) for codes in re.findall(r"\x1b\[([\d;]+)m", text) for code in codes.split(";")}
    backgrounds = {code for code in used if 40 <= code <= 49 or code >= 100}
    assert backgrounds == {43, 42, 46, 44, 45}
    assert not used & {38, 48, *range(90, 108)}
    best = re.search(r"\x1b\[([\d;]+)m[^\x1b]*★", text)
    assert best is not None
    assert {"43", "30"} <= set(best[1].split(";"))  # black on yellow
    for options in ({"no_color": True}, {"color_system": None}):
        plain = drawn(Report([study()]), 120, force_terminal=True, **options)
        assert not re.search(r"\x1b\[[\d;]*4\d", plain), options
