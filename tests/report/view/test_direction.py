"""A maximised study is the mirror image of a minimised one: same marks, same advice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lrwd_sweep.api import Comparison, Study
from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import comparison, refuse_two_directions, result
from lrwd_sweep.report.view.fields import task_text
from lrwd_sweep.report.view.figure_panel import colour_scale
from lrwd_sweep.report.view.heatmap import Heatmap
from lrwd_sweep.report.view.output_file import Format
from lrwd_sweep.report.view.pictures import Quantity
from lrwd_sweep.report.view.report import render, text_of
from lrwd_sweep.report.view.scale import Scale
from lrwd_sweep.report.view.svg_curves import chosen_cells
from lrwd_sweep.report.view.tiles import Tiles
from lrwd_sweep.science.trial import Direction
from tests.report.view.examples import drawn, surface, valley
from tests.studies import bowl, mirrored, plain, ridge, study

LOW = plain(study(ridge, "low"))
HIGH = mirrored(LOW)


def test_the_best_the_ridge_and_the_verdict_are_those_of_the_mirrored_surface() -> None:
    assert HIGH.best == LOW.best
    assert HIGH.ranked(10) == [replace(c, value=-c.value) for c in LOW.ranked(10)]
    assert HIGH.surface.best() == LOW.surface.best()
    assert HIGH.separability.ridge == LOW.separability.ridge
    assert HIGH.separability.ridge_slope == LOW.separability.ridge_slope
    assert HIGH.separability.transfer_regret == LOW.separability.transfer_regret
    assert all((regret.estimate.value or 0) >= 0 for regret in HIGH.separability.transfer_regret)


def test_marks_and_colours_are_those_of_the_mirrored_surface() -> None:
    low, high = (Tiles.of(each.surface, each.separability) for each in (LOW, HIGH))
    for ours, theirs in zip(low.rows, high.rows, strict=True):
        assert [(t.mark, t.ridge) for t in ours] == [(t.mark, t.ridge) for t in theirs]
    scale, mirror = Scale.of([LOW.surface]), Scale.of([HIGH.surface])
    assert scale is not None
    assert mirror is not None
    assert (mirror.bright, mirror.dark) == (-scale.bright, -scale.dark)
    assert mirror.goodness(-0.15) == scale.goodness(0.15)
    norm, ramp, _ = colour_scale([HIGH.surface])
    assert norm.vmin is not None
    assert norm.vmax is not None
    assert norm.vmin < norm.vmax
    assert ramp(1.0) == colour_scale([LOW.surface])[1](0.0)


def test_pooled_tiles_show_the_highest_of_their_cells() -> None:
    (row,) = Tiles.of(HIGH.surface, pool=(7, 7)).rows
    assert row[0].value == HIGH.ranked(1)[0].value


def test_relative_numbers_lie_below_the_best() -> None:
    higher = replace(surface(2310 - valley()), direction=Direction.MAXIMIZE)
    text = drawn(Heatmap(higher, "t"))
    assert "below the best (2309.8" in text
    assert "┃  0★" in text
    assert "higher is better" in " ".join(text.split())


def test_every_format_says_which_end_is_better() -> None:
    for form in (Format.TABLE, Format.MARKDOWN, Format.HTML):
        text = text_of(render([HIGH], [], form))
        assert "higher is better" in text, form
        assert "a higher val_loss is better" in text.replace("\\_", "_"), form
        lower = text_of(render([LOW], [], form))
        assert "higher is better" not in lower.replace("of which higher is better", ""), form


def test_minimising_a_metric_named_like_a_score_is_mentioned() -> None:
    trials = [replace(t, metrics={"acc": t.metrics["val_loss"]}) for t in LOW.trials]
    assert "a lower acc is better" in task_text(result("acc", replace(LOW.spec, metric="acc"), "", trials))


def test_json_names_direction_and_cap() -> None:
    (ours,) = json.loads(text_of(render([HIGH], [], Format.JSON)))["studies"]
    assert (ours["direction"], ours["cap"]) == ("maximize", None)
    assert ours["best"]["value"] == HIGH.ranked(1)[0].value
    (theirs,) = json.loads(text_of(render([LOW], [], Format.JSON)))["studies"]
    assert theirs["direction"] == "minimize"


def test_the_worst_curve_is_that_of_the_lowest_value() -> None:
    assert dict(chosen_cells(HIGH)) == dict(chosen_cells(LOW))
    i, j = dict(chosen_cells(HIGH))["worst"]
    assert HIGH.surface.mean[i, j] == HIGH.surface.mean.min()


def test_recommended_cells_are_those_of_the_mirrored_surface() -> None:
    low, high = recommendations(LOW), recommendations(HIGH)
    assert [(c.role, c.cell) for c in low.cells] == [(c.role, c.cell) for c in high.cells]
    for ours, theirs in zip(low.cells, high.cells, strict=True):
        assert ours.around is not None
        assert theirs.around is not None
        assert (theirs.around.mean, theirs.around.worst) == (-ours.around.mean, -ours.around.worst)


def test_the_difference_of_best_values_keeps_the_metrics_sign() -> None:
    better = mirrored(plain(study(lambda a, b: bowl(a, b) - 0.05, "better")))
    found = comparison(mirrored(plain(study(bowl, "a"))), better).comparison.best_difference
    assert found.value is not None
    assert found.value == pytest.approx(0.05)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    other_way = comparison(better, mirrored(plain(study(bowl, "a")))).comparison.best_difference
    assert other_way.value == pytest.approx(-0.05)


def test_a_maximised_and_a_minimised_study_of_one_metric_are_not_compared() -> None:
    with pytest.raises(
        UsageError, match=r"a higher val_loss is better in study 'low', a lower one in 'other'"
    ):
        comparison(HIGH, replace(LOW, name="other"))
    with pytest.raises(UsageError, match="give maximize=True or minimize=True for both"):
        refuse_two_directions([replace(LOW, name="other"), HIGH])
    with pytest.raises(UsageError, match="a higher val_loss"):
        Comparison(Study(HIGH, Path("x")), Study(replace(LOW, name="other"), Path("x")))


def test_a_cap_of_a_maximised_metric_leaves_out_what_is_lower() -> None:
    capped = result("c", replace(HIGH.spec, given_cap=-0.15), "", HIGH.trials)
    assert (capped.surface.out == (capped.surface.values <= -0.15).any(axis=2)).all()
    assert len(capped.ranked(100)) == int((~capped.surface.out).sum())
    assert "cells at or below the cap of -0.15 are out" in task_text(capped)


def test_another_metric_asks_for_its_direction() -> None:
    trials = [replace(t, metrics={**t.metrics, "val_acc": -t.metrics["val_loss"]}) for t in LOW.trials]
    with pytest.raises(UsageError, match="add maximize=True"):
        result("a", LOW.spec, "", trials, metric="val_acc")
    found = result("a", LOW.spec, "", trials, metric="val_acc", direction=Direction.MAXIMIZE)
    assert found.best == LOW.best
    assert found.spec.direction is Direction.MAXIMIZE
    lowest = result("a", LOW.spec, "", trials, metric="val_acc", direction=Direction.MINIMIZE)
    assert lowest.best != LOW.best
    shown = Quantity("val_acc").surface(result("a", LOW.spec, "", trials))
    assert shown is not None
    assert shown.best() == LOW.surface.best()


def test_metrics_that_lrwd_sweep_measures_are_never_maximised() -> None:
    ours = study(bowl)
    with pytest.raises(UsageError, match="maximize=True: a lower val_loss is better"):
        result("a", ours.spec, "", ours.trials, direction=Direction.MAXIMIZE)
    assert np.isfinite(
        result("a", ours.spec, "", ours.trials, direction=Direction.MINIMIZE).surface.mean
    ).all()
