"""The help names every option in a line, and the shells complete them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from lrwd_sweep.cli.app import app
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.catalog import AUGMENTATIONS, ENGINES, PRECISIONS
from lrwd_sweep.spec.field import HEADINGS
from lrwd_sweep.spec.task import MomentumForm
from tests.cli.conftest import Run, ended, process

ROOT: Any = typer.main.get_command(app)  # the types of its parts are private to Typer


def commands(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())
SHARED = ("grid", "compare", "tpe")


def test_without_a_command_it_shows_what_to_do_first(run: Run) -> None:
    alone = run()
    assert (alone.code, alone.err) == (0, "")
    assert "lrwd-sweep compare adam adamw" in alone.out
    assert alone.out == run("--help").out == run("-h").out


def test_a_group_without_a_command_shows_its_commands(run: Run) -> None:
    for group in ("study", "preset"):
        alone = run(group)
        assert (alone.code, alone.err) == (0, "")
        assert alone.out == run(group, "--help").out


def test_every_command_has_a_help_that_fits_80_columns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for path in COMMANDS:
        found = run(*path, "--help")
        assert (found.code, found.err) == (0, "")
        assert found.out.startswith(f"Usage: lrwd-sweep {' '.join(path)} ")
        assert max(map(len, found.out.splitlines())) <= 80, path


def test_every_command_is_listed_with_its_complete_summary(run: Run) -> None:
    helps = {path: run(*path, "--help").out.splitlines() for path in {path[:-1] for path in COMMANDS}}
    for path in COMMANDS:
        line = f"  {path[-1]} "
        (listed,) = (text for text in helps[path[:-1]] if text.startswith(line))
        assert listed.endswith("."), path
        assert not listed.endswith("..."), path


def test_every_option_has_a_help_with_its_default() -> None:
    for path, command in COMMANDS.items():
        for parameter in command.params:
            text = parameter.help or ""
            named = f"{path} {parameter.name}"
            if path[0] in SHARED:  # one line each; the default in brackets
                assert text.endswith("]") or parameter.is_flag, named
                assert not text.endswith("."), named
                continue
            assert text.endswith((".", ").", "]")), named
            is_flag = getattr(parameter, "is_flag", False)
            known = parameter.required or is_flag or parameter.default is not None
            assert known or "(default: " in text or text.endswith("]"), named


def test_the_help_of_grid_is_grouped_with_a_line_per_option(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in SHARED:
        lines = run(command, "--help").out.splitlines()
        assert len(lines) <= 66, command
        headings = [line.removesuffix(":") for line in lines if line.endswith(":") and line[0] != " "]
        assert [name for name in headings if name in HEADINGS] == list(HEADINGS), command
        options = [line for line in lines if line.startswith("  -")]
        assert len(options) == len(COMMANDS[(command,)].params) + 1 - (command == "compare"), command
    text = run("grid", "--help").out
    for name in (*Schedule, *PRECISIONS, *AUGMENTATIONS, *ENGINES, *MomentumForm):
        assert name in text


def test_the_version_is_that_of_the_package(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version").out == run("-V").out == f"lrwd-sweep {version('lrwd-sweep')}\n"


NO_DETECTION = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # of the shell that runs the tests


def test_shells_complete_commands_and_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        "_LRWD_SWEEP_COMPLETE=complete_bash"
        in ended(process("--show-completion", "bash", **NO_DETECTION)).out
    )
    monkeypatch.setenv("_LRWD_SWEEP_COMPLETE", "complete_bash")
    for words, position, found in (
        ("lrwd-sweep com", 1, ["compare"]),
        ("lrwd-sweep grid --mom", 2, ["--momentum", "--momentum-form"]),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(position))
        assert run().out.split() == found, words
