"""`preset`: what there is to run, before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrwd_sweep.engine.speed import Speed
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.science.lattice import format_axis
from lrwd_sweep.spec.preset import find_preset, preset_names
from tests.cli.conftest import Run


def test_list_names_every_preset(run: Run) -> None:
    found = run("preset", "list")
    assert (found.code, found.err) == (0, "")
    first = [line.split()[0] for line in found.out.splitlines() if line.split()]
    assert [word for word in first if word in preset_names()] == sorted(preset_names(), key=first.index)
    assert set(preset_names()) <= set(first)


def test_show_prints_axes_as_options_and_how_much_there_is_to_train(run: Run) -> None:
    preset = find_preset("digits")
    found = run("preset", "show", "--no-estimate")
    assert (found.code, found.err) == (0, "")
    for optimizer, lattice in preset.axes.items():
        (line,) = (
            text for text in found.out.splitlines() if len(text.split()) == 5 and text.split()[0] == optimizer
        )
        lanes = len(lattice) * preset.seeds
        axes = [format_axis(axis) for axis in (lattice.lr, lattice.weight_decay)]
        assert line.split()[1:] == [*axes, f"{lanes:,}", f"{lanes * preset.task.steps:,}"]


@pytest.mark.parametrize("name", preset_names())
def test_show_needs_neither_data_nor_a_store_and_leaves_nothing(run: Run, name: str, tmp_path: Path) -> None:
    found = run("preset", "show", name, "--no-estimate")
    assert (found.code, found.err) == (0, "")
    assert "\x1b" not in found.out
    assert f"lrwd-sweep compare --preset {name}" in found.out
    assert "lane-steps" in found.out
    assert "┤" in found.out
    assert not list(tmp_path.iterdir())


def test_show_estimates_the_time_unless_told_not_to(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        "[training]\nbatch_size = 2\nepochs = 1\n[study]\nseeds = 1\n"
        "[[variants]]\noptimizer = 'adam'\nlr = '0.1'\nwd = '0.1'\n"
    )
    found = run("preset", "show", "mine.toml")
    assert (found.code, found.err) == (0, "")
    assert "time about" in (words := " ".join(found.out.split()))
    assert "measured on full packs of made-up data" in words
    assert "about" not in run("preset", "show", "mine.toml", "--no-estimate").out


def test_show_says_when_the_time_is_extrapolated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = Speed(step=3600.0, sample=0.0, whole=False)
    monkeypatch.setattr("lrwd_sweep.runner.estimate.measure", lambda *_: speed)
    words = " ".join(run("preset", "show", "fig1").out.split())
    assert "years on this machine as busy as it is now, extrapolated from one network" in words


def test_show_says_why_there_is_no_estimate(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: object) -> Speed:
        raise DeviceError("no room; free some memory")

    monkeypatch.setattr("lrwd_sweep.runner.estimate.measure", measure)
    found = run("preset", "show", "digits")
    assert found.code == 0
    assert "unknown: no room; free some memory" in found.out


def test_show_reads_a_file_and_its_words_are_harmless(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('about = "red \\u001b[31m\\nline"\n')
    found = run("preset", "show", "mine.toml")
    assert found.code == 0
    assert found.out.startswith("mine: red \\x1b[31m\\nline\n")


def test_a_file_with_a_blank_in_its_name_is_quoted_in_the_command(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my own.toml").write_text('like = "digits"\n')
    assert "compare --preset 'my own.toml'" in run("preset", "show", "my own.toml", "--no-estimate").out


def test_an_unknown_preset_is_one_line(run: Run) -> None:
    found = run("preset", "show", "fig2-mimi")
    assert (found.code, found.out) == (2, "")
    assert "unknown preset 'fig2-mimi'; did you mean fig2-mini" in found.err
