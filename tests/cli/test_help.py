"""The help is enough for somebody who reads nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from lrwd_sweep.cli.app import app
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.catalog import METRICS, NETWORKS, PRECISIONS
from tests.cli.conftest import Run

ROOT: Any = typer.main.get_command(app)  # the types of its parts are private to Typer


def commands(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def test_alone_it_shows_what_to_do_first(run: Run) -> None:
    alone = run()
    assert (alone.code, alone.err) == (0, "")
    assert "lrwd-sweep compare adam adamw" in alone.out
    assert alone.out == run("--help").out == run("-h").out


@pytest.mark.parametrize("group", ["study", "preset"])
def test_a_group_alone_shows_its_commands(run: Run, group: str) -> None:
    alone = run(group)
    assert (alone.code, alone.err) == (0, "")
    assert alone.out == run(group, "--help").out


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_help_that_fits_80_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = run(*path, "--help")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith(f"Usage: lrwd-sweep {' '.join(path)} ")
    assert max(map(len, found.out.splitlines())) <= 80


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_is_listed_with_its_whole_summary(run: Run, path: tuple[str, ...]) -> None:
    line = f"  {path[-1]} "
    (listed,) = (text for text in run(*path[:-1], "--help").out.splitlines() if text.startswith(line))
    assert listed.endswith(".")
    assert not listed.endswith("...")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_is_and_its_default(run: Run, path: tuple[str, ...]) -> None:
    for parameter in COMMANDS[path].params:
        text = parameter.help or ""
        assert text.endswith((".", ").")), parameter.name
        is_flag = getattr(parameter, "is_flag", False)
        known = parameter.required or is_flag or parameter.default is not None
        assert known or "(default: " in text, parameter.name


def test_every_name_that_an_option_takes_is_in_its_help(run: Run) -> None:
    text = run("grid", "--help").out
    for name in (*Schedule, *NETWORKS, *METRICS, *PRECISIONS):
        assert name in text


def test_the_version_is_that_of_the_package(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version").out == f"lrwd-sweep {version('lrwd-sweep')}\n"
