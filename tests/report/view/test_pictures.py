"""Quantities are read from every lane; charts fit their console and show every series."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.report.view import pictures as views
from lrwd_sweep.report.view.line_chart import COLOURS, MARKS, SIZE, Chart, Range, Series
from lrwd_sweep.report.view.pictures import Quantity, curves, resolved, scatter, show_renderables
from lrwd_sweep.science.trial import Status
from tests.report.view.examples import EPOCHS, coloured, contrast, drawn, known, measured, study
from tests.report.view.schema import faults


def two() -> list[Result]:
    return [measured("a", "adam"), measured("b", "adamw")]


def shown(*names: str, width: int = 100, encoding: str = "utf-8") -> str:
    return "".join(drawn(found, width, encoding) for found in show_renderables(two(), names))


def check(chart: Chart | None, title: str, *abouts: str) -> Chart:
    assert (known(chart).title, [series.about for series in known(chart).series]) == (title, [*abouts])
    return known(chart)


def test_surface_holds_the_last_value_or_the_mean_over_the_epochs() -> None:
    names = ("val_loss", "norm", "effective_lr")
    loss, norm, rate = (known(Quantity(name).surface(measured())) for name in names)
    assert np.array_equal(loss.mean, measured().surface.mean, equal_nan=True)
    assert norm.mean[1:, :] == pytest.approx(np.tile(norm.weight_decay * EPOCHS, (4, 1)))
    assert rate.mean[1:, 0] == pytest.approx(rate.lr[1:] * (1 - 2.0**-EPOCHS) / EPOCHS)
    assert (norm.metric, norm.cap, rate.metric) == ("norm", None, "effective_lr, mean over the epochs")


def test_quantities_have_names_and_a_reason_if_absent() -> None:
    cases = {("projection", "adamw"): "no projection: only adamp", ("projection", "adamp"): "trained without"}
    for (name, optimizer), reason in (cases | {("mine", "adamw"): "no mine in the store"}).items():
        quantity, found = Quantity(name), measured(optimizer=optimizer)
        assert (quantity.surface(found), quantity.curves(found)) == (None, {}), name
        assert reason in quantity.absence(found), name
    assert Quantity("norm").absence(study()) == "no norm: the study has no learning curves"
    assert resolved(["effective-lr", "scatter", "effective_lr"], [measured()]) == ["effective_lr", "scatter"]
    with pytest.raises(UnknownName, match=r"unknown name for --show 'nrm'; did you mean norm\?"):
        resolved(["norm", "nrm"], [study(), measured()])
    assert shown("heatmap") == ""  # every report shows it


def test_scatter_has_every_complete_cell_and_curves_the_best_its_row_and_column() -> None:
    chart = check(scatter(two()), "test_error by train_loss, every point a cell", "adam", "adamw")
    mean = measured().surface.mean[np.isfinite(measured().surface.mean)]
    for series in chart.series:
        assert series.x == pytest.approx(mean / EPOCHS)
        assert series.y == pytest.approx(mean / 2)
    val_loss, title, best = Quantity("val_loss"), "val_loss (log) by epoch, mean of 3 seeds", "α 2⁻⁷, λ 2⁻⁵"
    others = "same α, λ 2⁻⁷", "same α, λ 2⁻³", "α 2⁻⁸, same λ", "α 2⁻⁵, same λ"  # at 2⁻⁹ a seed is missing
    chart = check(curves([measured()], val_loss), title, f"best cell: {best}", *others)
    assert chart.series[0].y[-1] == pytest.approx(measured().surface.mean[2, 2])
    both = "adam, best: α 2⁻⁷, λ′ 2⁻⁵", f"adamw, best: {best}"
    check(curves(two(), val_loss), title.replace(" (log)", ""), *both)
    lost = [trial for trial in measured().trials if trial.status is not Status.COMPLETE]
    nothing = result("lost", measured().spec, "", lost)
    assert [curves([nothing], val_loss), curves([study()], val_loss), scatter([study()])] == [None] * 3


def test_pictures_fit_the_console_and_are_in_json_markdown_and_html() -> None:
    names = ["norm", "scatter", "projection"]
    for width, encoding in ((40, "ascii"), (120, "utf-8")):
        text = shown(*names, "curves", "val_error", width=width, encoding=encoding)
        assert text.isascii() is (encoding == "ascii")
    norms = shown("norm").split(" by epoch")[0]
    assert not [mark for mark in ("★", "○ ten", "┃", "best of", "row's best") if mark in norms]
    trials = tuple(replace(t, curves={**t.curves, "norm": (1e5,)}) for t in measured("b").trials)
    (picture,) = views.pictures([measured(), replace(measured("b"), trials=trials)], ["norm"])
    assert {heatmap.surface.metric for _, heatmap in picture.heatmaps} == {"log10 of norm"}
    forms = Format.JSON, Format.MARKDOWN, Format.HTML
    content, markdown, page = (text_of(render(two()[1:], [], form, show=names)) for form in forms)
    document = json.loads(content)
    assert faults(document, "report") == []
    norm, *parts, projection = document["studies"][0]["shown"]
    assert (norm["name"], norm["meaning"], norm["reason"]) == ("norm", "norm", "")
    assert [cell["value"] for cell in norm["cells"][:4]] == [None, None, None, pytest.approx(0.625)]
    assert ([part["name"] for part in parts], projection["cells"]) == (["train_loss", "test_error"], [])
    assert "| 2⁻⁵ | .08 | .16 | .31 | .62 | 1.25 |" in markdown.split("## `norm`")[1].split("## ")[1]
    norm_part, scattered = page.split('id="shown-0"')[1].split('id="shown-1"')
    assert (norm_part.count('data-cell="'), "<polyline points=" in norm_part) == (25, True)
    assert all("no projection" in text for text in (projection["reason"], markdown, scattered))


THIRTY = np.arange(1.0, 31)
DRAWN = """\
val_loss (log) by epoch, mean of 3 seeds
   1 ┤⢱
     │ ⢣
 0.5 ┤⢢⠈⢆
     │⠈⢆ ●⡀
     │ ⠘⡄ ⠈⢆⡀
 0.2 ┤  ⠘⢄  ⠈⠢⢄
"""


def lines(*series: Series, joined: bool = True) -> Chart:
    return known(Chart.of("mean of 3 seeds", "val_loss", "epoch", series, joined=joined))


def chart(count: int = 3, *, joined: bool = True) -> Chart:
    """Return losses that fall, each half as large as the one before."""
    return lines(*(Series(f"number {k}", THIRTY, 2.0**-k / THIRTY) for k in range(count)), joined=joined)


def test_lines_are_drawn_without_infinite_or_absurd_values_and_ticks_stay_in_the_panel() -> None:
    text = drawn(chart(2), 60)
    assert (text.startswith(DRAWN), text.splitlines()[-4].count("┬")) == (True, 3), text
    assert "\x1b[38" in coloured(chart())
    for code in COLOURS:
        rgb = int(code[1:3], 16), int(code[3:5], 16), int(code[5:], 16)
        assert min(contrast(rgb, (0, 0, 0)), contrast(rgb, (255, 255, 255))) >= 3, code
    gone = Series("gone", THIRTY, np.full(30, np.nan))
    assert Chart.of("", "y", "epoch", [gone], joined=True) is None
    found = lines(gone, Series("broken", THIRTY, np.where(THIRTY < 20, 1 / THIRTY, np.inf)))
    assert ([series.about for series in found.series], found.x.high) == (["broken"], 19)
    for absurd in (6e15, -6e15):
        found = lines(Series("a", THIRTY, np.where(THIRTY == 4, absurd, 2.0 / THIRTY)))
        assert 0 < found.y.low < found.y.high <= 2.0, absurd
        assert found.title.endswith("mean of 3 seeds; points far off are drawn on the rim")
    for low, span in product((1e-6, 0.3, 1.0, 7e5, -2.0), (1e-3, 1.0, 999.0)):
        ticks = Range(low, low + span, low > 0).ticks()
        assert 2 <= len(ticks) <= 12, (low, span)
        assert all(0 <= height <= SIZE for height, _ in ticks), (low, span)


@given(st.integers(20, 140), st.integers(1, 9), st.booleans(), st.sampled_from(["utf-8", "ascii"]))
def test_chart_fits_the_console_and_shows_every_series(
    width: int, count: int, joined: bool, encoding: str
) -> None:
    assert drawn(chart(count, joined=joined), width, encoding).isascii() == (encoding == "ascii")
    text = drawn(chart(count, joined=joined), 140)
    plot = "".join(line.partition("┤")[2] or line.partition("│")[2] for line in text.splitlines())
    assert joined or set(plot) == {" ", *MARKS[:count]}
    assert all(mark in plot and f"{mark} number {k}" in text for k, mark in enumerate(MARKS[:count]))
