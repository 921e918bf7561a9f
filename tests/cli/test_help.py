"""The help names every option in a line, the shells complete them, and `docs` shows the guide."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer

from lrwd_sweep.cli.app import app
from lrwd_sweep.cli.docs import FOLDER
from lrwd_sweep.report.view import Format
from lrwd_sweep.science.optimizer import MomentumForm
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.catalog import AUGMENTATIONS, ENGINES, PRECISIONS
from lrwd_sweep.spec.field import HEADINGS
from tests.cli.conftest import Run, ended, process

ROOT: Any = typer.main.get_command(app)  # the types of its parts are private to Typer


def commands(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())
SHARED = ("grid", "compare", "tpe", "transfer")


def test_root_shows_what_to_do_first_and_shells_complete_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run()
    assert (alone.code, alone.err) == (0, "")
    assert "lrwd-sweep compare adam adamw" in alone.out
    assert alone.out == run("--help").out == run("-h").out
    assert run("--version").out == run("-V").out == f"lrwd-sweep {version('lrwd-sweep')}\n"
    no_detection = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # of the shell that runs the tests
    shown = ended(process("--show-completion", "bash", **no_detection))
    assert "_LRWD_SWEEP_COMPLETE=complete_bash" in shown.out
    monkeypatch.setenv("_LRWD_SWEEP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "lrwd-sweep grid --mom")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert run().out.split() == ["--momentum", "--momentum-form"]


def test_every_command_and_option_has_a_help_that_fits_80_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    groups = {path[:-1]: run(*path[:-1], "--help").out.splitlines() for path in COMMANDS}
    assert run("study").out.splitlines() == groups[("study",)]
    for path in COMMANDS:
        (listed,) = (text for text in groups[path[:-1]] if text.startswith(f"  {path[-1]} "))
        assert listed.endswith("."), path
        assert not listed.endswith("..."), path
        found = run(*path, "--help")
        assert (found.code, found.err) == (0, "")
        assert found.out.startswith(f"Usage: lrwd-sweep {' '.join(path)} ")
        assert max(map(len, found.out.splitlines())) <= 80, path
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


def test_help_of_grid_has_groups_of_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in SHARED:
        lines = run(command, "--help").out.splitlines()
        assert len(lines) <= 120, command
        headings = [line.removesuffix(":") for line in lines if line.endswith(":") and line[0] != " "]
        assert [name for name in headings if name in HEADINGS] == list(HEADINGS), command
        options = [line for line in lines if line.startswith("  -")]
        assert len(options) == len(COMMANDS[(command,)].params) + 1 - (command == "compare"), command
    assert all(str(form) in run("report", "--help").out for form in Format)
    text = run("grid", "--help").out
    for name in (*Schedule, *PRECISIONS, *AUGMENTATIONS, *ENGINES, *MomentumForm):
        assert name in text


def test_docs_lists_and_shows_the_pages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
    lines = run("docs").out.splitlines()
    assert max(map(len, lines)) <= 80
    for line, (name, text) in zip(lines, pages.items(), strict=False):
        assert line.split(maxsplit=1) == [name, text.splitlines()[0].removeprefix("# ")]
        assert run("docs", name).out == text, "off a terminal it is Markdown"
    assert run("docs", "ci.md").out == pages["ci"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = run("docs", "separability").out
    assert ("\x1b[" in out, "```" in out) == (True, False)
