"""A study that was stopped shows what it has, marked, and calls nothing best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.formats import Format
from lrwd_sweep.report.view.heatmap import Heatmap
from lrwd_sweep.report.view.html.legend import Legend
from lrwd_sweep.report.view.notebook import fragment
from lrwd_sweep.report.view.ramp import dimmed
from lrwd_sweep.report.view.report import render, text_of
from lrwd_sweep.report.view.tables import Report
from lrwd_sweep.report.view.tiles import Mark, Tiles
from tests.report.view.examples import drawn
from tests.studies import study, without


def stopped() -> Result:
    """A 7×7 study of three seeds: one of each cell, but for the last row."""
    every = [(i, j, seed) for i in range(7) for j in range(7) for seed in range(3)]
    return without(study(), *(lane for lane in every if lane[2] or lane[0] == 6))


def test_cells_that_lack_seeds_are_drawn_and_count_for_nothing() -> None:
    tiles = Tiles.of(stopped().surface)
    every = [tile for row in tiles.rows for tile in row]
    assert {tile.mark for tile in every} == {Mark.PARTIAL, Mark.MISSING}
    assert not any(tile.ridge.marked for tile in every)
    assert sum(tile.value is not None for tile in every) == 42


@pytest.mark.parametrize("width", [80, 26, 20])
def test_the_legend_counts_the_runs(width: int) -> None:
    text = " ".join(drawn(Heatmap(stopped().surface, "t"), width).split())
    assert "some seeds are missing (42 of 147 runs)" in text
    assert "mean of the seeds so far" in text
    assert "best" not in text


def test_a_cell_that_lacks_seeds_is_marked_without_colour_and_dimmed_with() -> None:
    assert drawn(Heatmap(stopped().surface, "t"), 80).count("~") == 43
    assert drawn(Heatmap(stopped().surface, "t"), 80, "ascii").count("~") == 43
    coloured = drawn(Heatmap(stopped().surface, "t"), force_terminal=True, color_system="truecolor")
    whole = drawn(Heatmap(study().surface, "t"), force_terminal=True, color_system="truecolor")
    assert "\x1b[2" in coloured or ";2;" in coloured
    assert coloured.split("\n")[3] != whole.split("\n")[3]
    assert dimmed((255, 0, 128)) == (191, 64, 128)


def test_no_edge_is_told_of_a_best_cell_that_does_not_exist() -> None:
    text = drawn(Report([stopped()]), 100)
    (edge,) = (line for line in text.splitlines() if "on the lattice's edge" in line)
    assert edge.split()[-1] == "–"
    assert "42 of 147 runs" in text


def test_why_nothing_is_determined_is_said_once() -> None:
    text = drawn(Report([stopped()]), 200)
    assert text.count("too few cells") == 1
    assert text.count("undetermined: ") == 0


def test_every_form_draws_and_marks_them(tmp_path: Path) -> None:
    found = stopped()
    markdown = text_of(render([found], [], Format.MARKDOWN))
    assert markdown.count("~ |") == 42
    assert "~ some seeds are missing (42 of 147 runs)" in markdown
    page = text_of(render([found], [], Format.HTML))
    for text in (page, fragment([found])):
        assert "some seeds are missing (42 of 147 runs)" in text
        assert text.count("~</text>") == 42
    assert Legend.of("val_loss", [study()]).partial == ""


def test_json_holds_their_means_apart() -> None:
    (found,) = json.loads(text_of(render([stopped()], [], Format.JSON)))["studies"]
    assert found["runs"] == {"done": 42, "all": 147}
    assert found["best"] is None
    partial = [cell["partial_value"] for cell in found["cells"]]
    assert partial.count(None) == 7
    assert all(cell["value"] is None for cell in found["cells"])
    whole = json.loads(text_of(render([study()], [], Format.JSON)))["studies"][0]
    assert {cell["partial_value"] for cell in whole["cells"]} == {None}


def test_a_complete_cell_is_best_even_where_a_partial_one_is_lower() -> None:
    found = without(study(), (3, 3, 0))
    best = found.surface.best()
    assert best is not None
    assert best != (3, 3)
    tiles = Tiles.of(found.surface, found.separability)
    assert tiles.rows[3][3].mark is Mark.PARTIAL
    assert np.isfinite(found.surface.mean_so_far[3, 3])
    assert found.best == found.surface.cell(*best)


def test_a_figure_is_drawn_of_them(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from lrwd_sweep.report.view.figure import save_figure

    save_figure([stopped(), study(name="whole")], tmp_path / "f.svg")
    text = (tmp_path / "f.svg").read_text()
    assert "opacity: 0.45" in text
