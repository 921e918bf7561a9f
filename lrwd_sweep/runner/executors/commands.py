"""A user's command or function, run for every lane of a study: one first, the others if it gave a value."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from lrwd_sweep.errors import HostError, UsageError, arg, brief
from lrwd_sweep.report.view.notation import about, counted
from lrwd_sweep.runner.executors.run_process import TAIL, Calls, RunEnd, RunProcesses, open_runs, trial_of
from lrwd_sweep.runner.readers import Readout
from lrwd_sweep.runner.signals import on_suspension
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.job import WHOLE, Event, Pack, PackDone, PackLost, Shard, Stopped
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.user_command import STEPS

if TYPE_CHECKING:
    from lrwd_sweep.runner.executors.ray import RayCluster

ATTEMPTS = 2  # of a run that fails
MACHINES = 3  # that a run may lose before it fails
SOON, MOST_SOON = 60.0, 3  # so many failures within so many seconds stop the sweep
MOST_IN_A_ROW = 5


class NothingRead(UsageError):
    """The first run ended, and no value of the metric was found."""


class FirstRunFailed(HostError):
    """The first run failed."""


class CommandExecution:
    """A command or function that is ready to run, on this machine or a cluster; its logs go to `folder`.

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
        cluster: RayCluster | None = None,
        key: str = "",  # of the study, in the spool of the cluster
    ) -> None:
        assert spec.command is not None, "a study of a task trains in the engine"
        self.spec, self.command, self.folder = spec, spec.command, folder
        self.first, self.runs, self.tell = first, runs, tell
        self.failures: list[tuple[float, str]] = []
        self.in_a_row = 0
        self.executor: Calls | RunProcesses | RayCluster
        if cluster is None:
            self.executor = open_runs(spec, folder)
            self.slots = self.executor.slots
        else:
            open_runs(spec, folder, on_node=True)  # refuses what a node would refuse
            cluster.prepare(spec, key=key, folder=folder)
            self.executor = cluster
            self.slots = min(cluster.slots, spec.command.jobs or cluster.slots)
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
        self, optimizer: Optimizer, packs: Sequence[Pack], should_stop: Callable[[], bool] = lambda: False
    ) -> Generator[Event, None, None]:
        """Run the packs and yield their events. Raises Stopped when asked to stop.

        A run that fails is tried once more. Raises HostError after too many failures, NothingRead or
        FirstRunFailed if the very first run gives no value.
        """
        waiting = deque((pack, 1) for pack in packs)
        processes = self.executor if isinstance(self.executor, RunProcesses) else None
        with on_suspension(processes.pause, processes.resume) if processes else nullcontext():
            if self.first and waiting:
                for event in self._runs(deque([waiting.popleft()]), should_stop):
                    yield event
                    if isinstance(event, PackDone):
                        self.first = False
            yield from self._runs(waiting, should_stop)

    def _runs(
        self, waiting: deque[tuple[Pack, int]], should_stop: Callable[[], bool]
    ) -> Generator[Event, None, None]:
        executor, jobs = self.executor, self.command.jobs
        running: dict[Pack, int] = {}  # with the number of the attempt
        lost: Counter[Pack] = Counter()
        try:
            while waiting or running:
                if should_stop():
                    raise Stopped
                while waiting and executor.free and (jobs is None or len(running) < jobs):
                    pack, attempt = waiting.popleft()
                    executor.begin(pack, attempt)
                    running[pack] = attempt
                for message in executor.messages(should_stop):
                    if isinstance(message, RunEnd):
                        del running[message.pack]
                        yield from self._settle(message, waiting)
                    elif isinstance(message, PackLost):
                        pack, attempt = message.pack, running.pop(message.pack)
                        lost[pack] += 1
                        if lost[pack] < MACHINES:
                            waiting.appendleft((pack, attempt))
                        else:
                            readout = Readout(self.spec.metric)
                            end = RunEnd(pack, ATTEMPTS, readout, 0.0, message.reason, is_broken=True)
                            yield from self._settle(end, waiting)
                    else:
                        yield message
        finally:
            executor.cancel()

    def _settle(self, end: RunEnd, waiting: deque[tuple[Pack, int]]) -> Iterator[Event]:
        """Yield what a run gave, or try it again. Raises HostError after too many failures."""
        first = self.first
        if first and end.failure:
            self._refuse_first(end)
        if end.failure:
            if end.attempt < ATTEMPTS:
                waiting.appendleft((end.pack, end.attempt + 1))
            else:
                yield PackDone(end.pack, [trial_of(end, self.spec)])
            self._count_failure(end.failure)
        else:
            self.in_a_row = 0
            yield PackDone(end.pack, [trial_of(end, self.spec)])
        if first:
            self.tell(self._estimate(end.readout, end.diverged, end.seconds))

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
            raise NothingRead(f"{arg('objective')} gave {keys}, not {self.spec.metric}; give {arg('metric')}")
        raise NothingRead(self._nothing_read(end) + shown)

    def _nothing_read(self, end: RunEnd) -> str:
        keys = [name for name in end.seen if name not in STEPS]
        seen = f"keys seen: {', '.join(keys[:TAIL])}" if keys else "no key was seen"
        where = f"what {arg('read', self.command.read)} reads" if self.command.read else "$LRWD_RESULT"
        if self.command.source[1] and not end.has_file:
            where = f"{arg('read', self.command.read)}, for which there was no file in {{out}} or here"
        ways = [arg("metric", "NAME"), arg("read", "auto"), arg("read", "stdout:REGEX")]
        ways = [way for way in ways if way != arg("read", self.command.read)]
        remedy = "" if self.command.function else f"give {' or '.join(ways)}"
        return "; ".join(
            filter(None, [f"the first run ended without {self.spec.metric} in {where}", seen, remedy])
        )

    def _estimate(self, readout: Readout, diverged: str, seconds: float) -> str:
        """Say what the first run gave, how long it took, and how long all will take."""
        if diverged:
            found = f"the first run diverged: {diverged}"
        else:
            at = f" at {readout.unit} {readout.steps[-1]:g}" if readout.unit else ""
            points = counted(len(readout.steps), "point")
            found = f"{self.spec.metric} {readout.values[-1]:.4g}{at} from {readout.source}, {points}"
        left = about(max(self.runs - 1, 0) * seconds / self.slots)
        each = about(seconds).removeprefix("about ")
        return f"{found}; {each}; {counted(self.runs, 'run')}, {self.slots} at a time: {left}"

    def _check_files(self) -> None:
        """Refuse several runs at once that would write the same file."""
        kind, path, _ = self.command.source
        apart = self.command.takes("out") or any(name in path for name in ("{seed", "{lr", "{weight"))
        if kind in ("json", "jsonl", "csv", "tb") and self.slots > 1 and not apart:
            raise UsageError(
                f"{arg('read', self.command.read)}: {self.slots} runs at a time would write the same file; "
                f"pass {{out}} to the script, or give {arg('jobs', 1)}"
            )


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
