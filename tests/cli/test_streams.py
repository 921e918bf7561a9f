"""stdout carries the result, stderr the rest; only terminals get escape codes."""

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from lrwd_sweep.cli import app
from tests.cli.conftest import ADAM, ADAMW, TINY, Run, ended, process
from tests.report.view.test_terminal import Terminal

OUTPUTS = [
    *(("--help",), ("report",), ("report", "--format", "markdown"), ("report", "--format", "json")),
    *(("study", "list"), ("study", "export", ADAMW), ("preset", "show"), ("grid", "-o", "λ")),
]


def test_pipe_of_a_ci_service_gets_no_escape_codes_and_training_redraws_nothing(
    run: Run, compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("TERM", "xterm-256color")
    for arguments in OUTPUTS:
        found = run(*arguments)
        assert found.out or found.err, arguments
        assert "\x1b" not in found.out + found.err, arguments
    found = run("compare", "adam", "adamw", *TINY[:-1], "2")
    assert not set("\x1b\r") & set(found.out + found.err)
    begun, some, _, adam, adamw = found.err.splitlines()
    assert begun == "adam, adamw: 3×3 lattices × 2 seeds, 36 runs on cpu"
    assert some == f"{ADAM}: 9 of 18 lanes are in the store; training the 9 that are missing"
    assert re.fullmatch(r"adam: trained 9 runs in \d:\d\d, [\d,]+ lane-steps/s; 27 of 36 runs.*", adam)
    assert re.fullmatch(r"adamw: trained 9 runs in \d:\d\d, [\d,]+ lane-steps/s", adamw)


def test_ascii_stream_gets_escapes(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in OUTPUTS:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(sys, "argv", ["lrwd-sweep", *arguments])
        assert app.run() in (0, 2), arguments
        err.flush()
        out.flush()
        written = out.buffer.getvalue() + err.buffer.getvalue()
        assert written.isascii(), arguments
        assert b"fault of lrwd-sweep" not in written, arguments


def test_terminal_gets_colour_and_a_report_keeps_to_its_width(
    compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_terminal(**environ: str) -> str:
        stream = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "argv", ["lrwd-sweep", "report"])
            for name, value in ({"TERM": "xterm-256color", "COLUMNS": "120"} | environ).items():
                patch.setenv(name, value)
            assert app.run() == 0
        return stream.getvalue()

    assert "\x1b[38;5;" in on_terminal()
    assert "[38;5;" not in on_terminal(NO_COLOR="1")
    for columns in (40, 170):
        text = on_terminal(TERM="dumb", COLUMNS=str(columns))
        assert "\x1b" not in text
        assert max(map(cell_len, text.splitlines())) <= columns
    for width in ("1", "99999999"):
        assert 0 < len(on_terminal(TERM="dumb", COLUMNS=width)) < 10**6


MAIN = [sys.executable, "-c", "from lrwd_sweep.cli import main; main()"]
CLOSED = [
    (">&-", ("report",), 0),
    ("2>&-", ("report", "nope"), 2),
    ("<&-", ("study", "delete", ADAMW), 2),
    ("<&- >&- 2>&-", ("grid", "-o", "sgd", *TINY), 0),
]


def test_closed_pipes_and_streams_end_quietly_with_the_same_code(compared: Path) -> None:
    started = process("report")
    assert started.stdout is not None
    started.stdout.close()
    assert started.stderr is not None
    with started.stderr:
        assert started.stderr.read() == ""
    assert started.wait() == 141
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stderr:
        assert subprocess.run([*MAIN, "gird"], stderr=stderr, check=False).returncode == 141
    environ = os.environ | {"PYTHONIOENCODING": "cp437", "PYTHONUTF8": "0"}
    found = subprocess.run([*MAIN, "convert", "--help"], env=environ, capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b""), "another encoding"
    for redirection, arguments, code in CLOSED:
        command = f"{shlex.join([*MAIN, *arguments])} {redirection}"
        closed = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert closed.returncode == code, command
        assert "fault of lrwd-sweep" not in closed.stderr, command
        assert "Traceback" not in closed.stderr, command


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without room")
def test_full_disk_is_one_line_and_exit_3_and_an_error_without_room_keeps_its_code(compared: Path) -> None:
    with open("/dev/full", "w") as full:
        found = subprocess.run([*MAIN, "report"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert found.returncode == 3
        assert found.stderr.startswith("lrwd-sweep: No space left on device")
        assert found.stderr.count("\n") == 1
        command = [*MAIN, "report", "--max-best", "0"]
        refused = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=full, check=False)
        assert refused.returncode == 1


@pytest.mark.slow
def test_library_of_a_module_says_nothing_as_the_process_ends() -> None:
    few = ("--lr", "0.1", "--wd", "0.1", "--epochs", "1", "--seeds", "1", "--batch-size", "400")
    found = ended(process("grid", "--net", "cnn-norm", "--engine", "vmap", *few))
    assert found.code == 0
    assert {line.partition(":")[0] for line in found.err.splitlines()} == {"adamw"}
