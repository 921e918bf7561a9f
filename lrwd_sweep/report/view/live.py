"""Progress of training on stderr: a live heatmap on a terminal, a line every 30 s elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.result import surface_of
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.notation import counted, plain
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import EpochDone, Pack, PackDone
from lrwd_sweep.spec.study import StudySpec

Lane = tuple[Cell, int]  # cell and seed
Latest = tuple[Status, float | None]  # a lane's status and last value of the metric that ranks

SECONDS_BETWEEN_PICTURES = 0.5
SECONDS_BETWEEN_LINES = 30.0
_LINES_BESIDE_PICTURE = 2  # the progress bar and the cursor
_LINES_BESIDE_ROWS = 6  # heading, axis, four lines of legend
_FEWEST_ROWS = 3


class Progress:
    """The view of one study in training: a context manager that leaves one line on the screen."""

    def __init__(
        self, console: Console, spec: StudySpec, known: Iterable[Trial] = (), title: str = ""
    ) -> None:
        self.console, self.spec = console, spec
        # A command has no epochs that are known beforehand: a run is one step.
        self.epochs_of_run = 1 if spec.task is None else spec.task.epochs
        self.steps_per_epoch = 1 if spec.task is None else spec.task.steps_per_epoch
        self.title = title or spec.title
        self.lanes: dict[Lane, Latest] = {}  # without curves, which would take most memory
        for trial in known:
            self._note(trial)
        self.packs: list[Pack] = []
        self.epochs: dict[Pack, int] = {}  # finished by each pack that has begun
        self.finished = 0  # packs
        self.began = self.shown = time.monotonic()
        self.live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live = Live(self, console=self.console, transient=True, auto_refresh=False)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
        if self.finished:
            self._line(
                f"trained {counted(self._lanes_done(), 'lane')} in {_clock(self._seconds())}, {self._rate()}"
            )

    def begin(self, packs: Sequence[Pack]) -> None:
        """Start on these packs; drop those that began earlier and did not finish."""
        first = not self.packs
        self.epochs = {pack: n for pack, n in self.epochs.items() if n == self.epochs_of_run}
        self.packs = [*self.epochs, *packs]
        if not first:
            self._show()
        elif self.live is not None:
            self.live.refresh()  # the first epoch may take long
        else:
            lanes = counted(sum(len(pack.cells) for pack in packs), "lane")
            epochs = counted(self.epochs_of_run, "epoch")
            what = f"training {lanes} in {counted(len(packs), 'pack')} for {epochs}"
            self._line(what if self.spec.command is None else f"{counted(len(packs), 'run')} to do")

    def happened(self, event: EpochDone | PackDone) -> None:
        """Record an event, and redraw if it is time."""
        if isinstance(event, PackDone):
            self.finished += 1
            self.epochs[event.pack] = self.epochs_of_run
            for trial in event.trials:
                self._note(trial)
        else:
            self.epochs[event.pack] = event.epoch if self.spec.command is None else 0
            values = event.metrics.get(self.spec.metric)  # None where the epoch was not evaluated
            for cell, value in zip(event.pack.cells, values, strict=True) if values else ():
                status = Status.COMPLETE if abs(value) < float("inf") else Status.DIVERGED
                self.lanes[cell, event.pack.seed] = status, value
        self._show()

    def _note(self, trial: Trial) -> None:
        self.lanes[trial.cell, trial.seed] = trial.status, trial.metrics.get(self.spec.metric)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar = Table.grid(padding=(0, 1, 0, 0))
        done, total = self._lane_steps()
        bar.add_row(ProgressBar(total=max(total, 1), completed=done, width=24), self._text())
        yield bar
        if self.lanes:
            for line in self._picture(console, options):
                yield from line
                yield Segment.line()

    def _picture(self, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
        """Draw the lattice in the lines that the terminal has, without its legend if they are few."""
        heatmap, room = self._heatmap(), console.height - _LINES_BESIDE_PICTURE
        rows = max(_FEWEST_ROWS, room - _LINES_BESIDE_ROWS)
        lines = console.render_lines(Gallery([heatmap], max_rows=rows), options, pad=False)
        if len(lines) > room:
            bare = Gallery([heatmap], legend=False, max_rows=rows)
            lines = console.render_lines(bare, options, pad=False)[:room]
        return lines

    def _heatmap(self) -> Heatmap:
        trials = (
            Trial(cell, seed, status, {} if value is None else {self.spec.metric: value})
            for (cell, seed), (status, value) in self.lanes.items()
        )
        return Heatmap(surface_of(trials, self.spec), self.title, self.spec.formula)

    def _text(self) -> Text:
        done, total = self._lane_steps()
        left = self._seconds() * (total - done) / done if done else None
        what = "pack" if self.spec.command is None else "run"
        parts = [f"{what} {self.finished}/{len(self.packs)}"]
        running = [epochs for epochs in self.epochs.values() if epochs < self.epochs_of_run]
        if (running or not self.epochs) and self.spec.command is None:
            parts.append(f"epoch {min(running, default=0)}/{self.epochs_of_run}")
        parts += [self._rate()] if done else []
        parts += [f"{_clock(left)} left"] if left is not None else []
        return Text(" · ".join(parts), no_wrap=True, overflow="ellipsis")

    def _show(self) -> None:
        now = time.monotonic()
        if self.live is not None:
            if now - self.shown >= SECONDS_BETWEEN_PICTURES:
                self.shown = now
                self.live.refresh()
        elif now - self.shown >= SECONDS_BETWEEN_LINES:
            self.shown = now
            self._line(self._text().plain)

    def _line(self, text: str) -> None:
        if self.live is None:
            self.console.print(Text(f"{plain(self.title)}: {text}"), soft_wrap=True)

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _lanes_done(self) -> int:
        epochs = self.epochs_of_run
        return sum(len(pack.cells) for pack, passed in self.epochs.items() if passed == epochs)

    def _lane_steps(self) -> tuple[int, int]:
        per_epoch = self.steps_per_epoch
        done = sum(len(pack.cells) * passed for pack, passed in self.epochs.items()) * per_epoch
        return done, sum(len(pack.cells) for pack in self.packs) * self.epochs_of_run * per_epoch

    def _rate(self) -> str:
        rate = self._lane_steps()[0] / max(self._seconds(), 1e-9)
        return f"{rate:,.0f} lane-steps/s" if self.spec.command is None else f"{60 * rate:.3g} runs/min"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
