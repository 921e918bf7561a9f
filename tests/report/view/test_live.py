"""Progress: a picture that fits the terminal, and few plain lines elsewhere."""

from __future__ import annotations

import io
import math
import tracemalloc
from dataclasses import replace
from itertools import product

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
    """Replace the clock of the progress."""
    clock = Clock()
    monkeypatch.setattr(live, "time", clock)
    return clock


def a_spec(rows: int = 3, columns: int = 3, kind: Kind = Kind.GRID) -> StudySpec:
    """Two seeds of adamw on powers of two."""
    axes = (tuple(2.0 ** -(k + 1) for k in range(count)) for count in (rows, columns))
    return StudySpec(kind, Optimizer.parse("adamw"), Lattice(*axes), (0, 1), "val_loss", Task(epochs=EPOCHS))


def packs_of(spec: StudySpec) -> list[Pack]:
    """One pack per seed."""
    return [Pack(tuple(spec.lattice.cells()), seed) for seed in spec.seeds]


def epoch(pack: Pack, number: int, value: float = 0.5) -> EpochDone:
    """The same validation loss in every lane."""
    return EpochDone(pack, number, {"val_loss": [value] * len(pack.cells)})


def done(pack: Pack, value: float = 0.25) -> PackDone:
    """Every lane complete."""
    trials = [Trial(cell, pack.seed, Status.COMPLETE, {"val_loss": value}) for cell in pack.cells]
    return PackDone(pack, trials)


def console(width: int = 80, height: int = 24, *, terminal: bool = False) -> Console:
    """A console of fixed size that keeps what is written."""
    return Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=terminal,
        color_system="256" if terminal else None,
        highlight=False,
        _environ={},
    )


def written(on: Console) -> str:
    """What the console was given so far."""
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def picture(progress: Progress) -> list[str]:
    """The lines that a refresh draws, without trailing blanks."""
    lines = progress.console.render_lines(progress, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def test_off_a_terminal_there_are_two_lines_and_no_escape_codes(clock: Clock) -> None:
    on, spec = console(), a_spec()
    packs = packs_of(spec)
    with Progress(on, spec) as progress:
        progress.begin(packs)
        for pack in packs:
            clock.now += 4
            progress.happened(done(pack))
    assert written(on).splitlines() == [
        "adamw: training 18 lanes in 2 packs for 10 epochs",
        "adamw: trained 18 lanes in 0:08, 135 lane-steps/s",
    ]


def test_on_a_terminal_the_first_picture_waits_for_no_epoch(clock: Clock) -> None:
    on, spec = console(terminal=True), a_spec()
    with Progress(on, spec) as progress:
        assert "pack" not in written(on)
        progress.begin(packs_of(spec))
        assert "pack 0/2 · epoch 0/10" in written(on)


def test_off_a_terminal_a_line_comes_at_most_every_thirty_seconds(clock: Clock) -> None:
    on, spec = console(), a_spec()
    pack = packs_of(spec)[0]
    with Progress(on, spec) as progress:
        progress.begin([pack])
        for number in range(1, EPOCHS + 1):
            clock.now += 9  # 90 seconds in all
            progress.happened(epoch(pack, number))
    lines = written(on).splitlines()
    assert lines == [
        "adamw: training 9 lanes in 1 pack for 10 epochs",
        "adamw: pack 0/1 · epoch 4/10 · 6 lane-steps/s · 0:54 left",
        "adamw: pack 0/1 · epoch 8/10 · 6 lane-steps/s · 0:18 left",
    ]


def test_on_a_terminal_only_the_last_line_stays(clock: Clock) -> None:
    on, spec = console(terminal=True), a_spec()
    (pack, _) = packs_of(spec)
    with Progress(on, spec) as progress:
        progress.begin([pack])
        clock.now += 1
        progress.happened(epoch(pack, 1))
        clock.now += 1
        progress.happened(done(pack))
    text = written(on)
    assert "training" not in text
    _, erased, rest = text.rpartition("\x1b[2K")  # the last line that is erased is the picture's
    assert erased
    assert rest.strip() == "adamw: trained 9 lanes in 0:02, 270 lane-steps/s"


def test_an_error_passes_through_and_gives_the_cursor_back() -> None:
    on, spec = console(terminal=True), a_spec()
    with pytest.raises(KeyboardInterrupt), Progress(on, spec):
        raise KeyboardInterrupt
    assert written(on).rindex("\x1b[?25h") > written(on).rindex("\x1b[?25l")


def test_the_picture_fits_the_terminal() -> None:
    sizes = [(80, 24), (170, 45), (60, 15), (30, 10)]
    for (width, height), (rows, columns) in product(sizes, [(11, 11), (3, 3), (40, 6), (6, 40), (60, 60)]):
        spec = a_spec(rows, columns)
        progress = Progress(console(width, height, terminal=True), spec)
        packs = packs_of(spec)
        progress.begin(packs)
        progress.happened(epoch(packs[0], 1))
        lines = picture(progress)
        assert len(lines) < height, (width, height, rows, columns)  # one is the cursor's
        assert max(map(cell_len, lines)) <= width, (width, height, rows, columns)


def test_the_lattice_fills_in_as_epochs_pass() -> None:
    spec = a_spec()
    progress = Progress(console(), spec)
    first, second = packs_of(spec)
    half = Pack(first.cells[:4], first.seed)
    progress.begin([half, second])
    assert len(picture(progress)) == 1  # the bar alone
    progress.happened(epoch(half, 1, 0.5))
    rows = picture(progress)[2:5]
    assert sum(row.count("·") for row in rows) == 5
    assert sum(row.count(".500") for row in rows) == 4
    progress.happened(done(half, 0.25))
    rows = picture(progress)[2:5]
    assert sum(row.count(".250") for row in rows) == 4
    progress.happened(epoch(second, 1, 0.75))  # the mean of the seeds so far
    rows = picture(progress)[2:5]
    assert sum(row.count(".500") for row in rows) == 4
    assert sum(row.count(".750") for row in rows) == 5


def test_a_diverged_lane_is_crossed_out_at_once() -> None:
    spec = a_spec()
    for value in (math.nan, math.inf):
        progress = Progress(console(), spec)
        pack = packs_of(spec)[0]
        progress.begin([pack])
        progress.happened(EpochDone(pack, 1, {"val_loss": [value] + [0.5] * 8}))
        assert sum(row.count("×") for row in picture(progress)[2:5]) == 1, value


def test_lanes_of_earlier_runs_are_drawn_from_the_start() -> None:
    spec = a_spec()
    known = done(packs_of(spec)[0]).trials
    rows = picture(Progress(console(), spec, known))[2:5]
    assert sum(row.count(".250") for row in rows) == 9


def test_points_of_a_search_are_drawn_in_their_nearest_cell() -> None:
    spec = a_spec(kind=Kind.TPE)
    progress = Progress(console(), spec)
    pack = Pack((Cell(0.45, 0.13),), 0)
    progress.begin([pack])
    progress.happened(epoch(pack, 1))
    top = picture(progress)[2]  # α = 2⁻¹, at the smallest λ = 2⁻³
    assert ".500" in top
    assert top.index(".500") < top.index("·")


def test_the_bar_counts_packs_and_tells_the_time_left(clock: Clock) -> None:
    spec = a_spec()
    progress = Progress(console(width=120), spec)
    first, second = packs_of(spec)
    progress.begin([first, second])
    assert picture(progress)[0].endswith("pack 0/2 · epoch 0/10")
    clock.now = 60
    progress.happened(done(first))
    assert picture(progress)[0].endswith("pack 1/2 · 9 lane-steps/s · 1:00 left")
    progress.happened(epoch(second, 5))
    assert picture(progress)[0].endswith("pack 1/2 · epoch 5/10 · 14 lane-steps/s · 0:20 left")


def test_packs_that_begin_later_are_counted_too(clock: Clock) -> None:
    on, spec = console(width=120), a_spec(kind=Kind.TPE)
    progress = Progress(on, spec)
    first, second = packs_of(spec)
    progress.begin([first])
    progress.happened(done(first))
    progress.begin([second])
    assert "pack 1/2" in picture(progress)[0]
    assert written(on).count("training") == 1


def test_the_picture_is_redrawn_twice_a_second_at_most(clock: Clock) -> None:
    on, spec = console(terminal=True), a_spec()
    pack = packs_of(spec)[0]
    with Progress(on, spec) as progress:
        progress.begin([pack])
        drawn = []
        for number in range(1, EPOCHS + 1):
            clock.now += 0.2
            before = len(written(on))
            progress.happened(epoch(pack, number))
            drawn.append(len(written(on)) > before)
    assert sum(drawn) == 3  # after 0.6, 1.2 and 1.8 of two seconds


def test_hours_are_written_as_hours() -> None:
    assert [live._clock(seconds) for seconds in (0, 59.6, 3599, 3600, 36061)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "10:01:01",
    ]


def test_a_finished_lane_leaves_a_number_behind_and_no_curves() -> None:
    spec = a_spec(20, 20)
    progress = Progress(console(), spec)
    tracemalloc.start()
    try:
        for pack in packs_of(spec):
            trials = [
                replace(trial, curves={"val_loss": tuple(float(k) for k in range(1000))})  # 32 kB
                for trial in done(pack).trials
            ]
            progress.happened(PackDone(pack, trials))
        del trials
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1000 * len(progress.lanes)
    assert len(progress.lanes) == 800
