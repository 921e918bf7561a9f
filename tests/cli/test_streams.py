"""stdout carries the result, stderr the rest, and neither ever an escape code that nobody asked for."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from lrwd_sweep.cli import app
from tests.cli.conftest import ADAMW, TINY, Run, ended, process

OUTPUTS = [
    ("--help",),
    ("report",),
    ("report", "--format", "markdown"),
    ("report", "--format", "json"),
    ("study", "list"),
    ("study", "export", ADAMW),
    ("preset", "show"),
    ("grid", "-o", "λ"),
]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a command prints on a terminal of the given environment."""

    def printed(*arguments: str, **environ: str) -> str:
        stream = Terminal()
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["lrwd-sweep", *arguments])
        for name, value in ({"TERM": "xterm-256color", "COLUMNS": "120"} | environ).items():
            monkeypatch.setenv(name, value)
        assert app.run() == 0
        return stream.getvalue()

    return printed


@pytest.mark.parametrize("arguments", OUTPUTS, ids=" ".join)
def test_a_pipe_gets_no_escape_codes_even_under_a_ci_service(
    run: Run, compared: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("TERM", "xterm-256color")
    found = run(*arguments)
    assert found.out or found.err
    assert "\x1b" not in found.out + found.err


def test_training_into_a_pipe_redraws_nothing(run: Run) -> None:
    found = run("grid", *TINY)
    assert not set("\x1b\r") & set(found.out + found.err)
    assert len(found.err.splitlines()) == 2  # begun, and done


@pytest.mark.parametrize("arguments", OUTPUTS, ids=" ".join)
def test_a_stream_that_knows_only_ascii_gets_escapes_instead_of_an_error(
    compared: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["lrwd-sweep", *arguments])
    assert app.run() in (0, 2)
    err.flush()
    out.flush()
    written = out.buffer.getvalue() + err.buffer.getvalue()
    assert written.isascii()
    assert b"fault of lrwd-sweep" not in written


def test_a_process_in_the_c_locale_reports_in_ascii(compared: Path) -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    found = ended(process("report", **locale))
    assert (found.code, found.err) == (0, "")
    assert found.out.isascii()
    assert "theta <- theta" in found.out


def test_a_terminal_gets_colour(compared: Path, on_terminal: Callable[..., str]) -> None:
    assert "\x1b[38;5;" in on_terminal("report")


def test_no_color_and_a_dumb_terminal_get_none(compared: Path, on_terminal: Callable[..., str]) -> None:
    assert "[38;5;" not in on_terminal("report", NO_COLOR="1")
    assert "\x1b" not in on_terminal("report", TERM="dumb")


@pytest.mark.parametrize("columns", [40, 80, 170])
def test_a_report_keeps_to_the_width(compared: Path, on_terminal: Callable[..., str], columns: int) -> None:
    text = on_terminal("report", TERM="dumb", COLUMNS=str(columns))
    assert max(map(cell_len, text.splitlines())) <= columns


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_reader_that_leaves_ends_it_quietly(compared: Path, form: str) -> None:
    started = process("report", "--format", form)
    assert started.stdout is not None
    started.stdout.close()
    assert started.stderr is not None
    with started.stderr:
        assert started.stderr.read() == ""
    assert started.wait() == 141


def test_nobody_listening_to_an_error_is_no_error_of_ours() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stderr:
        code = "from lrwd_sweep.cli import main; main()"
        assert (
            subprocess.run([sys.executable, "-c", code, "gird"], stderr=stderr, check=False).returncode == 141
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without room")
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_full_disk_is_one_line_and_exit_3(compared: Path, form: str) -> None:
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-c", "from lrwd_sweep.cli import main; main()", "report", "--format", form],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert found.returncode == 3
    assert found.stderr.startswith("lrwd-sweep: No space left on device")
    assert found.stderr.count("\n") == 1


GRID_AGAIN = ("grid", "-o", "adamw", *TINY)
CLOSED = [
    (">&-", ("report",), 0),
    (">&-", ("report", "--format", "json"), 0),
    (">&-", ("grid", "-o", "sgd", *TINY), 0),
    ("2>&-", ("report", "--max-best", "9"), 0),
    ("2>&-", ("report", "nope"), 2),
    ("2>&-", GRID_AGAIN, 0),
    ("<&-", ("study", "delete", ADAMW), 2),
    ("<&- >&- 2>&-", ("report", "--max-best", "0"), 1),
    ("<&- >&- 2>&-", ("study", "list"), 0),
]


@pytest.mark.parametrize(("redirection", "arguments", "code"), CLOSED, ids=str)
def test_streams_that_are_closed_change_no_exit_code(
    compared: Path, redirection: str, arguments: tuple[str, ...], code: int
) -> None:
    main = [sys.executable, "-c", "from lrwd_sweep.cli import main; main()", *arguments]
    found = subprocess.run(
        f"{shlex.join(main)} {redirection}", shell=True, capture_output=True, text=True, check=False
    )
    assert found.returncode == code
    assert "fault of lrwd-sweep" not in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without room")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("report", "nope"), 2), (("report", "--max-best", "0"), 1), (("report",), 0)],
    ids=str,
)
def test_an_error_that_has_no_room_keeps_its_exit_code(
    compared: Path, arguments: tuple[str, ...], code: int
) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", "from lrwd_sweep.cli import main; main()", *arguments]
        found = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=full, check=False)
    assert found.returncode == code


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp437"])
def test_help_is_shown_whatever_the_encoding(encoding: str) -> None:
    command = [sys.executable, "-c", "from lrwd_sweep.cli import main; main()", "grid", "--help"]
    environ = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    found = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b"")
    assert b"--optimizer" in found.stdout


def test_a_terminal_of_no_width_gets_a_report(compared: Path) -> None:
    for columns in ("1", "3", "99999999"):
        found = ended(process("report", COLUMNS=columns))
        assert (found.code, found.err) == (0, "")
        assert len(found.out) < 10**6


def test_a_library_of_a_module_says_nothing_as_the_process_ends(tmp_path: Path) -> None:
    storage = ("--storage", str(tmp_path / "a.db"))
    found = ended(process("grid", "--net", "cnn-norm", "--engine", "vmap", *TINY, *storage))
    assert found.code == 0
    assert [line.partition(":")[0] for line in found.err.splitlines()] == ["adamw", "adamw"]
