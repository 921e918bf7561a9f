"""Quantities are read from every lane; their pictures mark no best cell where none is better."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view.chart import Chart
from lrwd_sweep.report.view.document import document, dumps
from lrwd_sweep.report.view.html_page import html
from lrwd_sweep.report.view.markdown import markdown
from lrwd_sweep.report.view.pictures import (
    Quantity,
    curves,
    pictures,
    quantities,
    resolved,
    scatter,
    show_renderables,
)
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.surface import CellStatus, Surface
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.catalog import DIAGNOSTICS
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.report.view.examples import EPOCHS, HOSTILE, drawn, harmful, measured, study
from tests.report.view.schema import faults

DIAGNOSED = ("norm", "rotation", "effective_lr")


def surface_of(name: str, found: Result | None = None) -> Surface:
    surface = Quantity(name).surface(found or measured())
    assert surface is not None
    return surface


def shown(*names: str, width: int = 100, encoding: str = "utf-8") -> str:
    """Return what a console prints of them for two studies."""
    results = [measured("a", "adam"), measured("b", "adamw")]
    return "".join(drawn(found, width, encoding) for found in show_renderables(results, names))


def abouts(chart: Chart | None) -> list[str]:
    assert chart is not None
    return [series.about for series in chart.series]


def test_a_metrics_surface_holds_last_values() -> None:
    found, surface = measured(), surface_of("val_loss")
    assert np.array_equal(surface.mean, found.surface.mean, equal_nan=True)
    assert surface.cap == found.surface.cap


def test_a_diagnostic_is_its_last_value_or_its_mean_over_the_epochs() -> None:
    norm = surface_of("norm")
    assert norm.mean[1:, :] == pytest.approx(np.tile(norm.weight_decay * EPOCHS, (4, 1)))
    assert (norm.metric, norm.cap) == ("norm", None)
    rate = surface_of("effective_lr")
    assert rate.mean[1:, 0] == pytest.approx(rate.lr[1:] * (1 - 2.0**-EPOCHS) / EPOCHS)
    assert rate.metric == "effective_lr, mean over the epochs"


def test_lanes_without_a_value_keep_their_status() -> None:
    found = [surface_of("norm").status(0, j) for j in range(3)]
    assert found == [CellStatus.DIVERGED, CellStatus.FAILED, CellStatus.MISSING]


def test_curves_average_the_seeds_of_complete_cells() -> None:
    found = Quantity("val_loss").curves(measured())
    assert found[2, 2][-1] == pytest.approx(measured().surface.mean[2, 2])
    assert all(len(curve) == EPOCHS for curve in found.values())


def test_points_of_a_search_belong_to_their_nearest_cells() -> None:
    whole, searched = measured(), measured(kind=Kind.TPE)
    for name in ("norm", "val_error"):
        means = surface_of(name, whole).mean, surface_of(name, searched).mean
        assert np.array_equal(*means, equal_nan=True), name
        assert Quantity(name).curves(whole).keys() == Quantity(name).curves(searched).keys(), name


def test_an_absent_quantity_has_a_reason() -> None:
    for name, optimizer, diagnosed, reason in (
        ("projection", "adamw", True, "no projection: only adamp and sgdp have one"),
        ("norm", "adamw", False, "no scale-invariant tensors"),
        ("projection", "adamp", True, "or it was trained without"),
        ("test_loss_of_another", "adamw", True, "no test_loss_of_another in the store"),
    ):
        found = measured(optimizer=optimizer, diagnosed=diagnosed)
        assert Quantity(name).surface(found) is None, name
        assert Quantity(name).curves(found) == {}, name
        assert reason in Quantity(name).absence(found), name
    assert Quantity("norm").absence(study()) == "no norm: the study has no learning curves"


def test_names_are_resolved_to_pictures_diagnostics_or_measures() -> None:
    found = [study(), measured()]
    names = ["scatter", "curves", *DIAGNOSTICS, "val_loss", "test_error", "train_loss"]
    assert resolved(names, found) == names
    assert resolved(["effective-lr", "norm", "effective_lr"], found) == ["effective_lr", "norm"]
    with pytest.raises(UnknownName, match=r"unknown name for --show 'nrm'; did you mean norm\?"):
        resolved(["norm", "nrm"], found)
    foreign = [replace(trial, metrics={"top-1": 0.5}) for trial in study().trials]
    assert resolved(["top-1"], [replace(study(), trials=tuple(foreign))]) == ["top-1"]


def test_pictures_stand_for_their_quantities() -> None:
    names = [quantity.name for quantity in quantities(["scatter", "curves", "norm", "norm"])]
    assert names == ["train_loss", "test_error", "val_error", "norm"]


def test_scatter_has_a_point_for_every_complete_cell() -> None:
    found = [measured("a", "adam"), measured("b", "adamw")]
    chart = scatter(found)
    assert abouts(chart) == ["adam", "adamw"]
    assert chart is not None
    mean = found[0].surface.mean
    mean = mean[np.isfinite(mean)]
    assert len(mean) == 22
    for series in chart.series:
        assert series.x == pytest.approx(mean / EPOCHS)
        assert series.y == pytest.approx(mean / 2)
    assert chart.title == "test_error by train_loss, every point a cell"
    assert scatter([study()]) is None


def test_curves_of_one_study_are_those_of_its_best_cell_row_and_column() -> None:
    chart = curves([measured()], Quantity("val_loss"))
    assert abouts(chart) == [
        "best cell: α 2⁻⁷, λ 2⁻⁵",
        "same α, λ 2⁻⁷",
        "same α, λ 2⁻³",
        "α 2⁻⁸, same λ",  # at the lowest α a seed is missing
        "α 2⁻⁵, same λ",
    ]
    assert chart is not None
    assert chart.series[0].y[-1] == pytest.approx(measured().surface.mean[2, 2])


def test_curves_of_several_studies_are_those_of_their_best_cells() -> None:
    chart = curves([measured("a", "adam"), measured("b", "adamw")], Quantity("val_loss"))
    assert abouts(chart) == ["adam, best: α 2⁻⁷, λ′ 2⁻⁵", "adamw, best: α 2⁻⁷, λ 2⁻⁵"]
    assert chart is not None
    assert chart.title == "val_loss by epoch, mean of 3 seeds"
    assert (chart.x.low, chart.x.high) == (1, EPOCHS)


def test_curves_of_a_single_row_are_five_weight_decays() -> None:
    lattice = Lattice((0.001,), tuple(2.0 ** np.arange(-12, 0)))
    trials = [
        Trial(cell, 0, Status.COMPLETE, {"val_loss": loss}, {"val_loss": (1.0, loss)})
        for cell, loss in zip(lattice.cells(), np.linspace(0.1, 0.9, 12), strict=True)
    ]
    spec = StudySpec(Kind.GRID, Optimizer.parse("adamw"), lattice, (0,), "val_loss", Task())
    chart = curves([result("row", spec, "", trials)], Quantity("val_loss"))
    others = [f"same α, λ 2⁻{power}" for power in ("¹¹", "⁸", "⁴", "¹")]
    assert abouts(chart) == ["best cell: α 0.001, λ 2⁻¹²", *others]
    assert chart is not None
    assert chart.title.endswith("one seed")


def test_without_curves_or_a_best_cell_there_is_no_chart() -> None:
    lost = [trial for trial in measured().trials if trial.status is not Status.COMPLETE]
    assert curves([result("lost", measured().spec, "", lost)], Quantity("val_loss")) is None
    assert curves([study()], Quantity("val_loss")) is None


def test_a_diagnostic_has_no_best_cell_and_a_metric_has() -> None:
    for name in DIAGNOSED:
        text = shown(name)
        for mark in ("★", "○ ten", "┃", "best of", "row's best"):
            assert mark not in text.split(" by epoch")[0], (name, mark)
        assert "× diverged" in text, name
        assert name in text
    text = shown("val_error")
    assert "★ best" in text
    assert "row's best, the ridge" in text


def test_a_diagnostic_over_decades_is_drawn_by_its_logarithm() -> None:
    (picture,) = pictures([measured()], ["norm"])
    assert picture.heatmaps[0][1].surface.metric == "norm"  # 16 times from end to end
    trials = tuple(replace(t, curves={**t.curves, "norm": (1e5,)}) for t in measured("b").trials)
    (picture,) = pictures([measured(), replace(measured("b"), trials=trials)], ["norm"])
    assert {heatmap.surface.metric for _, heatmap in picture.heatmaps} == {"log10 of norm"}
    top = picture.heatmaps[1][1].surface.mean
    assert top[np.isfinite(top)] == pytest.approx(5)


def test_pictures_without_heatmaps() -> None:
    text = shown("projection")
    assert "adam, adamw: no projection: only adamp and sgdp have one\n" in text
    assert "numbers" not in text
    assert "test_error by train_loss, every point a cell" in shown("scatter")
    text = shown("curves")
    assert "val_error by epoch" in text
    assert "train_loss (log) by epoch" in text
    assert "numbers" not in text


def test_heatmap_of_a_preset_is_the_reports_own() -> None:
    assert shown("heatmap") == ""
    assert shown("heatmap", "norm") == shown("norm", "norm")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean rotation"):
        pictures([measured()], ["rotations"])


def test_pictures_fit_the_console_and_its_characters() -> None:
    names = (*DIAGNOSED, "scatter", "curves", "projection", "val_error")
    for width in (40, 80, 120):
        assert max(map(cell_len, shown(*names, width=width).splitlines())) <= width
    assert shown(*names, width=80, encoding="ascii").isascii()


def test_json_holds_the_means_or_the_reason() -> None:
    results = [measured("a", "adam"), measured("b", "adamw")]
    content = document(results, (), (), quantities(["norm", "projection"]))
    assert faults(json.loads(dumps(content)), "report") == []
    norm, projection = content["studies"][1]["shown"]
    assert (norm["name"], norm["meaning"], norm["reason"]) == ("norm", "norm", "")
    assert [cell["value"] for cell in norm["cells"][:4]] == [None, None, None, pytest.approx(0.625)]
    assert projection["cells"] == []
    assert projection["reason"].startswith("no projection")
    assert "shown" not in document(results)["studies"][0]


def test_markdown_holds_the_heatmaps_as_tables() -> None:
    found = [measured()]
    text = markdown(found, (), (), pictures(found, ["norm", "projection"]))
    section = text.split("## `norm`")[1]
    assert "| 2⁻⁵ | .08 | .16 | .31 | .62 | 1.25 |" in section
    assert "bold" not in section
    assert "no projection" in section


def test_html_holds_lattices_and_charts() -> None:
    found = [measured()]
    page = html(found, (), (), pictures(found, ["norm", "scatter", "projection"]))
    norm, scattered = page.split('id="shown-0"')[1].split('id="shown-1"')
    assert norm.count('data-cell="') == 25
    assert 'class="chart"' in norm
    assert "<polyline points=" in norm
    assert "<polyline points=" not in scattered.split("</section>")[0]
    assert "no projection" in scattered


def test_hostile_names_are_harmless_in_every_format() -> None:
    found = [measured(HOSTILE), measured(f"{HOSTILE}2")]
    drawings = pictures(found, ["norm", "scatter", "projection"])
    page = html(found, (), (), drawings)
    texts = "".join(drawn(picture, 200) for picture in drawings), markdown(found, (), (), drawings), page
    assert not any(map(harmful, texts))
    assert page.count("<script") == html(found).count("<script")
