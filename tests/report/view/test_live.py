"""Progress of a command: every lattice on a terminal, few lines elsewhere, and the time left for all."""

import io
import math
import re
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from rich.cells import cell_len
from rich.console import Console

from lrwd_sweep.report.view import consoles, live
from lrwd_sweep.report.view.live import Progress
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import EpochDone, Pack, PackDone
from lrwd_sweep.spec.study import Kind, StudySpec
from tests.specs import spec

EPOCHS = 10


@pytest.fixture(name="clock", autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the time by `clock.now`, and stop the thread that ticks: a test calls `tick`."""
    clock: Any = SimpleNamespace(now=100.0, thread_time=lambda: 0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(live, "time", clock)
    monkeypatch.setattr(live, "SECONDS_BETWEEN_PICTURES", 600)
    return clock


def study(name: str, rows: int = 3, columns: int = 3, seeds: int = 2, kind: Kind = Kind.GRID) -> StudySpec:
    lattice = Lattice(*(tuple(2.0 ** -(k + 1) for k in range(count)) for count in (rows, columns)))
    return spec(optimizer=name, epochs=EPOCHS, kind=kind, lattice=lattice, seeds=tuple(range(seeds)))


def watched(*specs: StudySpec, size: tuple[int, int] = (120, 30), tty: bool = False, **rest: Any) -> Progress:
    stream: dict[str, Any] = {"file": io.StringIO(), "_environ": {}, "force_terminal": tty}
    colours: Any = "256" if tty else None
    console = Console(width=size[0], height=size[1], color_system=colours, highlight=False, **stream)
    return Progress(console, {each.title: each for each in specs}, **rest)


def packs_of(study: StudySpec) -> list[Pack]:
    return [Pack(tuple(study.lattice.cells()), seed) for seed in study.seeds]


def epoch(pack: Pack, number: int, value: float = 0.5) -> EpochDone:
    return EpochDone(pack, number, {"val_loss": [value] * len(pack.cells)})


def done(pack: Pack) -> PackDone:
    losses = {cell: {"val_loss": 0.25 + k / 1e3} for k, cell in enumerate(pack.cells)}
    return PackDone(pack, [Trial(c, pack.seed, Status.COMPLETE, loss) for c, loss in losses.items()])


def written(progress: Progress) -> str:
    return str(progress.console.file.getvalue())  # type: ignore[attr-defined]


def picture(progress: Progress) -> list[str]:
    lines = progress.console.render_lines(progress, pad=False)
    return ["".join(segment.text for segment in line) for line in lines]


def text(progress: Progress) -> str:
    return picture(progress)[0].lstrip("━╸╺ ")  # beside the bar


def test_pipe_gets_a_line_every_thirty_seconds_and_one_at_the_end_of_each_study(clock: Any) -> None:
    both = [study("adam"), study("adamw")]
    with watched(*both) as progress:
        for each in both:
            course, packs = progress.of(each.title), packs_of(each)
            course.begin(packs)
            for pack in packs:
                for number in range(1, EPOCHS + 1):
                    clock.now += 2
                    progress.tick()
                    course.happened(epoch(pack, number))
                course.happened(done(pack))
    assert written(progress).splitlines() == [
        "0 of 36 runs, about 74 s left",  # once five seconds passed and the speed is known
        "9 of 36 runs, about 44 s left",
        "adam: trained 18 runs in 0:40, 27 lane-steps/s; 18 of 36 runs, about 40 s left",
        "27 of 36 runs, about 10 s left",
        "adamw: trained 18 runs in 0:40, 27 lane-steps/s",
    ]


def test_runs_in_the_store_and_of_other_processes_count_as_done_and_points_to_propose_as_open() -> None:
    adam, adamw = study("adam"), study("adamw")
    first, second = packs_of(adam)
    outside = [Trial(Cell(3.0, 3.0), 0, Status.COMPLETE), Trial(first.cells[0], 7, Status.COMPLETE)]
    failed = Trial(second.cells[0], 1, Status.FAILED)  # it trains again
    progress = watched(adam, adamw, known={"adam": [*done(first).trials, *outside, failed]})
    assert text(progress) == "9 of 36 runs · starting"
    progress.of("adam").begin([Pack(second.cells[:4], 1)])  # another process has stored the others
    assert text(progress).startswith("14 of 36 runs")
    lost, other = packs_of(adamw)
    progress.of("adamw").begin([lost, other])  # adam has ended, whichever process trained it
    assert text(progress).startswith("18 of 36 runs")
    progress.of("adamw").happened(epoch(lost, 4))
    progress.of("adamw").begin([*lost.halves(), other])  # it trains again, in halves
    progress.of("adamw").happened(done(lost.halves()[0]))
    assert text(progress).startswith("22 of 36 runs")
    progress = watched(study("adamw", kind=Kind.TPE), points=8)
    course, pack = progress.of("adamw"), Pack((Cell(0.45, 0.13),), 0)  # nearest to α = 2⁻¹, λ = 2⁻³
    course.begin([pack])
    assert text(progress).startswith("0 of 16 runs")
    course.happened(done(pack))
    course.begin([replace(pack, seed=1)])
    assert text(progress).startswith("1 of 16 runs")
    assert re.search(r"\.250.*·", picture(progress)[2])


def test_terminal_keeps_the_last_line_and_the_cursor(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    adam = study("adam", seeds=1)
    progress, (pack,) = watched(adam, tty=True), packs_of(adam)
    monkeypatch.setattr(consoles, "_shared", [progress.console])
    with progress:
        assert "0 of 9 runs · starting" in written(progress)  # before torch is loaded
        before = len(written(progress))
        consoles.note("12 lanes continue from a checkpoint")
        erased, below = written(progress)[before:].split("\n")[:2]
        assert ("\x1b[2K" in erased, "12 lanes continue" in erased, "0 of 9 runs" in below) == (True,) * 3
        progress.of("adam").begin([pack])
        for number in range(1, EPOCHS + 1):
            clock.now += 0.2
            before = len(written(progress))
            progress.of("adam").happened(epoch(pack, number))
            assert len(written(progress)) == before  # the thread draws
            progress.tick()
            assert len(written(progress)) > before
        progress.of("adam").happened(done(pack))
    _, erased, rest = written(progress).rpartition("\x1b[2K")  # the last line erased is the picture's
    assert (bool(erased), rest.strip()) == (True, "trained 9 runs in 0:02, 270 lane-steps/s")
    progress = watched(adam, tty=True)
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    assert written(progress).rindex("\x1b[?25h") > written(progress).rindex("\x1b[?25l")  # the cursor


def test_a_terminal_that_became_narrower_is_erased_where_it_wrapped() -> None:
    progress = watched(study("adam"), size=(100, 30), tty=True)
    with progress:
        rows, progress.console.width = len(picture(progress)), 20
        wrapped = sum((width - 1) // 20 for width in progress.widths)
        before, progress.is_new = len(written(progress)), True
        progress.tick()
        erased = written(progress)[before:].partition("adam")[0].count("\x1b[1A")
    assert (erased, wrapped > 0) == (rows - 1 + wrapped, True)  # the cursor is on the last line


def test_picture_fits_the_terminal_and_shows_every_lattice_that_it_has_room_for() -> None:
    specs = [study(name, 11, 11) for name in ("adam", "adamw", "sgd", "sgdw")]
    for size, *counts in (((120, 40), 1, 2, 4), ((60, 20), 1, 2, 1), ((40, 10), 1, 1, 1)):
        for several, count in zip((specs[:1], specs[:2], specs), counts, strict=True):
            progress, (first, second) = watched(*several, size=size), packs_of(specs[0])
            for event in (None, epoch(first, 1), done(first), done(second)):
                if event is not None:
                    progress.of("adam").happened(event)
                lines, case = picture(progress), (size, len(several), event)
                assert len(lines) < size[1], case  # one is the cursor's
                assert max(map(cell_len, lines)) <= size[0], case
                assert sum(each.title in " ".join(lines[1:]).split() for each in several) == count, case


def test_lattice_fills_as_runs_finish_and_has_no_marks_before_it_is_whole() -> None:
    adam, adamw = study("adam"), study("adamw")
    progress, (first, second) = watched(adam, adamw), packs_of(adam)
    course = progress.of("adam")

    def counts(*signs: str) -> list[int]:
        lattice = "\n".join(picture(progress)[2:5])
        return [lattice.count(sign) for sign in signs]

    course.begin([first, second])
    assert counts("·") == [18]
    half, rest = (Pack(cells, 0) for cells in (first.cells[:4], first.cells[4:]))
    course.begin([half, rest, second])
    course.happened(epoch(half, 1))
    assert counts("·", ".50") == [14, 4]  # early values, before any run is finished
    for value in (math.nan, math.inf):
        course.happened(EpochDone(half, 2, {"val_loss": [value, *[0.5] * 3]}))
        assert counts("×") == [1], value
    course.happened(EpochDone(half, 3, {}))  # not evaluated
    course.happened(done(half))
    course.happened(epoch(second, 9, 0.75))
    assert counts("·", ".25") == [14, 4]  # finished runs only
    course.happened(done(rest))
    shown = "\n".join(picture(progress))
    assert ("some seeds are missing" in shown, set("★○┃│") & set(shown)) == (True, set())
    course.happened(done(second))
    assert min(counts("★", "┃", "·")) > 0  # adamw's is empty
    curves = {"val_loss": (0.25,)}
    course.happened(PackDone(half, [replace(trial, curves=curves) for trial in done(half).trials]))
    assert sys.getrefcount(curves) == 2, "finished lanes keep no curves in memory"


def test_a_line_that_cannot_be_written_ends_training(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    progress, packs = watched(study("adam")), packs_of(study("adam"))
    monkeypatch.setattr(progress.console, "print", Mock(side_effect=BrokenPipeError))
    clock.now += 40
    monkeypatch.setattr(live, "SECONDS_BETWEEN_PICTURES", 0)
    progress.clock.start()
    progress.clock.join()  # the thread has written its line, or tried to
    progress.of("adam").begin(packs)
    with pytest.raises(BrokenPipeError):
        progress.of("adam").happened(epoch(packs[0], 1))
