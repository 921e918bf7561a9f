"""Consoles obey the environment, and nothing forces colour off a terminal but FORCE_COLOR."""

from __future__ import annotations

import io
import logging

import pytest
from rich.text import Text

from lrwd_sweep.report.view.consoles import console_on, logged


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def printed(stream: io.StringIO, **environ: str) -> str:
    console_on(stream, environ).print(Text("x" * 90, style="bold red"))
    return stream.getvalue()


@pytest.mark.parametrize("service", ["GITHUB_ACTIONS", "CI", "GITLAB_CI", "PY_COLORS", "CLICOLOR"])
def test_a_pipe_gets_no_escape_codes_under_ci_services(service: str) -> None:
    assert printed(io.StringIO(), TERM="xterm-256color", **{service: "1"}) == "x" * 90 + "\n"


def test_a_terminal_gets_colour() -> None:
    assert "\x1b[1;31m" in printed(Terminal(), TERM="xterm-256color")


def test_no_color_keeps_weight_and_drops_colour() -> None:
    text = printed(Terminal(), TERM="xterm-256color", NO_COLOR="1")
    assert "31" not in text
    assert "\x1b[1m" in text


def test_force_color_colours_a_pipe_without_making_it_a_terminal() -> None:
    console = console_on(io.StringIO(), {"FORCE_COLOR": "1"})
    assert console.color_system == "256"
    assert not console.is_terminal
    assert console_on(io.StringIO(), {"FORCE_COLOR": "3"}).color_system == "truecolor"


@pytest.mark.parametrize("environ", [{"FORCE_COLOR": "0"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}])
def test_refusing_colour_wins(environ: dict[str, str]) -> None:
    assert "\x1b" not in printed(io.StringIO(), **environ)


def test_a_dumb_terminal_gets_plain_text() -> None:
    assert "\x1b" not in printed(Terminal(), TERM="dumb", FORCE_COLOR="1")


@pytest.mark.parametrize(
    ("columns", "width"), [("", 100), ("72", 72), ("0", 100), ("-4", 100), ("wide", 100)]
)
def test_width_off_a_terminal_is_columns_or_100(columns: str, width: int) -> None:
    assert console_on(io.StringIO(), {"COLUMNS": columns}).width == width


def test_characters_that_the_stream_lacks_are_escaped() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console_on(stream, {}).print("naïve [/x] :smile:")
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    assert stream.buffer.getvalue() == b"na\\xefve [/x] :smile:\n"


def test_what_is_logged_is_noted_while_somebody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("lrwd_sweep.anything")
    with logged("lrwd_sweep"):
        log.info("one [bold]thing[/]")
    log.info("another")
    assert capsys.readouterr() == ("", "one [bold]thing[/]\n")
