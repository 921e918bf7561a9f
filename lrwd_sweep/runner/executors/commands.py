"""Runs of a user's command, each in a process of its own, or of a user's function in this one.

A run is a pack of one lane. Its points are read while it runs; its value is the last or the best of them.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from lrwd_sweep.errors import HostError, UsageError, arg, brief
from lrwd_sweep.report.view.notation import about, counted
from lrwd_sweep.runner.executors import POLL, objective
from lrwd_sweep.runner.executors.run_process import (
    TAIL,
    Attempt,
    RunEnd,
    check_program,
    end,
    gpus_of,
    paused,
    start,
    trial,
    visible_gpus,
)
from lrwd_sweep.runner.readers import Readout
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.field import name_of
from lrwd_sweep.spec.job import WHOLE, EpochDone, Event, Pack, PackDone, Shard, Stopped
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.user_command import STEPS

ATTEMPTS = 2  # of a run that fails
READ_EVERY = 0.5  # seconds
SOON, MOST_SOON = 60.0, 3  # so many failures within so many seconds stop the sweep
MOST_IN_A_ROW = 5
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
        self.running: list[Attempt] = []
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
            check_program(self.command)
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
        with paused(self.running):
            if self.first and waiting:
                for event in self._runs(deque([waiting.popleft()]), should_stop):
                    yield event
                    if isinstance(event, PackDone):
                        self.first = False
            yield from self._runs(waiting, should_stop)

    def _runs(
        self, waiting: deque[tuple[Pack, int]], should_stop: Callable[[], bool]
    ) -> Generator[Event, None, None]:
        running, pause = self.running, _FASTEST
        try:
            while waiting or running:
                if should_stop():
                    raise Stopped
                while waiting and len(running) < self.slots:
                    pack, attempt = waiting.popleft()
                    if self.here:
                        for event in self._called(pack, attempt, should_stop):
                            yield from (
                                self._settle(event, waiting) if isinstance(event, RunEnd) else (event,)
                            )
                        break
                    free = min(set(range(self.slots)) - {run.slot for run in running})
                    running.append(self._start(pack, attempt, free))
                ended = []
                for run in running:
                    if run.process.poll() is not None:
                        ended.append(run)
                    yield from self._watch(run)
                running[:] = [run for run in running if run not in ended]
                for run in ended:
                    yield from self._settle(self._end_of(run), waiting)
                pause = _FASTEST if ended else min(2 * pause, POLL)
                if running:
                    time.sleep(pause)
        finally:
            end(running)
            running.clear()

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

    def _watch(self, run: Attempt) -> Iterator[EpochDone]:
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

    def lane(
        self, pack: Pack, attempt: int, should_stop: Callable[[], bool]
    ) -> Generator[EpochDone | RunEnd, None, None]:
        """Run one lane to its end, the last thing yielded. Raises Stopped when asked to stop."""
        if self.here:
            yield from self._called(pack, attempt, should_stop)
            return
        run, pause, is_over = self._start(pack, attempt, 0), _FASTEST, False
        try:
            while not is_over:
                if should_stop():
                    raise Stopped
                is_over = run.process.poll() is not None
                yield from self._watch(run)
                pause = min(2 * pause, POLL)
                time.sleep(0 if is_over else pause)
            yield self._end_of(run)
        finally:
            if not is_over:
                end([run])

    def _end_of(self, run: Attempt) -> RunEnd:
        """Describe the end of a run, and write it beside its logs."""
        seconds, readout = time.monotonic() - run.began, run.reader.readout
        failure = "" if run.diverged else run.why or run.exit_text()
        broken = bool(run.process.returncode or run.why)
        if not failure and not run.diverged and not any(map(math.isfinite, readout.values)):
            failure = f"no {self.metric}"
        status = Status.DIVERGED if run.diverged else Status.FAILED if failure else Status.COMPLETE
        run.write(
            seconds=round(seconds, 3), exit=run.process.returncode, status=status, detail=failure or run.why
        )
        logs = ("stderr.log", "stdout.log") if broken else ("stdout.log", "stderr.log")
        return RunEnd(
            run.pack,
            run.attempt,
            readout,
            seconds,
            failure,
            run.why if run.diverged else "",
            broken,
            str(run.folder),
            tuple(run.tail(*logs)) if failure else (),
            tuple(run.reader.seen),
            run.reader.file is not None,
        )

    def _settle(self, end: RunEnd, waiting: deque[tuple[Pack, int]]) -> Iterator[Event]:
        """Yield what a run gave, or try it again. Raises HostError after too many failures."""
        first = self.first
        if first and end.failure:
            self._refuse_first(end)
        if end.failure:
            if end.attempt < ATTEMPTS:
                waiting.appendleft((end.pack, end.attempt + 1))
            else:
                yield PackDone(end.pack, [self.trial_of(end)])
            self._count_failure(end.failure)
        else:
            self.in_a_row = 0
            yield PackDone(end.pack, [self.trial_of(end)])
        if first:
            self.tell(self._estimate(end.readout, end.diverged, end.seconds))

    def trial_of(self, end: RunEnd) -> Trial:
        """Return the trial of a run."""
        (cell,), seed = end.pack.cells, end.pack.seed
        if end.failure:
            return Trial(cell, seed, Status.FAILED, detail=brief(end.failure))
        return trial(cell, seed, end.readout, self.command.take, self.spec.direction, end.diverged)

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

    def _refuse_first(self, end: RunEnd) -> None:
        """Raise an error with the last lines of the first run, which gave no value."""
        if end.error is not None:
            raise end.error
        lines = "".join(f"\n  {line}" for line in end.lines) or "\n  (it wrote nothing)"
        shown = f"; its last lines, from {end.folder!r}:{lines}" if end.folder else ""
        if end.is_broken:
            raise FirstRunFailed(f"the first run failed: {end.failure}; nothing else was started{shown}")
        if not end.folder:
            keys = ", ".join(end.readout.latest) or "nothing"
            raise NothingRead(f"{arg('objective')} gave {keys}, not {self.metric}; give {arg('metric')}")
        raise NothingRead(self._nothing_read(end) + shown)

    def _nothing_read(self, end: RunEnd) -> str:
        keys = [name for name in end.seen if name not in STEPS]
        seen = f"keys seen: {', '.join(keys[:TAIL])}" if keys else "no key was seen"
        where = f"what {arg('read', self.command.read)} reads" if self.command.read else "$LRWD_RESULT"
        if self.command.source[1] and not end.has_file:
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

    def _called(
        self, pack: Pack, attempt: int, should_stop: Callable[[], bool]
    ) -> Iterator[EpochDone | RunEnd]:
        """Call the function for a lane; yield its points, then its end. Raises Stopped when asked to stop."""
        (cell,), began = pack.cells, time.monotonic()
        readout, failure, diverged = Readout(self.metric, self.lower, source="the function"), "", ""
        values, stopped, raised = (cell.lr, cell.weight_decay, pack.seed), False, None
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
            raised, failure = error, f"{type(error).__name__}: {error}"
        if stopped:
            raise Stopped
        if not (failure or diverged or any(map(math.isfinite, readout.values))):
            failure = f"no {self.metric}"
        seconds, is_broken = time.monotonic() - began, raised is not None
        yield RunEnd(pack, attempt, readout, seconds, failure, diverged, is_broken, error=raised)

    def _check_files(self) -> None:
        """Refuse several runs at once that would write the same file."""
        kind, path, _ = self.command.source
        apart = self.command.takes("out") or any(name in path for name in ("{seed", "{lr", "{weight"))
        if kind in ("json", "jsonl", "csv", "tb") and self.slots > 1 and not apart:
            raise UsageError(
                f"{arg('read', self.command.read)}: {self.slots} runs at a time would write the same file; "
                f"pass {{out}} to the script, or give {arg('jobs', 1)}"
            )


def _middle(packs: Sequence[Pack]) -> Pack:
    """Return the lane nearest to the middle of the cells, of the first seed."""
    lr, decay = (sorted({getattr(pack.cells[0], name) for pack in packs}) for name in ("lr", "weight_decay"))

    def far(pack: Pack) -> tuple[int, int]:
        (cell,) = pack.cells
        places = (lr.index(cell.lr) - len(lr) // 2, decay.index(cell.weight_decay) - len(decay) // 2)
        return sum(map(abs, places)), pack.seed

    return min(packs, key=far)
