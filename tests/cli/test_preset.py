"""`preset`: what there is to run, before it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrwd_sweep.engine.speed import Speed
from lrwd_sweep.errors import DeviceError, arg
from lrwd_sweep.science.lattice import format_axis
from lrwd_sweep.spec.preset import find_preset, preset_names
from tests.cli.conftest import Run


def test_list_names_every_preset(run: Run) -> None:
    found = run("preset", "list")
    assert (found.code, found.err) == (0, "")
    first = [line.split()[0] for line in found.out.splitlines() if line.split()]
    assert [word for word in first if word in preset_names()] == sorted(preset_names(), key=first.index)
    assert set(preset_names()) <= set(first)


def test_json_is_one_document(run: Run) -> None:
    listed = json.loads(run("preset", "list", "--format", "json").out)
    assert listed["schema_version"] == 1
    assert [preset["name"] for preset in listed["presets"]] == preset_names()
    for preset in listed["presets"]:
        shown = json.loads(run("preset", "show", preset["name"], "--format", "json").out)["preset"]
        assert {key: shown[key] for key in preset} == preset
        names = [study["study_name"] for study in shown["studies"]]
        assert len({*names}) == len(preset["optimizers"]), names


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


def test_show_needs_neither_data_nor_a_store_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    for name in preset_names():
        found = run("preset", "show", name, "--no-estimate")
        assert (found.code, found.err) == (0, ""), name
        assert "\x1b" not in found.out, name
        for part in (f"lrwd-sweep compare --preset {name}", "lane-steps", "┤"):
            assert part in found.out, name
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


def test_show_says_when_the_time_is_extrapolated_or_unknown(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = Speed(step=3600.0, sample=0.0, whole=False)
    monkeypatch.setattr("lrwd_sweep.runner.execution.measure", lambda *_: speed)
    words = " ".join(run("preset", "show", "digits").out.split())
    assert "years on this machine as busy as it is now, extrapolated from one network" in words

    def without_room(*_: object) -> Speed:
        raise DeviceError(f"no room; choose {arg('device', 'cpu')}")

    monkeypatch.setattr("lrwd_sweep.runner.execution.measure", without_room)
    assert "unknown: no room; choose --device cpu" in run("preset", "show", "digits").out


def test_show_reads_a_file_and_its_words_are_harmless(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my own.toml").write_text('like = "digits"\nabout = "red \\u001b[31m\\nline"\n')
    found = run("preset", "show", "my own.toml", "--no-estimate")
    assert found.code == 0
    assert found.out.startswith("my own: red \\x1b[31m\\nline\n")
    assert "compare --preset 'my own.toml'" in found.out
