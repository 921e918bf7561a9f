"""stdout carries the result, stderr what begins and how long it takes; only terminals get escape codes."""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lrwd_sweep.cli import app
from lrwd_sweep.spec.study import Kind, StudySpec
from tests.cli.conftest import ADAM, ADAMW, PROGRAM, STORE, TINY, Patch, Run, assert_refused, ended, process
from tests.specs import spec
from tests.store.sample import filled, lattice_trials


def test_pipes_get_no_escape_codes_nor_foreign_letters(run: Run, compared: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("TERM", "xterm-256color")
    found = run("compare", "adam", "adamw", *TINY[:-1], "2")
    assert not set("\x1b\r") & set(found.out + found.err)
    begun, some, _, adam, adamw = found.err.splitlines()
    assert begun == "adam, adamw: 3×3 lattices × 2 seeds, 36 runs on cpu"
    assert some == f"{ADAM}: 9 of 18 lanes are in the store; training the 9 that are missing"
    assert re.fullmatch(r"adam: trained 9 runs in \d:\d\d, [\d,]+ lane-steps/s; 27 of 36 runs.*", adam)
    assert re.fullmatch(r"adamw: trained 9 runs in \d:\d\d, [\d,]+ lane-steps/s", adamw)
    for words in (
        *("--help", "report", "report --format markdown", "report --format json", "study list"),
        *(f"study export {ADAMW}", "preset show", "grid -o λ"),
    ):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
        for name, value in {"stdout": out, "stderr": err, "argv": ["lrwd-sweep", *words.split()]}.items():
            monkeypatch.setattr(sys, name, value)
        assert app.run() in (0, 2), words
        err.flush()
        out.flush()
        written = (out.buffer.getvalue() + err.buffer.getvalue()).decode("ascii")
        assert written, words
        assert not re.search("\x1b|fault of lrwd-sweep", written), words


def test_closed_pipes_and_streams_end_quietly_with_the_same_code(compared: Path) -> None:
    started = process("report")
    assert started.stdout is not None
    started.stdout.close()
    assert (ended(started).err, started.returncode) == ("", 141)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stderr:
        assert subprocess.run([*PROGRAM, "gird"], stderr=stderr, check=False).returncode == 141
    environ = os.environ | {"PYTHONIOENCODING": "cp437", "PYTHONUTF8": "0"}
    found = subprocess.run([*PROGRAM, "convert", "--help"], env=environ, capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b""), "another encoding"
    for redirection, words, code in (
        (">&-", "report", 0),
        ("2>&-", "report nope", 2),
        ("<&-", f"study delete {ADAMW}", 2),
        ("<&- >&- 2>&-", f"grid -o sgd {' '.join(TINY)}", 0),
    ):
        command = f"{shlex.join(PROGRAM)} {words} {redirection}"
        closed = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert closed.returncode == code, command
        assert not re.search("Traceback|fault of lrwd-sweep", closed.stderr), command


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without room")
def test_full_disk_is_one_line_and_exit_3_and_an_error_without_room_keeps_its_code(compared: Path) -> None:
    command = [*PROGRAM, "report"]
    with open("/dev/full", "w") as full:
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (found.returncode, found.stderr.count("\n")) == (3, 1)
        assert found.stderr.startswith("lrwd-sweep: No space left on device")
        command += ["--max-best", "0"]
        refused = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=full, check=False)
        assert refused.returncode == 1


@pytest.mark.slow
def test_library_of_a_module_says_nothing_as_the_process_ends() -> None:
    few = "--lr 0.1 --wd 0.1 --epochs 1 --seeds 1 --batch-size 400 --quiet"
    assert ended(process(*f"grid --net cnn-norm --engine vmap {few}".split()))[::2] == (0, "")


LEAVES = """
import os, sys
class Finder:
    def find_spec(self, name, *_):
        if name in ("torch", "numpy", "sqlalchemy"):
            sys.stderr.flush()
            os._exit(77)
sys.meta_path.insert(0, Finder())
from lrwd_sweep.cli import main
main()
"""


def test_the_first_line_comes_before_torch_and_the_store_are_loaded(monkeypatch: Patch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("net.py").write_text("class Net: ...\n")
    for command, said in {
        "grid -o adamw:lr-scaled": "adamw:lr-scaled: 11×11 lattice × 5 seeds, 605 runs on cpu",
        "compare sgd adamw --lr 0.1,1 --seeds 1": "sgd, adamw: 2×11 lattices × 1 seed, 44 runs on cpu",
        "tpe --trials 9 --device cuda:1": "adamw: 9 points × 5 seeds, 45 runs on cuda:1",
        "grid --net ./net.py:Net": "loading ./net.py:Net",
        "grid --quiet": "",
    }.items():
        line = [sys.executable, "-c", LEAVES, *command.split()]
        found = subprocess.run(line, capture_output=True, text=True, check=False)
        assert (found.returncode, found.stderr.strip(), found.stdout) == (77, said, ""), command


def test_a_dry_run_tells_runs_time_and_memory_and_writes_nothing(run: Run, monkeypatch: Patch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").resolve()))
    monkeypatch.setattr("lrwd_sweep.runner.study_loop.SECONDS", 0.1)
    monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 2)
    for command, parts in {  # command: what it says, besides that nothing is written
        "compare adam adamw": (
            "adam, adamw: 3×3 lattices × 1 seed, 18 runs",
            f"{ADAM}: 0 of 9 runs are stored",
        ),
        "tpe --trials 8 --quiet": (
            "adamw: 8 points × 1 seed, 8 runs",
            "2 runs at once, 1 in each of 2 packs",
        ),
        "grid --max-lanes 2 --storage new.db": (
            *("4 runs at once, 2 in each of 2 packs", "free", "store   new.db, which would be created"),
            f"study   {ADAMW}: 0 of 9 runs are stored, 9 are new",
        ),
        "grid --data cifar10 --net cnn --data-dir no --download": ("about ",),  # it would be downloaded
    }.items():
        found = run(*command.split(), *TINY, "--dry-run")
        assert (found.code, found.err) == (0, ""), command
        for part in (*parts, "memory  about", "time    about", "dry run: nothing is trained or written"):
            assert part in found.out, (command, part)
        assert list(Path().iterdir()) == [], command


def test_a_dry_run_refuses_what_the_command_refuses(run: Run, compared: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("lrwd_sweep.runner.study_loop.SECONDS", 0.1)
    whole, before = compared.read_bytes(), sorted(os.listdir())
    assert "nothing to train" in run("compare", "adam", "adamw", *TINY, "--dry-run").out
    found = run("grid", *TINY[:-1], "3", "--dry-run")
    assert f"study   {ADAMW}: 9 of 27 runs are stored, 18 are new" in found.out
    for command, code in {
        f"grid --study-name {ADAM}": 2,  # another specification
        "grid --storage no/such.db": 3,
        "grid --device cuda:77": 3,
        "grid --data cifar10 --net cnn --data-dir nowhere": 3,
        "tpe --trials 0": 2,
    }.items():
        dry, real = (run(f"{command} {more}") for more in ("--dry-run", "--quiet"))
        assert_refused(dry, code)
        assert (dry.code, dry.err.splitlines()[-1]) == (real.code, real.err.splitlines()[-1]), command
    assert (compared.read_bytes(), sorted(os.listdir())) == (whole, before)


MINE, OTHER = (spec(optimizer=name, epochs=2, seeds=(0,)) for name in ("adamw", "adam"))  # of four runs


def add(name: str, of: StudySpec, first: int, last: int) -> None:
    filled(Path(STORE), name, of=of, trials=lattice_trials(of)[first:last])


def test_watching_follows_a_sweep_to_its_end_and_refuses_what_no_sweep_will_change(run: Run) -> None:
    assert_refused(run("report --watch"), 2, "--watch", "there is no lrwd-sweep.db here yet")
    assert_refused(run("report --watch --storage no.db"), 3, "no.db")
    add("whole", MINE, 0, 4)
    add("search", spec(kind=Kind.TPE), 0, 0)
    for names, parts in {
        "whole": ("--watch", "'whole' is finished", "leave --watch out"),
        "search": ("'search' is a search", "leave --watch out"),
        "nothing": ("'nothing'", "whole"),
    }.items():
        assert_refused(run(f"report {names} --watch"), 2, *parts)
    add("a", OTHER, 0, 2)
    add("b", MINE, 0, 1)
    first, second = (process("report", "--watch", "b", "a", *form) for form in ((), ("--format", "json")))
    for started in (first, second):
        assert started.stderr is not None
        assert started.stderr.readline().endswith(": 3 of 8 runs are stored\n")
    first.send_signal(signal.SIGINT)
    assert ended(first) == (130, "", "lrwd-sweep: interrupted\n")
    add("a", OTHER, 2, 4)
    add("b", MINE, 1, 4)
    found = ended(second)
    assert (found.code, found.out.startswith("{")) == (0, True)
    assert {line.partition(" is complete")[0] for line in found.err.splitlines()} >= {"adam", "adamw"}
