"""Runs of a user's command, each in a process of its own, or of a user's function in this one.

A run is a pack of one lane. Its points are read while it runs; its value is the last or the best of them.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from urllib.parse import quote

from lrwd_sweep.errors import HostError, UsageError, arg, brief
from lrwd_sweep.report.view.notation import about, counted
from lrwd_sweep.runner.executors import POLL, objective
from lrwd_sweep.runner.executors.run_process import TAIL, Attempt, end, gpus_of, start, visible_gpus
from lrwd_sweep.runner.readers import Readout
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.job import EpochDone, Event, Pack, PackDone, Stopped
from lrwd_sweep.spec.request import name_of
from lrwd_sweep.spec.shard import WHOLE, Shard
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.user_command import STEPS, Command

ATTEMPTS = 2  # of a run that fails
READ_EVERY = 0.5  # seconds
SOON, MOST_SOON = 60.0, 3  # so many failures within so many seconds stop the sweep
MOST_IN_A_ROW = 5
_COLUMNS = {"lr", "weight_decay", "seed", "status", "detail", "study", *STEPS}  # of tables, not metrics
_FASTEST = 0.01  # seconds between looks at short runs


class NothingRead(UsageError):
    """The first run ended, and no value of the metric was found."""


class FirstRunFailed(HostError):
    """The first run failed."""


class CommandExecution:
    """A command that is ready to run, `jobs` times at once; its logs go to `folder`.

    `first` is false if the study has results: else one run in the middle goes first, and `tell` what it gave.
    Raises UsageError for a program that does not exist.
    """

    checkpoints = None  # a run keeps its own state, if it does

    def __init__(
        self,
        spec: StudySpec,
        folder: Path,
        *,
        first: bool = True,
        runs: int = 0,  # in all, for the estimate of time
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        assert spec.command is not None, "a study of a task trains in the engine"
        self.spec, self.command, self.folder = spec, spec.command, folder
        self.first, self.runs, self.tell = first, runs, tell
        self.metric, self.lower = spec.metric, spec.direction is Direction.MINIMIZE
        self.gpus = visible_gpus(os.environ)
        self.slots = self.command.jobs or max(1, len(self.gpus))
        self.here = (
            bool(self.command.function) and self.command.jobs in (None, 1) and not self.command.timeout
        )
        self.failures: list[tuple[float, str]] = []
        self.in_a_row = 0
        self.own: list[str] = []  # the words that call a function
        if self.here:
            self.slots = 1
        elif self.command.function:
            module = "lrwd_sweep.runner.executors.objective"
            name = name_of("objective", self._call)
            self.own = [sys.executable, "-m", module, name, self.metric, self.command.optimizer]
        elif not self.command.shell:
            _check_program(self.command)
        self._check_files()

    def example(self, shard: Shard = WHOLE) -> tuple[str, ...]:
        """Return the words of the run in the middle of the lattice, for a user to read."""
        cells = list(self.spec.lattice.cells())
        pack = _middle(self.plan(shard.among(dict.fromkeys(self.spec.seeds, cells))))
        return self.command.pasted(pack.cells[0], pack.seed)

    def lanes_at_once(self, max_lanes: int | None = None, optimizer: Optimizer | None = None) -> int:
        """Count the runs at a time."""
        return self.slots

    def plan(
        self,
        todo: Mapping[int, Sequence[Cell]],
        max_lanes: int | None = None,
        optimizer: Optimizer | None = None,
    ) -> list[Pack]:
        """Return a pack per lane; before any result the one in the middle goes first."""
        packs = [Pack((cell,), seed) for seed, cells in todo.items() for cell in cells]
        if self.first and packs:
            middle = _middle(packs)
            packs.sort(key=lambda pack: pack != middle)
        return packs

    def train(
        self,
        optimizer: Optimizer,
        packs: Sequence[Pack],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Event, None, None]:
        """Run the packs and yield their events. Raises Stopped when asked to stop.

        A run that fails is tried once more. Raises HostError after too many failures, NothingRead or
        FirstRunFailed if the very first run gives no value.
        """
        waiting = deque((pack, 1) for pack in packs)
        if self.first and waiting:
            pack, attempt = waiting.popleft()
            for event in self._runs(deque([(pack, attempt)]), should_stop):
                yield event
                if isinstance(event, PackDone):
                    self.first = False
        yield from self._runs(waiting, should_stop)

    def _runs(
        self, waiting: deque[tuple[Pack, int]], should_stop: Callable[[], bool]
    ) -> Generator[Event, None, None]:
        running: list[Attempt] = []
        pause = _FASTEST
        try:
            while waiting or running:
                if should_stop():
                    raise Stopped
                while waiting and len(running) < self.slots:
                    pack, attempt = waiting.popleft()
                    if self.here:
                        yield from self._call_here(pack, attempt, waiting, should_stop)
                        break
                    free = min(set(range(self.slots)) - {run.slot for run in running})
                    running.append(self._start(pack, attempt, free))
                ended = []
                for run in running:
                    if run.process.poll() is not None:
                        ended.append(run)
                    yield from self._watch(run)
                running = [run for run in running if run not in ended]
                for run in ended:
                    yield from self._finish(run, waiting)
                pause = _FASTEST if ended else min(2 * pause, POLL)
                if running:
                    time.sleep(pause)
        finally:
            end(running)

    def _start(self, pack: Pack, attempt: int, slot: int) -> Attempt:
        """Start a run. Raises UsageError if the script changed."""
        if self.command.current_code() != self.command.code:
            raise UsageError(
                f"{self.command.stem} or a file that it imports has changed since this sweep began; finished "
                "runs are kept; run the command again under another study name"
            )
        return start(
            pack,
            attempt,
            slot,
            lanes=self.folder,
            command=self.command,
            own=self.own,
            metric=self.metric,
            lower=self.lower,
            gpus=gpus_of(slot, self.slots, self.gpus) if self.gpus and self.slots > 1 else None,
            slots=self.slots,
        )

    def _watch(self, run: Attempt) -> Iterator[Event]:
        """Read what is new; end a run that diverged or is out of time."""
        now, ended = time.monotonic(), run.process.poll() is not None
        if now - run.read_at >= READ_EVERY or ended:
            run.read_at = now
            readout = run.reader.poll(end=ended)
            if len(readout.steps) > run.points:
                run.points = len(readout.steps)
                yield EpochDone(run.pack, run.points, {self.metric: [readout.values[-1]]})
            if not run.why and (why := self._divergence(readout)):
                run.why, run.diverged = why, True
                run.process.terminate()
        limit = self.command.timeout
        if not run.why and not ended and limit is not None and now - run.began > limit:
            run.why = f"it did not end within {limit:g} s"
            run.process.terminate()

    def _divergence(self, readout: Readout) -> str:
        limit = self.command.diverged_above
        if limit is not None and readout.highest > limit and not readout.lost:
            return f"a loss of {readout.highest:g} is above {limit:g}"
        return readout.lost

    def _finish(self, run: Attempt, waiting: deque[tuple[Pack, int]]) -> Iterator[Event]:
        """Store what a run gave, or try it again. Raises HostError after too many failures."""
        seconds, readout, first = time.monotonic() - run.began, run.reader.readout, self.first
        failure = "" if run.diverged else run.why or run.exit_text()
        if not failure and not run.diverged and not any(map(math.isfinite, readout.values)):
            failure = f"no {self.metric}"
        status = Status.DIVERGED if run.diverged else Status.FAILED if failure else Status.COMPLETE
        run.write(
            seconds=round(seconds, 3), exit=run.process.returncode, status=status, detail=failure or run.why
        )
        if first and failure:
            self._refuse_first(run, failure)
        yield from self._ended(run.pack, run.attempt, readout, failure, run.why, waiting)
        if first:
            self.tell(self._estimate(readout, run.why, seconds))

    def _ended(
        self,
        pack: Pack,
        attempt: int,
        readout: Readout,
        failure: str,
        diverged: str,
        waiting: deque[tuple[Pack, int]],
    ) -> Iterator[Event]:
        (cell,) = pack.cells
        if failure:
            if attempt < ATTEMPTS:
                waiting.appendleft((pack, attempt + 1))
            else:
                yield PackDone(pack, [Trial(cell, pack.seed, Status.FAILED, detail=brief(failure))])
            self._count_failure(failure)
            return
        self.in_a_row = 0
        yield PackDone(
            pack, [trial(cell, pack.seed, readout, self.command.take, self.spec.direction, diverged)]
        )

    def _count_failure(self, failure: str) -> None:
        now = time.monotonic()
        self.failures.append((now, brief(failure)))
        self.in_a_row += 1
        soon = [text for at, text in self.failures if now - at <= SOON]
        if len(soon) >= MOST_SOON or self.in_a_row >= MOST_IN_A_ROW:
            texts = Counter(text for _, text in self.failures)
            lines = [f"{text} ({count} times)" if count > 1 else text for text, count in texts.items()]
            what = f"{len(soon)} failures within a minute"
            if len(soon) < MOST_SOON:
                what = f"{self.in_a_row} failures in a row"
            raise HostError(
                f"stopped after {what}; finished runs are kept, and the same command continues; logs are in "
                f"{str(self.folder)!r}:\n" + "\n".join(lines)
            )

    def _refuse_first(self, run: Attempt, failure: str) -> None:
        """Raise an error with the last lines of the first run, which gave no value."""
        failed = bool(run.process.returncode or run.why)
        shown = run.tail(*(("stderr.log", "stdout.log") if failed else ("stdout.log", "stderr.log")))
        lines = "".join(f"\n  {line}" for line in shown) or "\n  (it wrote nothing)"
        if failed:
            raise FirstRunFailed(
                f"the first run failed: {failure}; nothing else was started; its last lines, from "
                f"{str(run.folder)!r}:{lines}"
            )
        raise NothingRead(self._nothing_read(run) + f"; its last lines, from {str(run.folder)!r}:{lines}")

    def _nothing_read(self, run: Attempt) -> str:
        keys = [name for name in run.reader.seen if name not in STEPS]
        seen = f"keys seen: {', '.join(keys[:TAIL])}" if keys else "no key was seen"
        where = f"what {arg('read', self.command.read)} reads" if self.command.read else "$LRWD_RESULT"
        if self.command.source[1] and run.reader.file is None:
            where = f"{arg('read', self.command.read)}, for which there was no file in {{out}} or here"
        ways = [arg("metric", "NAME"), arg("read", "auto"), arg("read", "stdout:REGEX")]
        remedy = "" if self.command.function else f"give {' or '.join(ways)}"
        return "; ".join(
            filter(None, [f"the first run ended without {self.metric} in {where}", seen, remedy])
        )

    def _estimate(self, readout: Readout, diverged: str, seconds: float) -> str:
        """Say what the first run gave, how long it took, and how long all will take."""
        if diverged:
            found = f"the first run diverged: {diverged}"
        else:
            at = f" at {readout.unit} {readout.steps[-1]:g}" if readout.unit else ""
            points = counted(len(readout.steps), "point")
            found = f"{self.metric} {readout.values[-1]:.4g}{at} from {readout.source}, {points}"
        left = about(max(self.runs - 1, 0) * seconds / self.slots)
        each = about(seconds).removeprefix("about ")
        return f"{found}; {each}; {counted(self.runs, 'run')}, {self.slots} at a time: {left}"

    # In this process.

    @property
    def _call(self) -> Callable[..., object]:
        if self.command.call is None:
            raise UsageError(
                f"{arg('objective', self.command.function)} is a function of a Python script; call "
                "lrwd_sweep.sweep there"
            )
        return self.command.call

    def _call_here(
        self,
        pack: Pack,
        attempt: int,
        waiting: deque[tuple[Pack, int]],
        should_stop: Callable[[], bool],
    ) -> Iterator[Event]:
        (cell,), began, first = pack.cells, time.monotonic(), self.first
        readout, failure, diverged = Readout(self.metric, self.lower, source="the function"), "", ""
        values, stopped = (cell.lr, cell.weight_decay, pack.seed), False
        try:
            with redirect_stdout(sys.stderr):
                for point in objective.points(self._call, values, self.metric, self.command.optimizer):
                    readout.add(point)
                    if self.metric in point:
                        yield EpochDone(pack, len(readout.steps), {self.metric: [point[self.metric]]})
                    if diverged := self._divergence(readout):
                        break
                    stopped = should_stop()
                    if stopped:
                        break
        except Exception as error:
            if self.first:
                raise
            failure = f"{type(error).__name__}: {error}"
        if stopped:
            raise Stopped
        if not (failure or diverged or any(map(math.isfinite, readout.values))):
            failure = f"no {self.metric}"
            if self.first:
                keys = ", ".join(readout.latest) or "nothing"
                raise NothingRead(f"{arg('objective')} gave {keys}, not {self.metric}; give {arg('metric')}")
        yield from self._ended(pack, attempt, readout, failure, diverged, waiting)
        if first:
            self.tell(self._estimate(readout, diverged, time.monotonic() - began))

    def _check_files(self) -> None:
        """Refuse several runs at once that would write the same file."""
        kind, path, _ = self.command.source
        apart = self.command.takes("out") or any(name in path for name in ("{seed", "{lr", "{weight"))
        if kind in ("json", "jsonl", "csv", "tb") and self.slots > 1 and not apart:
            raise UsageError(
                f"{arg('read', self.command.read)}: {self.slots} runs at a time would write the same file; "
                f"pass {{out}} to the script, or give {arg('jobs', 1)}"
            )


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


def run_folder(store: Path, study: str) -> Path:
    """Return the folder of a study's runs, beside its store."""
    return store.resolve().parent / "lrwd-runs" / quote(study, safe=" ,=+:@")


def _middle(packs: Sequence[Pack]) -> Pack:
    """Return the lane nearest to the middle of the cells, of the first seed."""
    lr, decay = (sorted({getattr(pack.cells[0], name) for pack in packs}) for name in ("lr", "weight_decay"))

    def far(pack: Pack) -> tuple[int, int]:
        (cell,) = pack.cells
        places = (lr.index(cell.lr) - len(lr) // 2, decay.index(cell.weight_decay) - len(decay) // 2)
        return sum(map(abs, places)), pack.seed

    return min(packs, key=far)


def _check_program(command: Command) -> None:
    program = command.template[0]
    if "{" not in program and shutil.which(program) is None:
        raise UsageError(
            f"{arg('run', command.text)}: there is no program {program!r}; name one, or add "
            f"{arg('shell', True)} for a shell's syntax"
        )
