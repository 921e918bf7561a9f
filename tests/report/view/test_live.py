"""Progress is a picture that fits the terminal, and few plain lines elsewhere."""

from __future__ import annotations

import io
import math
import sys
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from lrwd_sweep.report.view import live
from lrwd_sweep.report.view.live import Progress
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import EpochDone, Pack, PackDone
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task

EPOCHS = 10


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live, "time", clock)
    return clock


def watched(
    width: int = 120,
    height: int = 24,
    *,
    rows: int = 3,
    columns: int = 3,
    kind: Kind = Kind.GRID,
    terminal: bool = False,
) -> tuple[Progress, Pack, Pack]:
    """Return the progress of adamw on powers of two, and a pack for each of two seeds."""
    axes = (tuple(2.0 ** -(k + 1) for k in range(count)) for count in (rows, columns))
    spec = StudySpec(kind, Optimizer.parse("adamw"), Lattice(*axes), (0, 1), "val_loss", Task(epochs=EPOCHS))
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=terminal, highlight=False, _environ={},
        color_system="256" if terminal else None,
    )  # fmt: skip
    first, second = (Pack(tuple(spec.lattice.cells()), seed) for seed in spec.seeds)
    return Progress(console, spec), first, second


def epoch(pack: Pack, number: int, value: float = 0.5) -> EpochDone:
    """Return the same validation loss in every lane."""
    return EpochDone(pack, number, {"val_loss": [value] * len(pack.cells)})


def done(pack: Pack, value: float = 0.25) -> PackDone:
    return PackDone(
        pack, [Trial(cell, pack.seed, Status.COMPLETE, {"val_loss": value}) for cell in pack.cells]
    )


def written(progress: Progress) -> str:
    assert isinstance(progress.console.file, io.StringIO)
    return progress.console.file.getvalue()


def picture(progress: Progress) -> list[str]:
    """Return the lines that a refresh draws, without trailing blanks."""
    lines = progress.console.render_lines(progress, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def count(progress: Progress, text: str) -> int:
    """Count a text in the three rows of the lattice."""
    return sum(row.count(text) for row in picture(progress)[2:5])


def test_pipe_gets_a_first_and_a_last_line_and_one_every_thirty_seconds(clock: Clock) -> None:
    progress, first, second = watched()
    with progress:
        progress.begin([first, second])
        for number in range(1, EPOCHS + 1):
            clock.now += 9
            progress.happened(epoch(first, number))
        clock.now += 9
        progress.happened(done(first))
        progress.happened(done(second))
    assert written(progress).splitlines() == [
        "adamw: training 18 lanes in 2 packs for 10 epochs",
        "adamw: pack 0/2 · epoch 4/10 · 6 lane-steps/s · 2:24 left",
        "adamw: pack 0/2 · epoch 8/10 · 6 lane-steps/s · 1:48 left",
        "adamw: trained 18 lanes in 1:39, 11 lane-steps/s",
    ]


def test_terminal_is_redrawn_twice_a_second_and_keeps_only_the_last_line(clock: Clock) -> None:
    progress, pack, _ = watched(terminal=True)
    drawn = []
    with progress:
        progress.begin([pack])
        assert "pack 0/1 · epoch 0/10" in written(progress)  # before any epoch
        for number in range(1, EPOCHS + 1):
            clock.now += 0.2
            before = len(written(progress))
            progress.happened(epoch(pack, number))
            drawn.append(len(written(progress)) > before)
        progress.happened(done(pack))
    assert sum(drawn) == 3  # after 0.6, 1.2 and 1.8 of two seconds
    text = written(progress)
    _, erased, rest = text.rpartition("\x1b[2K")  # the last line that is erased is the picture's
    assert erased
    assert rest.strip() == "adamw: trained 9 lanes in 0:02, 270 lane-steps/s"
    progress, *_ = watched(terminal=True)
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    assert written(progress).rindex("\x1b[?25h") > written(progress).rindex("\x1b[?25l")  # the cursor


def test_picture_fits_the_terminal() -> None:
    sizes = ((80, 24, 40, 6), (80, 24, 11, 11), (170, 45, 60, 60), (30, 10, 6, 40), (30, 10, 60, 60))
    for width, height, rows, columns in sizes:
        progress, pack, _ = watched(width, height, rows=rows, columns=columns, terminal=True)
        progress.begin([pack])
        progress.happened(epoch(pack, 1))
        lines = picture(progress)
        assert len(lines) < height, (width, height, rows, columns)  # one is the cursor's
        assert max(map(cell_len, lines)) <= width, (width, height, rows, columns)


def test_lattice_fills_in_as_epochs_pass() -> None:
    progress, first, second = watched()
    half = Pack(first.cells[:4], first.seed)
    progress.begin([half, second])
    assert len(picture(progress)) == 1  # only the bar
    progress.happened(epoch(half, 1, 0.5))
    assert (count(progress, "·"), count(progress, ".500")) == (5, 4)
    progress.happened(done(half, 0.25))
    assert count(progress, ".250") == 4
    progress.happened(epoch(second, 1, 0.75))  # the mean of the seeds so far
    assert (count(progress, ".500"), count(progress, ".750")) == (4, 5)
    for value in (math.nan, math.inf):
        progress.happened(EpochDone(second, 2, {"val_loss": [value] + [0.5] * 8}))
        assert count(progress, "×") == 1, value
    curves = {"val_loss": (0.25,)}
    progress.happened(PackDone(half, [replace(trial, curves=curves) for trial in done(half).trials]))
    assert sys.getrefcount(curves) == 2, "finished lanes keep no curves in memory"
    known = Progress(progress.console, progress.spec, done(first).trials)  # of an earlier run
    assert count(known, ".250") == 9
    progress, *_ = watched(kind=Kind.TPE)
    pack = Pack((Cell(0.45, 0.13),), 0)  # nearest to α = 2⁻¹ and the smallest λ, 2⁻³
    progress.begin([pack])
    progress.happened(epoch(pack, 1))
    top = picture(progress)[2]
    assert top.index(".500") < top.index("·")


def test_bar_counts_packs_and_the_time_left(clock: Clock) -> None:
    progress, first, second = watched()
    progress.begin([first])
    assert picture(progress)[0].endswith("pack 0/1 · epoch 0/10")
    clock.now = 60
    progress.happened(done(first))
    progress.begin([second])  # a pack that begins later is counted too
    assert written(progress).count("training") == 1
    assert picture(progress)[0].endswith("pack 1/2 · 9 lane-steps/s · 1:00 left")
    progress.happened(epoch(second, 5))
    assert picture(progress)[0].endswith("pack 1/2 · epoch 5/10 · 14 lane-steps/s · 0:20 left")
    clocks = {0: "0:00", 59.6: "1:00", 3599: "59:59", 36061: "10:01:01"}
    assert {seconds: live._clock(seconds) for seconds in clocks} == clocks
