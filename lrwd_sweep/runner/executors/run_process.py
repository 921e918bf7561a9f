"""One run of a command: its process, folder, environment and logs."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from lrwd_sweep.errors import UsageError, arg, brief
from lrwd_sweep.runner.executors import PATIENCE, supervisor
from lrwd_sweep.runner.readers import Readout, RunReader
from lrwd_sweep.runner.signals import on_suspension
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.job import Pack, short_digest
from lrwd_sweep.spec.user_command import STEPS, Command

GRACE = 10.0  # seconds between SIGTERM and SIGKILL for a run that is out of time or diverged
TAIL = 20  # lines of a log, shown when the first run gives no value
_TAIL_BYTES = 1 << 16
_COLUMNS = {"lr", "weight_decay", "seed", "status", "detail", "study", *STEPS}  # of tables, not metrics


@dataclass(slots=True)
class Attempt:
    """One attempt at a lane."""

    pack: Pack
    attempt: int  # in this sweep, from 1
    slot: int
    folder: Path
    process: subprocess.Popen[bytes]
    reader: RunReader
    record: dict[str, object]  # for command.json
    began: float = field(default_factory=time.monotonic)
    paused: float = 0.0  # when Ctrl-Z stopped it
    read_at: float = 0.0
    points: int = 0  # that were reported
    why: str = ""  # it was ended: diverged, or out of time
    diverged: bool = False

    def write(self, **further: object) -> None:
        """Write command.json: what ran, with which values, and how it ended."""
        self.record |= further
        (self.folder / "command.json").write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")

    def tail(self, *names: str) -> list[str]:
        """Return the last lines of the first of its logs that has any."""
        for name in names:
            with suppress(OSError), open(self.folder / name, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").split("\n")
                if found := [line.rpartition("\r")[2].rstrip() for line in lines if line.strip()]:
                    return found[-TAIL:]
        return []

    def exit_text(self) -> str:
        """Say how it failed: exit status or signal, and the last line that it wrote; empty for status 0."""
        code = self.process.returncode
        if not code:
            return ""
        how = f"exit status {code}"
        if code < 0:
            with suppress(ValueError):
                how = f"ended by {signal.Signals(-code).name}"
        last = self.tail("stderr.log", "stdout.log")
        return f"{how}: {last[-1].strip()}" if last else how


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run, with all that is known of it where it ran."""

    pack: Pack
    attempt: int
    readout: Readout
    seconds: float
    failure: str = ""  # why it has no value
    diverged: str = ""  # why it was ended as diverged
    is_broken: bool = False  # it failed by its exit status or time-out, not only by what it wrote
    folder: str = ""  # of its logs; empty for a function that was called
    lines: tuple[str, ...] = ()  # the last ones of a log, if it failed
    seen: tuple[str, ...] = ()  # keys
    has_file: bool = True  # there was a file of the kind that is read
    error: Exception | None = None  # that a function raised in this process


def trial(
    cell: Cell, seed: int, readout: Readout, take: str, direction: Direction, diverged: str = ""
) -> Trial:
    """Return the trial of a run that ended by itself or diverged: its last point, or its best."""
    known = not all(map(math.isnan, readout.steps))
    named = {name: values for name, values in readout.curves.items() if name not in _COLUMNS}
    curves = {name: tuple(values) for name, values in named.items()}
    curves |= {readout.unit: tuple(readout.steps)} if known else {}
    if diverged:
        return Trial(cell, seed, Status.DIVERGED, curves=curves, detail=brief(diverged))
    sign = -1 if direction is Direction.MAXIMIZE else 1
    finite = [k for k, value in enumerate(readout.values) if math.isfinite(value)]
    place = finite[-1] if take == "last" else min(finite, key=lambda k: sign * readout.values[k])
    found = readout.latest | {name: values[place] for name, values in named.items()}
    metrics = {name: x for name, x in found.items() if math.isfinite(x) and name not in _COLUMNS}
    return Trial(cell, seed, Status.COMPLETE, metrics, curves)


def start(
    pack: Pack,
    attempt: int,
    slot: int,
    *,
    lanes: Path,  # the folder of the study's lanes
    command: Command,
    own: Sequence[str],  # the words, if it is not a command of the user
    metric: str,
    lower: bool,  # is better
    gpus: str | None,
    slots: int,
) -> Attempt:
    """Start a run in a new folder, or in its former `{out}`. Raises OSError if no process can start."""
    (cell,), seed = pack.cells, pack.seed
    folder = _attempt(lanes / f"lr={cell.lr:.12g},wd={cell.weight_decay:.12g},seed={seed}")
    # A path without = and commas: nanoGPT and Hydra split arguments there.
    # A deleted study's folder is not taken for that of another command.
    end = short_digest(repr(command.identity())) if command.keep_out else folder.name
    out = lanes / "out" / f"lr{cell.lr:.12g}-wd{cell.weight_decay:.12g}-seed{seed}-{end}"
    result = folder / "result.jsonl"
    out.mkdir(parents=True, exist_ok=command.keep_out)
    (folder / "out").symlink_to(os.path.relpath(out, folder))
    threads = max(1, len(os.sched_getaffinity(0)) // slots)
    words = list(own) or command.filled(cell, seed, str(out))
    mine = {
        "LRWD_LR": repr(cell.lr),
        "LRWD_WEIGHT_DECAY": repr(cell.weight_decay),
        "LRWD_SEED": str(seed),
        "LRWD_OUT": str(out),
        "LRWD_RESULT": str(result),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads),
    }
    if own:
        mine["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    if gpus is not None:
        mine["CUDA_VISIBLE_DEVICES"] = gpus
    record: dict[str, object] = {"command": words, "environment": mine, "directory": os.getcwd()}
    path = "" if own else command.path(cell, seed, str(out))
    logs = str(folder / "stdout.log")
    reader = RunReader(command, metric, str(out), str(result), logs, path, lower)
    with open(folder / "stdout.log", "wb") as stdout, open(folder / "stderr.log", "wb") as stderr:
        supervised = [sys.executable, "-I", "-S", str(supervisor.__file__), str(os.getpid())]
        process = subprocess.Popen(
            [*supervised, str(GRACE), str(min(GRACE, PATIENCE)), *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | mine,
            start_new_session=True,
        )
    run = Attempt(pack, attempt, slot, folder, process, reader, record)
    run.write(started=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    return run


def end(running: Sequence[Attempt]) -> None:
    """End runs that go on, and wait for their processes."""
    for run in running:
        run.process.send_signal(signal.SIGINT)
    until = time.monotonic() + PATIENCE + 0.5
    for run in running:
        try:
            run.process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            run.process.kill()
        run.write(status="stopped")


def paused(running: Sequence[Attempt]) -> AbstractContextManager[None]:
    """Stop runs for as long as Ctrl-Z stops this process; their time limits do not count that."""

    def pause() -> None:
        for run in running:
            run.process.send_signal(signal.SIGTSTP)
            run.paused = time.monotonic()

    def resume() -> None:
        for run in running:
            run.process.send_signal(signal.SIGCONT)
            run.began += time.monotonic() - run.paused

    return on_suspension(pause, resume)


def visible_gpus(environ: Mapping[str, str]) -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, else all that the driver lists.

    >>> visible_gpus({"CUDA_VISIBLE_DEVICES": "0,3"}), visible_gpus({"CUDA_VISIBLE_DEVICES": ""})
    (['0', '3'], [])
    """
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        found = [name.strip() for name in named.split(",") if name.strip()]
        return found if "-1" not in found else found[: found.index("-1")]
    with suppress(OSError):
        return [str(k) for k in range(len(os.listdir("/proc/driver/nvidia/gpus")))]
    return []


def gpus_of(slot: int, slots: int, gpus: Sequence[str]) -> str:
    """Return the GPUs of one of several slots: an even share, or one that it shares with others.

    >>> [gpus_of(slot, 2, ["0", "1", "2", "3"]) for slot in (0, 1)], gpus_of(2, 3, ["0", "1"])
    (['0,1', '2,3'], '0')
    """
    if slots >= len(gpus):
        return gpus[slot % len(gpus)]
    low, high = (len(gpus) * k // slots for k in (slot, slot + 1))
    return ",".join(gpus[low:high])


def _attempt(lane: Path) -> Path:
    """Make the folder of the next attempt at a lane."""
    number = 1
    while True:
        try:
            (folder := lane / f"attempt-{number}").mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def run_folder(store: Path, study: str) -> Path:
    """Return the folder of a study's runs, beside its store."""
    return store.resolve().parent / "lrwd-runs" / quote(study, safe=" ,=+:@")


def check_program(command: Command) -> None:
    """Raise UsageError if there is no such program."""
    program = command.template[0]
    if "{" not in program and shutil.which(program) is None:
        raise UsageError(
            f"{arg('run', command.text)}: there is no program {program!r}; name one, or add "
            f"{arg('shell', True)} for a shell's syntax"
        )
