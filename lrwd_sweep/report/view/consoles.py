"""The two consoles: stdout carries results, stderr everything else.

Colour and cursor control go to terminals only, also under CI services. `NO_COLOR` forbids colour;
`FORCE_COLOR` asks for it anywhere (3 for true colour; 0 or false forbids it); `TERM=dumb` is plain text;
`COLUMNS` is the width, which off a terminal is 100 otherwise.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console

from lrwd_sweep.report.view.plain import plain

_WIDTH_OFF_TERMINAL = 100
_WIDEST = 10_000
_DUMB = ("dumb", "unknown")


def stdout() -> Console:
    """A console on standard output."""
    return console_on(sys.stdout, os.environ)


def stderr() -> Console:
    """A console on standard error."""
    return console_on(sys.stderr, os.environ)


def write(text: str) -> None:
    """Text for a file or another program, on standard output as it is."""
    _never_unencodable(sys.stdout)
    sys.stdout.write(text)


def note(*parts: str) -> None:
    """One line on standard error, harmless whatever names are in it."""
    stderr().print(plain("; ".join(parts)), soft_wrap=True)


@contextmanager
def logged(name: str) -> Iterator[None]:
    """Within, what the logger of that name has to say is noted on standard error."""
    log, notes = logging.getLogger(name), _Notes()
    level = log.level
    log.addHandler(notes)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(notes)
        log.setLevel(level)


class _Notes(logging.Handler):
    """Everything once: what holds for a pack is said anew of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if (text := record.getMessage()) not in self.said:
            self.said.add(text)
            note(text)


class _Console(Console):
    """A console that lets a broken pipe through; rich itself would exit with code 1."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - rich calls this where it caught the BrokenPipeError


def console_on(stream: TextIO, environ: Mapping[str, str]) -> Console:
    """A console on `stream` as `environ` wants it; text is never taken for markup."""
    terminal = stream.isatty()
    dumb = environ.get("TERM", "").lower() in _DUMB
    forced = environ.get("FORCE_COLOR", "")
    refused = bool(environ.get("NO_COLOR")) or forced.lower() in ("0", "false")
    system: Any = "auto" if terminal and not dumb else None
    if forced and not refused and not terminal and not dumb:
        true_colour = forced == "3" or environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
        system = "truecolor" if true_colour else "256"
    columns = environ.get("COLUMNS", "")
    width = min(int(columns), _WIDEST) if columns.isdecimal() and int(columns) > 0 else None
    if width is None and not terminal:
        width = _WIDTH_OFF_TERMINAL
    _never_unencodable(stream)
    return _Console(
        file=stream,
        force_terminal=terminal and not dumb,
        color_system=system,
        no_color=refused,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        _environ=environ,
    )


def prepare() -> None:
    """Before anything is written: streams that this process was started without lead nowhere.

    A file opened later would get the number of a missing one, and what libraries write to it.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(nowhere)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - to the end
    for stream in (sys.stdout, sys.stderr):
        _never_unencodable(stream)


def _never_unencodable(stream: TextIO) -> None:
    """Let a stream of another encoding than UTF-8 write escapes for characters it does not have."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure and not (stream.encoding or "").lower().startswith("utf"):
        reconfigure(errors="backslashreplace")
