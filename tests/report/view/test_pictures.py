"""Quantities are read from every lane; only ranked quantities have a best cell."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.report.view import pictures as views
from lrwd_sweep.report.view.line_chart import Chart
from lrwd_sweep.report.view.pictures import Quantity, curves, resolved, scatter, show_renderables
from lrwd_sweep.science.surface import Surface
from lrwd_sweep.science.trial import Status
from tests.report.view.examples import EPOCHS, drawn, measured, study
from tests.report.view.schema import faults


def two() -> list[Result]:
    return [measured("a", "adam"), measured("b", "adamw")]


def surface_of(name: str) -> Surface:
    surface = Quantity(name).surface(measured())
    assert surface is not None
    return surface


def shown(*names: str, width: int = 100, encoding: str = "utf-8") -> str:
    return "".join(drawn(found, width, encoding) for found in show_renderables(two(), names))


def check(chart: Chart | None, title: str, *abouts: str) -> Chart:
    assert chart is not None
    assert (chart.title, [series.about for series in chart.series]) == (title, [*abouts])
    return chart


def test_surface_holds_the_last_value_or_the_mean_over_the_epochs() -> None:
    assert np.array_equal(surface_of("val_loss").mean, measured().surface.mean, equal_nan=True)
    norm, rate = surface_of("norm"), surface_of("effective_lr")
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
        assert max(map(cell_len, text.splitlines())) <= width
        assert text.isascii() is (encoding == "ascii")
    norms = shown("norm").split(" by epoch")[0]
    assert not [mark for mark in ("★", "○ ten", "┃", "best of", "row's best") if mark in norms]
    trials = tuple(replace(t, curves={**t.curves, "norm": (1e5,)}) for t in measured("b").trials)
    (picture,) = views.pictures([measured(), replace(measured("b"), trials=trials)], ["norm"])
    assert {heatmap.surface.metric for _, heatmap in picture.heatmaps} == {"log10 of norm"}
    content, markdown, page = (
        text_of(render(two()[1:], [], form, show=names))
        for form in (Format.JSON, Format.MARKDOWN, Format.HTML)
    )
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
