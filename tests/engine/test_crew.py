"""Seats with processes of their own: the same results, whatever becomes of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lrwd_sweep.engine import Pool, Stopped, crew, remote
from lrwd_sweep.engine.here import Here
from lrwd_sweep.engine.remote import Remote
from lrwd_sweep.engine.seat import Seat
from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.progress import EpochDone, PackDone
from lrwd_sweep.spec.task import Task
from tests.engine import strange

ADAMW = Optimizer.parse("adamw")
CELLS = list(Lattice((0.01, 0.02, 0.04), (0.001, 0.01)).cells())
LANES = dict.fromkeys(range(4), CELLS)

Lane = tuple[Cell, int]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A process waits for the second seat, which hires it in the first epoch; who was hired."""
    numbers: list[int] = []
    hire = Remote.hire

    def hired(place: torch.device) -> Remote:
        found = hire(place)
        numbers.append(found.process.pid)
        return found

    monkeypatch.setattr(crew, "SURE", 0.0)
    monkeypatch.setattr(crew, "LONG", 0.0)
    monkeypatch.setattr(Remote, "hire", hired)
    monkeypatch.setenv(strange.HOME, str(os.getpid()))
    first = Remote(torch.device("cpu"))
    first.await_ready(lambda: False)
    first.rest()
    yield numbers
    remote.dismiss_idle()


@pytest.fixture
def trained_there(processes: list[int], monkeypatch: pytest.MonkeyPatch) -> list[Lane]:
    """The lanes that come to be trained in a process."""
    lanes: list[Lane] = []
    train = Remote.train

    def noted(self: Remote, *args: object) -> list[Trial]:
        trials = train(self, *args)  # type: ignore[arg-type]
        lanes.extend((trial.cell, trial.seed) for trial in trials)
        return trials

    monkeypatch.setattr(Remote, "train", noted)
    return lanes


def _pool(net: str = "mlp-norm", epochs: int = 3) -> Pool:
    pool = Pool(Task(net=net, epochs=epochs, engine="auto" if net == "mlp-norm" else "loop"), "cpu")
    pool.places = pool.places[:1] * 2
    return pool


def _trained(pool: Pool, should_stop: Callable[[], bool] = lambda: False) -> dict[Lane, Trial]:
    events = pool.train(ADAMW, pool.plan(LANES, max_lanes=3), should_stop)
    done = [event for event in events if isinstance(event, PackDone)]
    return {(trial.cell, trial.seed): trial for event in done for trial in event.trials}


def _dies(pid: int) -> bool:
    """Whether a process, of which nobody asks the exit status, ends within a while."""
    for _ in range(300):
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_processes_are_for_long_work_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    remote.dismiss_idle()  # those of other tests
    monkeypatch.setattr(crew, "LONG", 1e9)  # what takes longer than usual on a busy machine is short, too
    assert len(_trained(_pool())) == len(LANES) * len(CELLS)
    assert not remote._idle


def test_lanes_become_the_same_in_a_process(
    trained_there: list[Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _trained(_pool())
    assert trained_there
    monkeypatch.setattr(crew, "LONG", 1e9)
    assert found == _trained(_pool())


def test_epochs_are_told_from_there_too(processes: list[int]) -> None:
    pool = _pool()
    packs = pool.plan(LANES, max_lanes=3)
    seen: dict[object, list[int]] = {}
    for event in pool.train(ADAMW, packs):
        if isinstance(event, EpochDone):
            seen.setdefault(event.pack, []).append(event.epoch)
    assert seen == {pack: [1, 2, 3] for pack in packs}
    assert processes


def test_the_next_study_finds_the_process_waiting(processes: list[int]) -> None:
    _trained(_pool())
    _trained(_pool(epochs=2))
    assert len(processes) == 2
    assert len(set(processes)) == 1


def test_killed_process_costs_nothing_but_time(processes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "LONG", 1e9)
    expected = _trained(_pool("tests.engine.strange:Mortal"))
    monkeypatch.setattr(crew, "LONG", 0.0)
    assert _trained(_pool("tests.engine.strange:Mortal")) == expected
    assert {trial.status for trial in expected.values()} == {Status.COMPLETE}
    assert len(processes) == 1
    assert not remote._idle


def test_fault_of_a_network_there_is_told_as_one_here(processes: list[int]) -> None:
    with pytest.raises(UsageError, match=r"Faulty raised in training: RuntimeError.*strange\.py"):
        _trained(_pool("tests.engine.strange:Faulty"))


def test_code_that_changed_meanwhile_is_refused_there(trained_there: list[Lane]) -> None:
    pool = _pool("tests.engine.strange:Net")
    pool.task = replace(pool.task, code=(("tests.engine.strange:Net", "another"),))
    with pytest.raises(
        UsageError, match=r"--net tests\.engine\.strange:Net has changed since this training began"
    ):
        _trained(pool)
    assert not trained_there


def test_process_that_knows_somebodys_code_is_not_kept(processes: list[int]) -> None:
    _trained(_pool("tests.engine.strange:Net"))
    assert processes
    assert not remote._idle
    assert _dies(processes[0])


def test_process_that_goes_before_a_pack_moves_is_done_without(
    trained_there: list[Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    should_move = Seat._should_move

    def kill(self: Seat, epochs: object) -> bool:
        moves = should_move(self, epochs)  # type: ignore[arg-type]
        if moves and self.remote is not None:
            self._part(self.remote)
        return moves

    monkeypatch.setattr(Seat, "_should_move", kill)
    pool = _pool(epochs=100)
    done = [
        event
        for event in pool.train(ADAMW, pool.plan({0: CELLS}, max_lanes=3))
        if isinstance(event, PackDone)
    ]
    assert sum(len(event.trials) for event in done) == len(CELLS)
    assert not trained_there


def test_stop_reaches_the_process_which_remains_of_use(
    processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = _pool(epochs=10_000)
    with pytest.raises(Stopped):
        _trained(pool, lambda: bool(processes))
    assert len(_trained(_pool())) == len(LANES) * len(CELLS)
    assert len(set(processes)) == 1


def test_pack_of_which_most_is_left_moves_to_the_process(trained_there: list[Lane]) -> None:
    pool = _pool(epochs=100)
    seen: dict[object, list[int]] = {}
    packs = pool.plan({0: CELLS}, max_lanes=3)
    for event in pool.train(ADAMW, packs):
        if isinstance(event, EpochDone):
            seen.setdefault(event.pack, []).append(event.epoch)
    assert len(packs) == 2  # both are begun before a process is hired
    assert seen == {pack: list(range(1, 101)) for pack in packs}
    assert len(trained_there) == 3


def test_process_that_cannot_start_is_done_without(
    processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.dismiss_idle()
    monkeypatch.setattr(sys, "executable", "")
    assert len(_trained(_pool())) == len(LANES) * len(CELLS)
    assert not processes


@pytest.fixture
def elsewhere(processes: list[int]) -> Pool:
    """A seat here, and one on a device that is not that of this process."""
    pool = _pool("tests.engine.strange:MortalOnce")
    pool.places = (pool.device, torch.device("cpu", 0))
    return pool


def test_device_elsewhere_has_one_process_however_long_it_takes(
    elsewhere: Pool, processes: list[int]
) -> None:
    elsewhere.task = replace(elsewhere.task, net="mlp-norm")
    assert len(_trained(elsewhere)) == len(LANES) * len(CELLS)
    assert len(processes) == 1


def test_nothing_for_a_device_elsewhere_is_trained_here(
    elsewhere: Pool, processes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a process is lost another one takes its place: no two packs share the device that is here."""
    monkeypatch.setenv(strange.DIED, str(tmp_path / "died"))
    at_once: list[int] = []
    train = Here.__call__

    def noted(self: Here, *args: object) -> list[Trial]:
        at_once.append(threading.get_ident())
        return train(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Here, "__call__", noted)
    found = _trained(elsewhere)
    assert {trial.status for trial in found.values()} == {Status.COMPLETE}
    assert len(set(at_once)) == 1
    assert (tmp_path / "died").exists()
    assert len(processes) == 2


def test_device_whose_process_cannot_start_is_left_out_with_a_word(
    elsewhere: Pool, processes: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with caplog.at_level("INFO", "lrwd_sweep"):
        found = _trained(elsewhere)
    assert {trial.status for trial in found.values()} == {Status.COMPLETE}
    assert not processes
    assert "cpu:0 is not used: no process could be started for it" in caplog.text


def test_idle_process_is_for_its_own_device(processes: list[int]) -> None:
    other = Remote.hire(torch.device("cpu", 0))
    own = Remote.hire(torch.device("cpu"))
    assert other.process.pid != own.process.pid
    for one in (own, other):
        one.rest()
    assert Remote.hire(torch.device("cpu")) is own
    for one in (own, other):
        one.dismiss()
    remote._idle.clear()


def test_process_ends_when_idle_ones_are_dismissed(processes: list[int]) -> None:
    _trained(_pool())
    remote.dismiss_idle()
    assert _dies(processes[0])


PROGRAM = """import torch
from tests.engine.test_crew import ADAMW, CELLS, _pool
from lrwd_sweep.engine.messages import Job
from lrwd_sweep.engine.remote import Remote
from lrwd_sweep.engine.seat import Seat
from lrwd_sweep.spec.progress import Pack
pool, remote = _pool(epochs=100_000), Remote(torch.device("cpu"))
job = Job(ADAMW, pool.training, pool.device, pool.splits.train.dtype, pool._shelf, Pack(tuple(CELLS), 0))
remote.train(job, lambda epoch, _: print(remote.process.pid, flush=True), lambda: False)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_the_program(number: int) -> None:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        program.send_signal(number)
    assert _dies(pid)


STRAY = "open({marker!r}, 'a').write(__name__)\nraise SystemExit\n"
OWN = """
from torch import nn
from own_layers import last

def make():
    return nn.Sequential(nn.Flatten(), last())
"""
LAYERS = "from torch import nn\ndef last():\n    return nn.Linear(64, 10)\n"


@pytest.fixture
def strays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory has files with the names of libraries, which leave a mark when they run."""
    marker = tmp_path / "ran"
    for name in ("random", "json", "numpy", "torch", "numba", "lrwd_sweep"):
        (tmp_path / f"{name}.py").write_text(STRAY.format(marker=str(marker)))
    monkeypatch.chdir(tmp_path)
    return marker


@pytest.mark.parametrize("on_path", [False, True])  # as it is once user code has been imported from there
def test_process_imports_no_library_from_the_current_directory(
    on_path: bool, strays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_path:
        monkeypatch.syspath_prepend(strays.parent)
    started = Remote(torch.device("cpu"))
    started.await_ready(lambda: False)
    started.dismiss()
    assert not strays.exists()


def test_process_finds_user_code_in_the_current_directory(
    tmp_path: Path, trained_there: list[Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_net.py").write_text(OWN)
    (tmp_path / "own_layers.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    pool = _pool("own_net:make")
    found_here = Remote(torch.device("cpu"))
    found_here.await_ready(lambda: False)
    found_here.rest()
    assert len(_trained(pool)) == len(LANES) * len(CELLS)
    assert trained_there


def test_process_that_dies_at_its_start_is_told_of_once(
    processes: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remote.dismiss_idle()
    dying = [sys.executable, "-c", "raise ImportError('libgomp is missing')"]
    monkeypatch.setattr("lrwd_sweep.runner.interpreter.command", lambda *_: dying)
    with caplog.at_level("INFO", "lrwd_sweep"):
        assert len(_trained(_pool())) == len(LANES) * len(CELLS)
    told = [record.getMessage() for record in caplog.records if "process" in record.getMessage()]
    assert told == [
        "a process for lanes ended at its start (exit status 1: ImportError: libgomp is missing); its lanes "
        "train in this one, which is slower"
    ]


def test_no_further_process_is_told_of(
    processes: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    remote.dismiss_idle()
    monkeypatch.setattr("lrwd_sweep.engine.remote.subprocess.Popen", refuse)
    with caplog.at_level("INFO", "lrwd_sweep"):
        assert len(_trained(_pool())) == len(LANES) * len(CELLS)
    assert (
        "no further process could be started ([Errno 11] Resource temporarily unavailable); its"
        in caplog.text
    )
