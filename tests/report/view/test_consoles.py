"""Consoles obey the environment; an output file is written whole or not at all."""

import io
import logging
import os
from pathlib import Path

import pytest
from rich.text import Text

from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.view.consoles import console_on, logged, replaced, write_file


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_console_depends_on_terminal_and_environment(capsys: pytest.CaptureFixture[str]) -> None:
    xterm = {"TERM": "xterm-256color"}
    cases: list[tuple[type[io.StringIO], dict[str, str], bool, bool]] = [  # bold, coloured
        (Terminal, xterm, True, True),
        (Terminal, {**xterm, "NO_COLOR": "1"}, True, False),
        (Terminal, {"TERM": "dumb", "FORCE_COLOR": "1"}, False, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True, True),
        (io.StringIO, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        (io.StringIO, {**xterm, "CI": "1", "GITHUB_ACTIONS": "1", "CLICOLOR": "1"}, False, False),
    ]
    for kind, environ, bold, colour in cases:
        stream = kind()
        console_on(stream, environ).print(Text("x" * 90, style="bold red"))
        text = stream.getvalue()
        assert ("\x1b[1" in text, "31m" in text) == (bold, colour), environ
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console_on(ascii_only, {}).print("naïve [/x] :smile:")  # what the encoding lacks is escaped
    ascii_only.seek(0)
    assert ascii_only.read() == "na\\xefve [/x] :smile:\n"
    for level, system in (("1", "256"), ("3", "truecolor")):
        console = console_on(io.StringIO(), {"FORCE_COLOR": level})
        assert (console.color_system, console.is_terminal) == (system, False)
    for columns, width in (("", 100), ("72", 72), ("0", 100), ("wide", 100)):
        assert console_on(io.StringIO(), {"COLUMNS": columns}).width == width, columns
    log = logging.getLogger("lrwd_sweep.anything")
    with logged("lrwd_sweep"):
        log.info("one [bold]thing[/]")
    log.info("another")
    assert capsys.readouterr() == ("", "one [bold]thing[/]\n")


def test_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_file(path, "λ\r\n\n")
    os.umask(mask := os.umask(0))
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    with pytest.raises(ZeroDivisionError), replaced(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_bytes() == "λ\r\n\n".encode()
    assert list(tmp_path.iterdir()) == [path]
    write_file(Path(os.devnull), "x")
    assert Path(os.devnull).is_char_device()  # a device is written and not replaced
    for name in ("no/such/file", "."):
        with pytest.raises(UsageError, match=r"^--figure .*; name a file that can be written$"):
            write_file(tmp_path / name, "x", "--figure")
