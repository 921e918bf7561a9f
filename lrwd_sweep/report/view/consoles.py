"""The two consoles, where stdout carries results and stderr everything else, and output files.

Only terminals get colour and cursor control, also under CI services. `NO_COLOR` forbids colour;
`FORCE_COLOR` requests it anywhere (3 for true colour; 0 or false forbids it); `TERM=dumb` gives plain text;
`COLUMNS` sets the width, which is 100 by default off a terminal.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from rich.console import Console

from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.view.notation import styled

_WIDTH_OFF_TERMINAL = 100
_WIDEST = 10_000

_shared: list[Console] = []


def stdout() -> Console:
    """Return a console on standard output."""
    return console_on(sys.stdout, os.environ)


def stderr() -> Console:
    """Return a console on standard error, the shared one if there is one."""
    return _shared[-1] if _shared else console_on(sys.stderr, os.environ)


@contextmanager
def shared() -> Iterator[Console]:
    """Yield the console that `stderr` returns within the block: lines appear above a live view on it."""
    _shared.append(stderr())
    try:
        yield _shared[-1]
    finally:
        _shared.pop()


def write(text: str) -> None:
    """Write text for a file or another program to standard output, unchanged."""
    _escape_unencodable(sys.stdout)
    sys.stdout.write(text)


def note(*parts: str) -> None:
    """Print one line on standard error; untrusted names in it are harmless."""
    console = stderr()
    console.print(styled("; ".join(parts), console.options.ascii_only), soft_wrap=True)


@contextmanager
def logged(name: str) -> Iterator[None]:
    """Print the messages of the logger of that name on standard error, within the block."""
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
    """A handler that prints every message once: each pack repeats those of the one before."""

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
    """Return a console on `stream` that obeys `environ` and never takes text for markup."""
    terminal = stream.isatty()
    dumb = environ.get("TERM", "").lower() in ("dumb", "unknown")
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
    _escape_unencodable(stream)
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
    """Open missing standard streams on the null device, before anything is written."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - to the end
    for stream in (sys.stdout, sys.stderr):
        _escape_unencodable(stream)


def _escape_unencodable(stream: TextIO) -> None:
    """Make a stream in an encoding other than UTF-8 escape the characters that it lacks."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure and not (stream.encoding or "").lower().startswith("utf"):
        reconfigure(errors="backslashreplace")


_SQLITE = b"SQLite format 3\0"  # first bytes of a database file


@contextmanager
def replaced(path: Path, option: str = "--output") -> Iterator[Path]:
    """Yield a temporary file beside `path` that replaces it when the block succeeds.

    A path that is not a regular file (a pipe, /dev/null) is written directly. Raises UsageError, naming the
    option, if the path cannot be written, but BrokenPipeError if a pipe's reader has gone.
    """
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        target = path.resolve()  # keeps a symbolic link
        if target.exists():
            with target.open("rb") as file:
                if file.read(len(_SQLITE)) == _SQLITE:
                    raise UsageError(f"{option} {path} is a database, perhaps a store; name another file")
        with TemporaryDirectory(dir=target.parent, prefix=".lrwd-sweep-") as folder:
            temporary = Path(folder) / target.name
            yield temporary
            temporary.replace(target)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}; name a file that can be written") from None


def write_file(path: Path, text: str, option: str = "--output") -> None:
    """Write text as UTF-8. Raises UsageError if the path cannot be written."""
    with replaced(path, option) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
