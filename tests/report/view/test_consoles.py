"""Consoles obey the environment; off a terminal only FORCE_COLOR gives colour."""

from __future__ import annotations

import io
import logging

import pytest
from rich.text import Text

from lrwd_sweep.report.view.consoles import console_on, logged


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def printed(stream: io.StringIO, **environ: str) -> str:
    console_on(stream, environ).print(Text("x" * 90, style="bold red"))
    return stream.getvalue()


def test_a_pipe_gets_no_escape_codes_under_ci_services() -> None:
    for service in ("GITHUB_ACTIONS", "CI", "GITLAB_CI", "PY_COLORS", "CLICOLOR"):
        text = printed(io.StringIO(), TERM="xterm-256color", **{service: "1"})
        assert text == "x" * 90 + "\n", service


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


def test_refusing_colour_overrides_forcing_it() -> None:
    assert "\x1b" not in printed(io.StringIO(), FORCE_COLOR="0")
    assert "\x1b" not in printed(io.StringIO(), FORCE_COLOR="1", NO_COLOR="1")


def test_a_dumb_terminal_gets_plain_text() -> None:
    assert "\x1b" not in printed(Terminal(), TERM="dumb", FORCE_COLOR="1")


def test_width_off_a_terminal_is_columns_or_100() -> None:
    for columns, width in (("", 100), ("72", 72), ("0", 100), ("-4", 100), ("wide", 100)):
        assert console_on(io.StringIO(), {"COLUMNS": columns}).width == width, columns


def test_characters_missing_from_the_encoding_are_escaped() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console_on(stream, {}).print("naïve [/x] :smile:")
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    assert stream.buffer.getvalue() == b"na\\xefve [/x] :smile:\n"


def test_log_messages_are_printed_within_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("lrwd_sweep.anything")
    with logged("lrwd_sweep"):
        log.info("one [bold]thing[/]")
    log.info("another")
    assert capsys.readouterr() == ("", "one [bold]thing[/]\n")
