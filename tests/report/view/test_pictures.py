"""Heatmaps and charts fit their console and show every value, mark and series of every quantity."""

import json
import re
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.report.view import pictures as views
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.line_chart import MARKS, Chart, Range, Series
from lrwd_sweep.report.view.paper_figure import colour_scale
from lrwd_sweep.report.view.pictures import Quantity, curves, resolved, scatter, show_renderables
from lrwd_sweep.report.view.tiles import Mark, Numbers, Scale, Tiles, colour, dimmed, text_on
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.separability import analyse
from lrwd_sweep.science.surface import CellStatus, Float
from lrwd_sweep.science.trial import Direction, Status
from tests import studies
from tests.report.view.examples import EPOCHS, drawn, known, measured, stopped, study, surface, valley
from tests.report.view.schema import faults

TERMINAL: Any = {"force_terminal": True, "color_system": "truecolor"}


def two() -> list[Result]:
    return [measured("a", "adam"), measured("b", "adamw")]


def shown(*names: str, width: int = 100, encoding: str = "utf-8") -> str:
    return "".join(drawn(found, width, encoding) for found in show_renderables(two(), names))


def check(chart: Chart | None, title: str, *abouts: str) -> Chart:
    assert (known(chart).title, [series.about for series in known(chart).series]) == (title, [*abouts])
    return known(chart)


def test_quantities_have_surfaces_and_names_or_a_reason_if_absent() -> None:
    names = ("val_loss", "norm", "effective_lr")
    loss, norm, rate = (known(Quantity(name).surface(measured())) for name in names)
    assert np.array_equal(loss.mean, measured().surface.mean, equal_nan=True)
    assert norm.mean[1:, :] == pytest.approx(np.tile(norm.weight_decay * EPOCHS, (4, 1)))
    assert rate.mean[1:, 0] == pytest.approx(rate.lr[1:] * (1 - 2.0**-EPOCHS) / EPOCHS)
    assert (norm.metric, norm.cap, rate.metric) == ("norm", None, "effective_lr, mean over the epochs")
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
    return lines(*(Series(f"number {k}", THIRTY, 2.0**-k / THIRTY) for k in range(count)), joined=joined)


def test_lines_are_drawn_without_infinite_or_absurd_values() -> None:
    text = drawn(chart(2), 60)
    assert (text.startswith(DRAWN), text.splitlines()[-4].count("┬")) == (True, 3), text
    assert "\x1b[38" in drawn(chart(), **TERMINAL)
    gone = Series("gone", THIRTY, np.full(30, np.nan))
    assert Chart.of("", "y", "epoch", [gone], joined=True) is None
    found = lines(gone, Series("broken", THIRTY, np.where(THIRTY < 20, 1 / THIRTY, np.inf)))
    assert ([series.about for series in found.series], found.x.high) == (["broken"], 19)
    for absurd in (6e15, -6e15):
        found = lines(Series("a", THIRTY, np.where(THIRTY == 4, absurd, 2.0 / THIRTY)))
        assert 0 < found.y.low < found.y.high <= 2.0, absurd
        assert found.title.endswith("mean of 3 seeds; points far off are drawn on the rim")
    assert len(Range(0.3, 0.301, log=True).ticks()) >= 2, "even ones between powers of ten"


@given(st.integers(20, 140), st.integers(1, 9), st.booleans(), st.sampled_from(["utf-8", "ascii"]))
def test_chart_fits_and_shows_every_series(width: int, count: int, joined: bool, encoding: str) -> None:
    assert drawn(chart(count, joined=joined), width, encoding).isascii() == (encoding == "ascii")
    text = drawn(chart(count, joined=joined), 140)
    plot = "".join(line.partition("┤")[2] or line.partition("│")[2] for line in text.splitlines())
    assert joined or set(plot) == {" ", *MARKS[:count]}
    assert all(mark in plot and f"{mark} number {k}" in text for k, mark in enumerate(MARKS[:count]))


LATTICE = """\
adamw   θ ← θ − η(α m̂/(√v̂+ε) + λθ)
2⁻¹   .524    .269 ┃.164○ .209○ .404
2⁻²   .487    .232 ┃.127○ .172○ .366
2⁻³   .474    .219○┃.114★ .159○ .354
2⁻⁴   .487    .232○┃.127○ .172○ .366
2⁻⁵   .774     ×     !     ·   │.654
α↑λ→  0       2⁻⁴   2⁻³   2⁻²   2⁻¹
numbers: val_loss, mean of 3 seeds
rows: learning rate α; columns: weight decay λ (independent)
★ best   ○ ten best   ┃ row's best, the ridge
│ row's best, not in the slope   × diverged   ! failed
· missing
"""


def test_lattice_with_baseline_and_lost_cells_is_drawn_as_stored_here() -> None:
    found = surface(np.stack([valley(5, 5) + seed / 1000 for seed in range(3)], axis=2), baseline=True)
    found.values[0, 1:4] = np.nan
    for j, status in enumerate((CellStatus.DIVERGED, CellStatus.FAILED, CellStatus.MISSING), start=1):
        found.lanes[0, j] = status.value
    heatmap = Heatmap(found, "adamw", Optimizer.parse("adamw").formula, separability=analyse(found))
    assert drawn(heatmap, 60) == LATTICE
    text = " ".join(drawn(heatmap, 60, "ascii").split())
    for part in ("+ lambda*theta)", "2^-3 .474 .219o|.114* .159o .354", "x ! . :.654 lr^wd> 0", ". missing"):
        assert part in text, part
    assert "8;" not in drawn(heatmap, **TERMINAL, no_color=True)  # neither 38; nor 48;


def test_numbers_become_relative_or_digits_and_no_row_wraps() -> None:
    text = drawn(Heatmap(surface(2310 + valley()), "t"))
    assert ("above the best (2310.1" in text, "┃  0★" in text) == (True, True)
    text = drawn(Heatmap(surface(valley(6, 25)), "t"), 60)
    assert "digits: tenths of the scale" in text
    assert all(set(row[6:]) <= set("0123456789★○┃ ") for row in text.splitlines()[1:7])
    capped = drawn(Heatmap(surface(np.array([[0.5, 0.4], [2.3, 2.3]]), cap=0.45), "t"))
    assert (capped.count("★ "), ".400★" in capped, "2.30" in capped) == (1, True, True)
    text = drawn(Heatmap(surface(valley())), force_terminal=True, color_system="standard")
    assert re.search(r"\x1b\[[\d;]*30;43m[^\x1b]*\d★", text), "the best is black on yellow"
    pair = Gallery([Heatmap(surface(valley()), "one"), Heatmap(surface(valley(diagonal=True)), "two")])
    assert ["two" in drawn(pair, width).splitlines()[0] for width in (170, 100)] == [True, False]
    assert drawn(pair, 170).count("★ best") == 1  # one legend
    values = np.ones((100, 100)) + np.random.default_rng(0).random((100, 100))
    values[37, 61] = 0.5
    text = drawn(Gallery([Heatmap(surface(values), "t")], max_rows=25))
    assert text.splitlines()[1 + (99 - 37) // 4].count("★") == 1
    assert "thinned: each tile is the best of 4×2 cells" in text
    for rows, columns, width in ((1, 1, 8), (1, 7, 30), (7, 1, 80), (40, 25, 8), (40, 25, 170), (11, 12, 30)):
        lines = drawn(Heatmap(surface(valley(rows, columns), baseline=columns > 7), ""), width).splitlines()
        assert lines[rows].startswith("α↑"), (rows, columns, width)


def test_cells_that_lack_seeds_are_drawn_pale_and_rank_nowhere() -> None:
    found = stopped().surface
    assert {tile.mark for tile in Tiles.of(found).every} == {Mark.PARTIAL, Mark.MISSING}
    text = " ".join(drawn(Heatmap(found, "t"), 20).split())
    assert "some seeds are missing (42 of 147 runs)" in text
    assert (text.count("~"), "best" in text) == (43, False)
    pale = next(tile for tile in Tiles.of(found).every if tile.mark is Mark.PARTIAL)
    assert pale.colour(Scale(0, 1)) == dimmed(colour(Scale(0, 1).goodness(pale.value or 0)))
    assert "○" not in drawn(Heatmap(surface(valley(3, 3)), "t")), "the ten best of nine are all"


def scale_of(*values: Float, direction: Direction = Direction.MINIMIZE, ranked: bool = True) -> Scale:
    return known(Scale.of([replace(surface(each), direction=direction) for each in values], ranked=ranked))


@given(st.lists(st.floats() | st.just(0.0), min_size=12, max_size=12), st.integers(5, 100))
def test_any_values_are_drawn_within_the_width(values: list[float], width: int) -> None:
    grid = np.array(values).reshape(3, 4)
    finite = np.where(np.isfinite(grid) & (np.abs(grid) < 1e150), grid, np.nan)
    drawn(Heatmap(surface(finite), ""), width)


def test_scale_spans_all_surfaces_and_clips_one_absurd_value() -> None:
    assert scale_of(valley(), valley() - 0.05).bright == pytest.approx(float(valley().min()) - 0.05)
    reach = 2 * (np.median(valley()) - valley().min())  # of the ramp, to twice the height of the better half
    assert scale_of(valley()).dark == pytest.approx(float(valley().min() + reach))
    assert scale_of(np.full((3, 3), 0.5)).goodness(0.5) == 1.0
    for absurd, direction in product((6e15, -6e15), Direction):
        values = valley()
        values[3, 3] = absurd
        ordinary, scale = scale_of(valley(), direction=direction), scale_of(values, direction=direction)
        assert (scale.bright, scale.dark) == pytest.approx((ordinary.bright, ordinary.dark), rel=0.05)
        better = (absurd > 0) is (direction is Direction.MAXIMIZE)
        assert (scale.clipped_bright, scale.clipped) == (better, ordinary.clipped or not better)
        assert scale.goodness(absurd) == better
        beyond = "above" if absurd > 0 else "below"
        assert any(end.endswith(f"and {beyond} (clipped)") for end in scale.ends)
        diagnostic = scale_of(values, ranked=False)
        assert (diagnostic.clipped_bright, diagnostic.clipped) == (absurd < 0, absurd > 0)
        assert Numbers.relative(scale_of(2310 + values)).text(absurd) == (">" if absurd > 0 else "<")
    assert [Scale(1, 2).digit(value) for value in (1, 1.15, 2)] == ["0", "1", "9"]
    assert [text_on(colour(k)) for k in (0, 1)] == [(255,) * 3, (0,) * 3]  # white on dark, black on bright


def test_a_maximised_study_is_drawn_as_its_negative() -> None:
    low = studies.plain(studies.study(studies.ridge, "low"))
    high = studies.mirrored(low)
    marks = [Tiles.of(each.surface, each.separability).every for each in (low, high)]
    assert [(t.mark, t.ridge) for t in marks[0]] == [(t.mark, t.ridge) for t in marks[1]]
    ((pooled, *_),) = Tiles.of(high.surface, pool=(7, 7)).rows
    assert pooled.value == high.ranked(1)[0].value
    scale, (norm, ramp, _) = known(Scale.of([low.surface])), colour_scale([high.surface])
    assert (norm.vmin, norm.vmax) == (-scale.dark, -scale.bright)
    assert ramp(1.0) == colour_scale([low.surface])[1](0.0)
    text = drawn(Heatmap(replace(surface(2310 - valley()), direction=Direction.MAXIMIZE), "t"))
    for part in ("below the best (2309.8", "┃ 0★", "higher is better"):
        assert part in " ".join(text.split()), part
