"""Progress of one command on stderr: all its lattices on a terminal, a line every 30 s elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.result import count_runs, surface_of
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.notation import about, counted, spent, styled
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import WHOLE, ClusterState, EpochDone, Pack, PackDone, Shard
from lrwd_sweep.spec.study import Kind, StudySpec, labels

Lane = tuple[Cell, int]  # cell and seed
Latest = tuple[Status, float | None]  # a lane's status and last value of the metric that ranks

SECONDS_BETWEEN_PICTURES = 0.5
SECONDS_BETWEEN_LINES = 30.0
SECONDS_TO_FIRST_LINE = 5.0  # of training, to know the time left
_SHARE = 0.03  # of one core, for large pictures
_LINES_BESIDE_PICTURE = 2  # the progress bar and the cursor
_LINES_BESIDE_ROWS = 3  # of a picture without legend: heading, axis, and one to spare
_FEWEST_ROWS = 3
_BAR = (8, 24)  # characters of the bar at least and at most
_TEXT = 62  # characters beside the bar that it leaves if it can


class Course:
    """The runs of one study, finished and in training: the `Watcher` of its training."""

    def __init__(
        self, owner: Progress, spec: StudySpec, title: str, points: int | None, known: Sequence[Trial]
    ) -> None:
        self.owner, self.spec, self.title = owner, spec, title
        shard, seeds = owner.shard, spec.seeds
        self.total = points * len(seeds) if points else count_runs(spec, known, shard)
        self.steps, self.epochs = (spec.task.steps, spec.task.epochs) if spec.task else (1, 1)
        self.finished: dict[Lane, Latest] = {}  # without curves, which would take most memory
        self.running: dict[Lane, Latest] = {}  # after the last epoch that was evaluated
        self.packs: dict[Pack, int] = {}  # unfinished ones, with their finished epochs
        self.cluster = ""  # nodes and packs in flight
        self.trained = 0  # runs that finished while this watched
        self.began = self.ended = 0.0  # time of the clock; 0: not yet
        cells = None if spec.is_search else set(spec.lattice.cells())
        for trial in known:
            asked = trial.seed in seeds and (cells is None or trial.cell in cells)
            asked = asked and shard.holds(trial.cell, trial.seed)
            if asked and (trial.status is not Status.FAILED or owner.watches):  # else it trains again
                self._keep(trial)
        self.total = len(self.finished) if spec.kind is Kind.IMPORT else self.total

    def begin(self, packs: Sequence[Pack]) -> None:
        """Start on these packs; forget those that began earlier and did not finish."""
        with self.owner.lock:
            self.packs = dict.fromkeys(packs, 0)
            if self.spec.refine is not None:  # a further round
                self.total = len(self.finished) + sum(len(pack.cells) for pack in packs)
            self.owner.started(self)

    def happened(self, event: EpochDone | PackDone | ClusterState) -> None:
        """Record that a pack finished an epoch, or is finished and stored, or where packs train."""
        with self.owner.lock:
            if isinstance(event, ClusterState):
                self.cluster, self.owner.is_new = str(event), True
                return
            if isinstance(event, PackDone):
                self.packs.pop(event.pack, None)
                self.trained += len(event.trials)
                for trial in event.trials:
                    self._keep(trial)
            else:
                self.packs[event.pack] = event.epoch if self.spec.command is None else 0
                values = event.metrics.get(self.spec.metric)  # None where the epoch was not evaluated
                for cell, value in zip(event.pack.cells, values, strict=True) if values else ():
                    status = Status.COMPLETE if abs(value) < float("inf") else Status.DIVERGED
                    self.running[cell, event.pack.seed] = status, value
            self.owner.changed()

    def stored(self, spec: StudySpec, trials: Sequence[Trial]) -> None:
        """Record what another process has stored of the study."""
        with self.owner.lock:
            before, self.spec = len(self.finished), spec
            for trial in trials:
                self._keep(trial)
            self.total = count_runs(spec, trials) if spec.kind is Kind.GRID else self.total
            if len(self.finished) > before:
                self.trained += len(self.finished) - before
                self.began = self.began or time.monotonic()
                self.owner.current = self
                self.owner.changed()
                if self.whole:
                    self.owner.ended(self)

    def _keep(self, trial: Trial) -> None:
        lane = trial.cell, trial.seed
        self.finished[lane] = trial.status, trial.metrics.get(self.spec.metric)
        self.running.pop(lane, None)

    @property
    def done(self) -> int:
        """The number of finished runs, including those of other processes."""
        if self.ended:
            return self.total
        if self.packs and self.spec.kind is Kind.GRID:
            return self.total - sum(len(pack.cells) for pack in self.packs)
        return min(len(self.finished), self.total)

    @property
    def whole(self) -> bool:
        """True once every run is finished."""
        return self.done >= self.total

    @property
    def passed(self) -> float:
        """The steps of runs that passed while this watched."""
        return self.trained * self.steps + self._under_way

    @property
    def left(self) -> float:
        """The steps of runs that are still to train."""
        return (self.total - self.done) * self.steps - self._under_way

    @property
    def _under_way(self) -> float:
        return sum(len(pack.cells) * epoch for pack, epoch in self.packs.items()) * self.steps / self.epochs

    @property
    def epoch(self) -> int | None:
        """The finished epochs of the slowest pack in training; None without one."""
        return min((epoch for epoch in self.packs.values() if epoch), default=0) if self.packs else None

    def heatmap(self, *, early: bool) -> Heatmap:
        """Draw finished runs, or if `early` the last values of those in training, dim."""
        lanes, spec = (self.running if early else self.finished), self.spec
        if early:
            spec = replace(spec, seeds=(*spec.seeds, max(spec.seeds) + 1))  # a seed is missing: dim
        trials = (
            Trial(cell, seed, status, {} if value is None else {spec.metric: value})
            for (cell, seed), (status, value) in lanes.items()
        )
        marked = self.whole and self.owner.shard == WHOLE
        return Heatmap(surface_of(trials, spec), self.title, spec.formula, marked=marked)


class Progress:
    """The view of one command in training: a context manager that leaves a line on the screen."""

    def __init__(
        self,
        console: Console,
        specs: Mapping[str, StudySpec],
        known: Mapping[str, Sequence[Trial]] | None = None,  # trials in the store, by study
        points: int | None = None,  # of a search
        watches: bool = False,  # another process trains
        shard: Shard = WHOLE,  # of the lanes of lattices
    ) -> None:
        self.console, self.lock, self.watches, self.shard = console, threading.RLock(), watches, shard
        stored = known or {}
        self.courses = {
            name: Course(self, spec, title, points, stored.get(name, ()))
            for (name, spec), title in zip(specs.items(), labels(list(specs.values())), strict=True)
        }
        self.current: Course | None = None
        self.began = self.shown = self.said = time.monotonic()
        self.first: tuple[float, float] | None = None  # time and steps at the first event
        self.last = 0.0  # time of the last one
        self.is_new = True  # since it was last drawn
        self.is_estimated = False  # a line has told the time left
        self.live: Live | None = None
        self.form: tuple[tuple[int, int], int] = (0, 0), 0  # size of the terminal, and picture that fits
        self.widths: list[int] = []  # of the lines drawn
        self.error: OSError | None = None  # stderr cannot be written
        self.stop = threading.Event()
        self.clock = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.lock.acquire()
        self.resume()
        if self.watches:
            done, total = self._runs()
            stored = f"{done} of {counted(total, 'run')} are stored"
            self._line(f"watching {', '.join(c.title for c in self.courses.values())}: {stored}")
        self.clock.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.clock.join()
        self.pause()
        self.lock.release()
        if self.console.is_terminal and not self.watches:
            courses = list(self.courses.values())
            self._line(*self._trained(courses, min((c.began for c in courses if c.began), default=0.0)))
        elif self.current is not None and not self.watches:
            self.ended(self.current)

    def pause(self) -> None:
        """Give the terminal back, for as long as Ctrl-Z stops this process."""
        self.lock.acquire()
        if self.live is not None:
            self.live.stop()
            self.live = None

    def resume(self) -> None:
        """Draw, below what the shell wrote."""
        if self.console.is_terminal:
            self.live = Live(self, console=self.console, transient=True, auto_refresh=False)
            self.live.start()
            self.live.refresh()
        self.lock.release()

    def of(self, name: str) -> Course:
        """Return the watcher of a study."""
        return self.courses[name]

    def started(self, course: Course) -> None:
        """Note that a study trains; another one that did has ended."""
        if self.current is not None and self.current is not course:
            self.current.packs.clear()
            self.current.ended = time.monotonic()
            self.ended(self.current)
        self.current = course
        course.began = course.began or time.monotonic()

    def changed(self) -> None:
        """Note an event. Raises OSError if stderr could not be written."""
        if self.error is not None:
            raise self.error
        self.is_new, self.last = True, time.monotonic()
        if self.first is None:
            self.first = self.last, sum(course.passed for course in self.courses.values())

    def tick(self) -> None:
        """Redraw, or write a line if it is time."""
        with self.lock:
            now = time.monotonic()
            if self.live is not None:
                if self.is_new or now - self.shown >= 2 * SECONDS_BETWEEN_PICTURES:
                    self.shown, self.is_new = now, False
                    wrapped = sum((width - 1) // self.console.width for width in self.widths if width)
                    if wrapped:  # the terminal is narrower than it was
                        up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
                        self.console.control(Control(*up * wrapped))
                    self.live.refresh()
            else:
                is_late = now - self.began >= SECONDS_TO_FIRST_LINE
                known = is_late and self._seconds_left(settled=True) is not None
                if now - self.said >= SECONDS_BETWEEN_LINES or (known and not self.is_estimated):
                    self.is_estimated = known
                    self._line(self._text())

    def _run(self) -> None:
        """Tick until stopped, in a thread of its own: training may take long from one event to the next."""
        pause = SECONDS_BETWEEN_PICTURES
        try:
            while not self.stop.wait(pause):
                began = time.thread_time()
                self.tick()
                pause = max(SECONDS_BETWEEN_PICTURES, (time.thread_time() - began) / _SHARE)
        except OSError as error:
            self.error = error

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self.lock:
            _, total = self._runs()
            bar = Table.grid(padding=(0, 1, 0, 0))
            width = min(max(console.width - _TEXT, _BAR[0]), _BAR[1])
            bar.add_row(
                ProgressBar(total=max(total, 1), completed=self._share() * total, width=width),
                Text(self._text(console.width - width - 1), no_wrap=True, overflow="ellipsis"),
            )
            lines = console.render_lines(bar, options, pad=False) + self._picture(console, options)
            self.widths = [Segment.get_line_length(line) for line in lines]
            for line in lines:
                yield from line
                yield Segment.line()

    def _picture(self, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
        """Draw the first picture that fits; once it has values it never goes back to a larger one."""
        room = max(console.height - _LINES_BESIDE_PICTURE, 1)
        size, first = console.size, self.form[1] if self.form[0] == console.size else 0
        lines: list[list[Segment]] = []
        for k, gallery in enumerate(self._pictures(room)):
            if k >= first:
                self.form = size, k if any(c.finished or c.running for c in self.courses.values()) else 0
                lines = console.render_lines(gallery, options, pad=False)
                if len(lines) <= room:
                    break
        return lines[:room]

    def _pictures(self, room: int) -> Iterator[Gallery]:
        """Yield galleries from the largest to the smallest: all lattices, then only the one that trains."""
        courses = list(self.courses.values())
        early = not any(course.finished for course in courses)
        full = [course.heatmap(early=early) for course in courses]
        bare = [replace(heatmap, formula="") for heatmap in full]
        blank = early and not any(course.running for course in courses)
        if blank and len(courses) > 1:  # formulas are longer than the digits' columns
            full = bare
        yield Gallery(full, legend=not early, compact=blank)
        yield Gallery(full, legend=False, compact=blank)
        if len(courses) > 1:
            yield Gallery(bare, legend=not early, compact=True)
            yield Gallery(bare, legend=False, compact=True)
            one = courses.index(self.current or courses[0])
            yield Gallery(full[one : one + 1], legend=False)
            bare = bare[one : one + 1]
        yield Gallery(bare, legend=False, max_rows=max(_FEWEST_ROWS, room - _LINES_BESIDE_ROWS))

    def _text(self, room: int | None = None) -> str:
        """Say how many runs are done and how long the others take; on a terminal also what trains."""
        done, total = self._runs()
        left, course = self._seconds_left(), self.current
        parts = [f"{done} of {counted(total, 'run')}"] + ([] if left is None else [f"{about(left)} left"])
        if room is None:
            return ", ".join(parts)
        if self.first is None:
            first = "waiting for the next run" if self.watches else "starting"
            unit = "epoch" if course is None or course.spec.command is None else "run"
            parts.append(first if course is None else f"{course.title}, first {unit}")
        elif course is not None and course.spec.command is not None:
            parts.append(course.title)
        elif course is not None and course.epoch is not None:
            parts.append(f"{course.title}, epoch {min(course.epoch + 1, course.epochs)} of {course.epochs}")
        if course is not None and course.cluster:
            parts.append(course.cluster)
        while len(parts) > 1 and cell_len(" · ".join(parts)) > room:
            parts.pop()
        return " · ".join(parts)

    def _runs(self) -> tuple[int, int]:
        courses = self.courses.values()
        return sum(course.done for course in courses), sum(course.total for course in courses)

    def _share(self) -> float:
        """Return the share of the command that is done, in steps."""
        every = sum(course.total * course.steps for course in self.courses.values())
        return 1 - sum(course.left for course in self.courses.values()) / max(every, 1)

    def _seconds_left(self, *, settled: bool = False) -> float | None:
        """Estimate the time left from the speed since the first event, which a compilation may precede.

        Until as much time has passed again it is the speed from the beginning, or None if `settled`.
        """
        if self.first is None or self.current is None:
            return None
        (at, steps), now = self.first, self.last
        began = min(course.began for course in self.courses.values() if course.began)
        if (early := now - at < max(at - began, 1.0)) and settled:
            return None
        at, steps = (began, 0.0) if early else (at, steps)
        passed = sum(course.passed for course in self.courses.values()) - steps
        if now - at < 1.0 or passed <= 0:
            return None
        left = sum(course.left for course in self.courses.values()) * (now - at) / passed
        return max(left - (time.monotonic() - now), left / 2)

    def ended(self, course: Course) -> None:
        """Write that a study has ended, and how far the command is; a terminal shows it."""
        if self.live is not None:
            return
        parts = [f"{course.title} is complete"]
        if not self.watches:
            parts = [f"{course.title}: {part}" for part in self._trained([course], course.began)]
        if parts and not (self.stop.is_set() or all(course.whole for course in self.courses.values())):
            parts.append(self._text())
            self.is_estimated = True
        self._line(*(["; ".join(parts)] if parts else []))

    def _trained(self, courses: Sequence[Course], began: float) -> list[str]:
        trained, seconds = sum(course.trained for course in courses), time.monotonic() - began
        passed = sum(c.passed for c in courses) / max(seconds, 1e-9)
        theirs = any(c.spec.command for c in courses)
        rate = f"{60 * passed:.3g} runs/min" if theirs else f"{passed:,.0f} lane-steps/s"
        done, total = self._runs()
        left = f"; {done} of {counted(total, 'run')} are done" if done < total and self.stop.is_set() else ""
        return [f"trained {counted(trained, 'run')} in {spent(seconds)}, {rate}{left}"] if trained else []

    def _line(self, *lines: str) -> None:
        self.said = time.monotonic()
        for text in lines:
            self.console.print(styled(text, self.console.options.ascii_only), soft_wrap=True)
