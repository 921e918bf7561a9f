"""Runs of a user's command on this machine: each in a process of its own, or a user's function in this one.

A run is a pack of one lane. Its points are read while it runs; its value is the last or the best of them.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from lrwd_sweep.errors import UsageError, arg, brief
from lrwd_sweep.runner.executors import PATIENCE, POLL, objective, supervisor
from lrwd_sweep.runner.readers import Readout, RunReader
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.field import name_of
from lrwd_sweep.spec.job import EpochDone, Pack, Stopped, short_digest
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.user_command import STEPS, Command

GRACE = 10.0  # seconds between SIGTERM and SIGKILL for a run that is out of time or diverged
READ_EVERY = 0.5  # seconds
TAIL = 20  # lines of a log, shown when the first run gives no value
_FASTEST = 0.01  # seconds between looks at short runs
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


def trial_of(end: RunEnd, spec: StudySpec) -> Trial:
    """Return the trial of a run: its last point or its best, unless it failed or diverged."""
    (cell,), seed, readout = end.pack.cells, end.pack.seed, end.readout
    if end.failure:
        return Trial(cell, seed, Status.FAILED, detail=brief(end.failure))
    named = {name: values for name, values in readout.curves.items() if name not in _COLUMNS}
    curves = {name: tuple(values) for name, values in named.items()}
    if not all(map(math.isnan, readout.steps)):
        curves[readout.unit] = tuple(readout.steps)
    if end.diverged:
        return Trial(cell, seed, Status.DIVERGED, curves=curves, detail=brief(end.diverged))
    sign = -1 if spec.direction is Direction.MAXIMIZE else 1
    finite = [k for k, value in enumerate(readout.values) if math.isfinite(value)]
    is_last = spec.command is not None and spec.command.take == "last"
    place = finite[-1] if is_last else min(finite, key=lambda k: sign * readout.values[k])
    found = readout.latest | {name: values[place] for name, values in named.items()}
    metrics = {name: x for name, x in found.items() if math.isfinite(x) and name not in _COLUMNS}
    return Trial(cell, seed, Status.COMPLETE, metrics, curves)


def _call(command: Command) -> Callable[..., object]:
    if command.call is None:
        raise UsageError(
            f"{arg('objective', command.function)} is a function of a Python script; call "
            "lrwd_sweep.sweep there"
        )
    return command.call


def _divergence(command: Command, readout: Readout) -> str:
    limit = command.diverged_above
    if limit is not None and readout.highest > limit and not readout.lost:
        return f"a loss of {readout.highest:g} is above {limit:g}"
    return readout.lost


class Calls:
    """An executor that calls a user's function in this process, one lane at a time."""

    slots = 1

    def __init__(self, command: Command, metric: str, lower: bool) -> None:
        self.command, self.metric, self.lower = command, metric, lower
        self.begun: list[tuple[Pack, int]] = []

    @property
    def free(self) -> int:
        """Count the slots without a run."""
        return 1 - len(self.begun)

    def begin(self, pack: Pack, attempt: int) -> None:
        """Take a lane, which `messages` trains."""
        self.begun.append((pack, attempt))

    def messages(self, should_stop: Callable[[], bool]) -> Iterator[EpochDone | RunEnd]:
        """Call the function for its lane; yield the points, then the end. Raises Stopped if asked to stop."""
        (pack, attempt), began = self.begun.pop(), time.monotonic()
        (cell,), readout = pack.cells, Readout(self.metric, self.lower, source="the function")
        values, failure, diverged, raised = (cell.lr, cell.weight_decay, pack.seed), "", "", None
        command, is_asked = self.command, False
        try:
            with redirect_stdout(sys.stderr):
                for point in objective.points(_call(command), values, self.metric, command.optimizer):
                    readout.add(point)
                    if self.metric in point:
                        yield EpochDone(pack, len(readout.steps), {self.metric: [point[self.metric]]})
                    if diverged := _divergence(command, readout):
                        break
                    if is_asked := should_stop():
                        break
        except Exception as error:
            raised, failure = error, f"{type(error).__name__}: {error}"
        if is_asked:
            raise Stopped
        if not (failure or diverged or any(map(math.isfinite, readout.values))):
            failure = f"no {self.metric}"
        seconds, is_broken = time.monotonic() - began, raised is not None
        yield RunEnd(pack, attempt, readout, seconds, failure, diverged, is_broken, error=raised)

    def cancel(self) -> None:
        """Forget a lane that was not begun."""
        self.begun.clear()


class RunProcesses:
    """An executor of runs in processes: as many at a time as the command has `jobs`, or one per GPU."""

    def __init__(self, command: Command, metric: str, lower: bool, folder: Path) -> None:
        self.command, self.metric, self.lower, self.folder = command, metric, lower, folder
        self.gpus = visible_gpus(os.environ)
        self.slots = self.command.jobs or max(1, len(self.gpus))
        self.running: list[Attempt] = []
        self.wait = _FASTEST
        self.own: list[str] = []  # the words that call a function
        if self.command.function:
            module, name = objective.__name__, name_of("objective", _call(self.command))
            self.own = [sys.executable, "-m", module, name, self.metric, self.command.optimizer]
        elif not self.command.shell:
            check_program(self.command)

    @property
    def free(self) -> int:
        """Count the slots without a run."""
        return self.slots - len(self.running)

    def begin(self, pack: Pack, attempt: int) -> None:
        """Start a run in a new folder, or in its former `{out}`.

        Raises UsageError if the script changed, OSError if no process can start.
        """
        command, (cell,), seed = self.command, pack.cells, pack.seed
        if command.current_code() != command.code:
            raise UsageError(
                f"{command.stem} or a file that it imports has changed since this sweep began; finished runs "
                "are kept; run the command again under another study name"
            )
        folder = _new_attempt(self.folder / f"lr={cell.lr:.12g},wd={cell.weight_decay:.12g},seed={seed}")
        # A path without = and commas: nanoGPT and Hydra split arguments there.
        # A deleted study's folder is not taken for that of another command.
        end = short_digest(repr(command.identity())) if command.keep_out else folder.name
        out = self.folder / "out" / f"lr{cell.lr:.12g}-wd{cell.weight_decay:.12g}-seed{seed}-{end}"
        result, stdout = str(folder / "result.jsonl"), str(folder / "stdout.log")
        out.mkdir(parents=True, exist_ok=command.keep_out)
        (folder / "out").symlink_to(os.path.relpath(out, folder))
        slot = min(set(range(self.slots)) - {run.slot for run in self.running})
        words = self.own or command.filled(cell, seed, str(out))
        mine = {
            "LRWD_LR": repr(cell.lr),
            "LRWD_WEIGHT_DECAY": repr(cell.weight_decay),
            "LRWD_SEED": str(seed),
            "LRWD_OUT": str(out),
            "LRWD_RESULT": result,
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")
            or str(max(1, len(os.sched_getaffinity(0)) // self.slots)),
        }
        if self.own:
            mine["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        if self.gpus and self.slots > 1:
            mine["CUDA_VISIBLE_DEVICES"] = gpus_of(slot, self.slots, self.gpus)
        record: dict[str, object] = {"command": words, "environment": mine, "directory": os.getcwd()}
        path = "" if self.own else command.path(cell, seed, str(out))
        reader = RunReader(command, self.metric, str(out), result, stdout, path, self.lower)
        supervised = [sys.executable, "-I", "-S", str(supervisor.__file__), str(os.getpid())]
        with open(stdout, "wb") as output, open(folder / "stderr.log", "wb") as errors:
            process = subprocess.Popen(
                [*supervised, str(GRACE), str(min(GRACE, PATIENCE)), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=os.environ | mine,
                start_new_session=True,
            )
        run = Attempt(pack, attempt, slot, folder, process, reader, record)
        run.write(started=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        self.running.append(run)

    def messages(self, _: object = None) -> Iterator[EpochDone | RunEnd]:
        """Yield new points and ends, then wait up to POLL seconds if runs go on."""
        ended = []
        for run in self.running:
            has_ended = run.process.poll() is not None
            ended += [run] * has_ended
            yield from self._watch(run, has_ended)
        self.running[:] = [run for run in self.running if run not in ended]
        for run in ended:
            yield self._end_of(run)
        self.wait = _FASTEST if ended else min(2 * self.wait, POLL)
        if self.running:
            time.sleep(self.wait)

    def _watch(self, run: Attempt, has_ended: bool) -> Iterator[EpochDone]:
        """Read what is new; end a run that diverged or is out of time."""
        now, limit = time.monotonic(), self.command.timeout
        if now - run.read_at >= READ_EVERY or has_ended:
            run.read_at = now
            readout = run.reader.poll(end=has_ended)
            if len(readout.steps) > run.points:
                run.points = len(readout.steps)
                yield EpochDone(run.pack, run.points, {self.metric: [readout.values[-1]]})
            if not run.why and (why := _divergence(self.command, readout)):
                run.why, run.diverged = why, True
                run.process.terminate()
        if not run.why and not has_ended and limit is not None and now - run.began > limit:
            run.why = f"it did not end within {limit:g} s"
            run.process.terminate()

    def _end_of(self, run: Attempt) -> RunEnd:
        """Describe the end of a run, and write it beside its logs."""
        seconds, readout = time.monotonic() - run.began, run.reader.readout
        failure = "" if run.diverged else run.why or run.exit_text()
        is_broken = bool(run.process.returncode or run.why)
        if not failure and not run.diverged and not any(map(math.isfinite, readout.values)):
            failure = f"no {self.metric}"
        code = run.process.returncode
        status = Status.DIVERGED if run.diverged else Status.FAILED if failure else Status.COMPLETE
        run.write(seconds=round(seconds, 3), exit=code, status=status, detail=failure or run.why)
        logs = ("stderr.log", "stdout.log") if is_broken else ("stdout.log", "stderr.log")
        return RunEnd(
            run.pack,
            run.attempt,
            readout,
            seconds,
            failure,
            run.why if run.diverged else "",
            is_broken,
            str(run.folder),
            tuple(run.tail(*logs)) if failure else (),
            tuple(run.reader.seen),
            run.reader.file is not None,
        )

    def cancel(self) -> None:
        """End runs that go on, and wait for their processes."""
        for run in self.running:
            run.process.send_signal(signal.SIGINT)
        until = time.monotonic() + PATIENCE + 0.5
        for run in self.running:
            try:
                run.process.wait(max(until - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                run.process.kill()
            run.write(status="stopped")
        self.running.clear()

    def pause(self) -> None:
        """Stop the runs, as Ctrl-Z stops this process."""
        for run in self.running:
            run.process.send_signal(signal.SIGTSTP)
            run.paused = time.monotonic()

    def resume(self) -> None:
        """Let the runs go on; their time limits do not count the pause."""
        for run in self.running:
            run.process.send_signal(signal.SIGCONT)
            run.began += time.monotonic() - run.paused


def open_runs(spec: StudySpec, folder: Path, *, on_node: bool = False) -> Calls | RunProcesses:
    """Return the executor of a command's runs on this machine, one at a time if it is a cluster's node.

    Their logs go to `folder`. Raises UsageError for a program that does not exist, or a function that other
    processes cannot import.
    """
    assert spec.command is not None, "a study of a task trains in the engine"
    command = replace(spec.command, jobs=1) if on_node else spec.command
    is_call = command.function and command.jobs in (None, 1) and not command.timeout
    lower = spec.direction is Direction.MINIMIZE
    return (
        Calls(command, spec.metric, lower) if is_call else RunProcesses(command, spec.metric, lower, folder)
    )


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


def _new_attempt(lane: Path) -> Path:
    """Make the folder of the next attempt at a lane."""
    number = 0
    while True:
        number += 1
        folder = lane / f"attempt-{number}"
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder


def check_program(command: Command) -> None:
    """Raise UsageError if there is no such program."""
    program = command.template[0]
    if "{" not in program and shutil.which(program) is None:
        raise UsageError(
            f"{arg('run', command.text)}: there is no program {program!r}; name one, or add "
            f"{arg('shell', True)} for a shell's syntax"
        )
