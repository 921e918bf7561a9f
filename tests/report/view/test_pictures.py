"""Pictures by name: heatmaps without a best cell where there is none, charts, and what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.cells import cell_len

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.report.view.document import document, dumps
from lrwd_sweep.report.view.html import html
from lrwd_sweep.report.view.markdown import markdown
from lrwd_sweep.report.view.pictures import pictures, show_renderables
from lrwd_sweep.report.view.quantity import quantities
from tests.report.view.examples import HOSTILE, drawn
from tests.report.view.measured import DIAGNOSED, measured
from tests.report.view.schema import faults


def shown(*names: str, width: int = 100, encoding: str = "utf-8") -> str:
    """What a console prints of them for two studies."""
    results = [measured("a", "adam"), measured("b", "adamw")]
    return "".join(drawn(found, width, encoding) for found in show_renderables(results, names))


@pytest.mark.parametrize("name", DIAGNOSED)
def test_a_diagnostic_has_no_best_cell_and_no_ridge(name: str) -> None:
    text = shown(name)
    for mark in ("★", "○ ten", "┃", "best of", "row's best"):
        assert mark not in text.split(" by epoch")[0]
    assert "× diverged" in text
    assert name in text


def test_a_metric_is_drawn_as_in_the_report() -> None:
    text = shown("val_error")
    assert "★ best" in text
    assert "row's best, the ridge" in text


def test_a_diagnostic_over_decades_is_drawn_by_its_logarithm() -> None:
    found = [measured()]
    (picture,) = pictures(found, ["norm"])
    assert picture.heatmaps[0][1].surface.metric == "norm"  # 16 times from end to end
    wide = [measured(), measured("b")]
    for trial in wide[1].trials:
        trial.curves["norm"] = (1e5,)  # type: ignore[index]
    (picture,) = pictures(wide, ["norm"])
    assert {heatmap.surface.metric for _, heatmap in picture.heatmaps} == {"log10 of norm"}
    top = picture.heatmaps[1][1].surface.mean
    assert top[np.isfinite(top)] == pytest.approx(5)


def test_studies_without_it_share_one_line() -> None:
    text = shown("projection")
    assert "adam, adamw: no projection: only adamp and sgdp have one\n" in text
    assert "numbers" not in text


def test_pictures_made_of_two_measures() -> None:
    assert "test_error by train_loss, every point a cell" in shown("scatter")
    text = shown("curves")
    assert "val_error by epoch" in text
    assert "train_loss (log) by epoch" in text
    assert "numbers" not in text


def test_a_presets_heatmap_is_the_reports_own() -> None:
    assert shown("heatmap") == ""
    assert shown("heatmap", "norm") == shown("norm", "norm")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean rotation"):
        pictures([measured()], ["rotations"])


@pytest.mark.parametrize("width", [40, 80, 120])
def test_everything_fits_and_is_ascii_where_it_must(width: int) -> None:
    names = (*DIAGNOSED, "scatter", "curves", "projection", "val_error")
    assert max(map(cell_len, shown(*names, width=width).splitlines())) <= width
    assert shown(*names, width=width, encoding="ascii").isascii()


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
    text = markdown(found, (), pictures(found, ["norm", "projection"]))
    section = text.split("## `norm`")[1]
    assert "| 2⁻⁵ | .08 | .16 | .31 | .62 | 1.25 |" in section
    assert "bold" not in section
    assert "no projection" in section


def test_html_holds_lattices_and_charts() -> None:
    found = [measured()]
    page = html(found, (), (), pictures(found, ["norm", "scatter", "projection"]))
    norm, scatter = page.split('id="shown-0"')[1].split('id="shown-1"')
    assert norm.count('data-cell="') == 25
    assert 'class="chart"' in norm
    assert "<polyline points=" in norm
    assert "<polyline points=" not in scatter.split("</section>")[0]
    assert "no projection" in scatter


def test_hostile_names_are_harmless_everywhere() -> None:
    found = [measured(HOSTILE), measured(f"{HOSTILE}2")]
    drawn_ = pictures(found, ["norm", "scatter", "projection"])
    page = html(found, (), (), drawn_)
    texts = ["".join(drawn(picture, 200) for picture in drawn_), markdown(found, (), drawn_), page]
    for text in texts:
        assert not {"\x1b", "\u202e", "\x9b"} & set(text)
    assert page.count("<script") == html(found).count("<script")
