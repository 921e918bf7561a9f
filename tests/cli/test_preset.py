"""`preset`: what there is to run, before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrwd_sweep.preset import find_preset, preset_names
from tests.cli.conftest import Run


def test_list_names_every_preset(run: Run) -> None:
    found = run("preset", "list")
    assert (found.code, found.err) == (0, "")
    assert [line.split()[0] for line in found.out.splitlines()] == preset_names()


@pytest.mark.parametrize("name", preset_names())
def test_show_prints_axes_as_options_and_how_much_there_is_to_train(run: Run, name: str) -> None:
    preset = find_preset(name)
    found = run("preset", "show", name)
    assert (found.code, found.err) == (0, "")
    for optimizer, lattice in preset.axes.items():
        (line,) = (text for text in found.out.splitlines() if text.split()[:1] == [optimizer])
        assert "--lr 2^" in line
        assert f"{len(lattice) * preset.seeds * preset.training.steps:,} lane-steps" in line


def test_show_reads_a_file_and_its_words_are_harmless(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('about = "red \\u001b[31m\\nline"\n')
    found = run("preset", "show", "mine.toml")
    assert found.code == 0
    assert found.out.startswith("mine: red \\x1b[31m\\nline\n")
