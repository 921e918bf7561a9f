"""A preset's page and the list of presets: whole, in 80 columns, in ASCII where need be."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.cells import cell_len

from lrwd_sweep.report.view.preset_list import PresetList
from lrwd_sweep.report.view.preset_page import PresetPage, duration
from lrwd_sweep.spec.preset import find_preset, preset_names
from tests.report.view.examples import HOSTILE, drawn
from tests.spec.test_preset import studies, task


def page(name: str) -> PresetPage:
    """The page of a preset that comes with the package."""
    return PresetPage(find_preset(name), name, studies(name), "about a minute")


def flat(text: str) -> str:
    """Text as it was before it was wrapped."""
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_every_page_fits_80_columns(name: str, encoding: str) -> None:
    text = drawn(page(name), 80, encoding)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "\\x" not in text
    assert "\\u" not in text
    assert encoding == "utf-8" or text.isascii()


@pytest.mark.parametrize("name", preset_names())
def test_a_page_says_what_is_restated_and_claimed_and_how_much_there_is_to_train(name: str) -> None:
    preset, specs, text = find_preset(name), studies(name), flat(drawn(page(name), 100))
    assert preset.restates in text
    assert preset.claim in text
    lanes = [len(spec.lattice) * len(spec.seeds) for spec in specs]
    steps = sum(n * task(spec).steps for n, spec in zip(lanes, specs, strict=True))
    assert f"in all {sum(lanes):,} lanes, {steps:,} lane-steps" in text
    assert f"run lrwd-sweep compare --preset {name}" in text
    assert "time about a minute" in text
    assert all(spec.formula in text for spec in specs)


def test_the_factor_of_projected_decay_is_said_where_a_formula_has_it() -> None:
    said = "κ 0.1 where Π acts, else 1"
    assert [said in flat(drawn(page(name))) for name in ("adamp-compare", "fig2-mini")] == [True, False]


def test_each_distinct_schedule_is_drawn_once() -> None:
    assert drawn(page("fig1"), 80).count("┤") == 3 * 6
    assert drawn(page("fig2"), 80).count("┤") == 6


def test_a_precision_that_is_not_as_usual_is_said() -> None:
    preset = find_preset("fig2-mini")
    rounded = replace(preset, task=preset.task.changed(precision="bfloat16"))
    texts = [flat(drawn(replace(page("fig2-mini"), preset=one), 100)) for one in (preset, rounded)]
    assert ["computed in bfloat16" in text for text in texts] == [False, True]
    assert "float32" not in texts[0]


def test_a_time_that_was_not_measured_is_left_out() -> None:
    assert "time" not in flat(drawn(replace(page("fig1"), time=""), 80)).split("in all")[1].split("run")[0]


def test_hostile_words_are_harmless() -> None:
    preset = replace(find_preset("fig2"), name=HOSTILE, about=HOSTILE, restates=HOSTILE, claim=HOSTILE)
    for text in (drawn(PresetPage(preset, HOSTILE, []), 80), drawn(PresetList([preset]), 80)):
        assert not set("\x1b\x07\x9b\u202e") & set(text)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_list_has_a_line_for_every_preset_under_its_paper(encoding: str) -> None:
    every = [find_preset(name) for name in preset_names()]
    text = drawn(PresetList(every), 80, encoding)
    assert max(map(cell_len, text.splitlines())) <= 80
    for preset in every:
        part, _, paper = preset.restates.partition(" of ")
        (line,) = (line for line in text.splitlines() if line.split()[:1] == [preset.name])
        assert part in line
        assert flat(paper) in flat(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1 second"),
        (99, "99 seconds"),
        (101, "2 minutes"),
        (7200, "2 hours"),
        (86_400 * 30, "30 days"),
        (1e11, "3,169 years"),
    ],
)
def test_a_duration_has_its_natural_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
