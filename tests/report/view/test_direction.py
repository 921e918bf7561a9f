"""A maximised study has the marks and the advice of its negative, which is minimised."""

import json
from dataclasses import replace

from lrwd_sweep.report.result import result
from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.report.view.heatmap import Heatmap
from lrwd_sweep.report.view.paper_figure import colour_scale
from lrwd_sweep.report.view.pictures import chosen_cells
from lrwd_sweep.report.view.tables import task_text
from lrwd_sweep.report.view.tiles import Scale, Tiles
from lrwd_sweep.science.trial import Direction
from tests.report.view.examples import drawn, surface, valley
from tests.studies import mirrored, plain, ridge, study

LOW = plain(study(ridge, "low"))
HIGH = mirrored(LOW)


def test_best_cells_marks_colours_verdict_and_advice_are_mirrored() -> None:
    assert HIGH.ranked(10) == [replace(c, value=-c.value) for c in LOW.ranked(10)]
    assert HIGH.surface.best() == LOW.surface.best()
    for name in ("ridge", "ridge_slope", "transfer_regret"):
        assert getattr(HIGH.separability, name) == getattr(LOW.separability, name), name
    assert dict(chosen_cells(HIGH)) == dict(chosen_cells(LOW))
    assert HIGH.surface.mean[dict(chosen_cells(HIGH))["worst"]] == HIGH.surface.mean.min()
    low, high = (Tiles.of(each.surface, each.separability) for each in (LOW, HIGH))
    assert [(t.mark, t.ridge) for t in low.every] == [(t.mark, t.ridge) for t in high.every]
    ((pooled, *_),) = Tiles.of(HIGH.surface, pool=(7, 7)).rows
    assert pooled.value == HIGH.ranked(1)[0].value
    scale, (norm, ramp, _) = Scale.of([LOW.surface]), colour_scale([HIGH.surface])
    assert scale is not None
    assert (norm.vmin, norm.vmax) == (-scale.dark, -scale.bright)
    assert ramp(1.0) == colour_scale([LOW.surface])[1](0.0)
    text = drawn(Heatmap(replace(surface(2310 - valley()), direction=Direction.MAXIMIZE), "t"))
    for part in ("below the best (2309.8", "┃ 0★", "higher is better"):
        assert part in " ".join(text.split()), part


def test_every_format_says_which_end_is_better() -> None:
    for form in (Format.TABLE, Format.MARKDOWN, Format.HTML):
        text, lower = (text_of(render([each], [], form, full=True)) for each in (HIGH, LOW))
        assert "a higher val_loss is better" in text.replace("\\_", "_"), form
        assert "higher is better" not in lower.replace("of which higher is better", ""), form
    for each, direction in ((HIGH, "maximize"), (LOW, "minimize")):
        (found,) = json.loads(text_of(render([each], [], Format.JSON)))["studies"]
        assert (found["direction"], found["best"]["value"]) == (direction, each.ranked(1)[0].value)
    capped = result("c", replace(HIGH.spec, given_cap=-0.15), "", HIGH.trials)
    assert "cells at or below the cap of -0.15 are out" in task_text(capped)
    trials = [replace(t, metrics={"acc": t.metrics["val_loss"]}) for t in LOW.trials]
    assert "a lower acc is better" in task_text(result("acc", replace(LOW.spec, metric="acc"), "", trials))
