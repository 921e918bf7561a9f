"""Packs side by side: where they train, what is retried, and how they stop."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

import lrwd_sweep
from lrwd_sweep.engine import device, packing
from lrwd_sweep.engine.memory import pack_bytes
from lrwd_sweep.engine.pack import OnEpoch, PackTrainer, Stopped
from lrwd_sweep.errors import DeviceError, UnknownName, UsageError
from lrwd_sweep.runner import execution
from lrwd_sweep.runner.execution import ATTEMPTS, Execution
from lrwd_sweep.runner.executors import processes
from lrwd_sweep.runner.executors.threads import Threads
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import Event, Job, Pack, PackDone, PackLost
from lrwd_sweep.spec.task import Task
from tests.runner import strange

ADAMW = Optimizer.parse("adamw")
CELLS = list(Lattice((0.01, 0.02, 0.04), (0.001, 0.01)).cells())
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Give back the threads that the engine takes from torch."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _on_two_cores(net: str = "mlp-norm", epochs: int = 2) -> Execution:
    found = Execution(Task(net=net, epochs=epochs, engine="auto" if net == "mlp-norm" else "loop"), "cpu")
    found.places = (CPU, CPU)
    return found


def _trials(
    on: Execution, todo: dict[int, list[Cell]], max_lanes: int | None = None
) -> dict[tuple[Cell, int], Trial]:
    events = on.train(ADAMW, on.plan(todo, max_lanes))
    done = [event for event in events if isinstance(event, PackDone)]
    return {(trial.cell, trial.seed): trial for event in done for trial in event.trials}


class TestChoiceOfExecutor:
    def test_follows_the_network_the_slots_and_the_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module, native = _on_two_cores(f"{strange.__name__}:Net"), _on_two_cores()
        assert isinstance(native._open([CPU] * 2), Threads)
        assert isinstance(module._open([CPU]), Threads)
        found = module._open([CPU] * 2)
        assert found is module.processes
        assert found.free == 2
        monkeypatch.setattr(device, "free_bytes", lambda _: execution.PROCESS)
        assert isinstance(module._open([CPU] * 2), Threads)
        gpus = [torch.device("cuda", k) for k in range(2)]  # which nothing looks at before a job comes
        native.device, native.places = gpus[0], (gpus[0], gpus[1])
        monkeypatch.undo()
        assert native._open(gpus) is native.processes
        assert native._open(gpus[:1]).free == 1
        for each in (module, native):
            each.processes.close()

    def test_falls_back_to_threads_with_a_word(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "lrwd_sweep")
        todo = {0: CELLS[:2]}
        expected = _trials(_on_two_cores(), todo).keys()
        monkeypatch.setattr(sys, "executable", "")
        assert _trials(_on_two_cores(f"{strange.__name__}:Net"), todo).keys() == expected
        monkeypatch.undo()
        monkeypatch.setattr(processes, "_begin", strange.refuse_to_begin)
        module = _on_two_cores(f"{strange.__name__}:Net")
        assert _trials(module, todo).keys() == expected
        module.processes.close()
        posix, started = caplog.messages
        assert posix.startswith("no further process could be started (a process of its own needs a POSIX")
        assert "ended at its start" in started
        assert posix.endswith("lanes train in this one, which is slower")


class _Losing:
    """An executor that loses packs, by a rule, and trains the others at once."""

    free = 1

    def __init__(self, is_lost: Callable[[Pack, int], PackLost | None]) -> None:
        self.is_lost = is_lost
        self.submitted: list[Pack] = []
        self.left: deque[Event] = deque()

    def submit(self, job: Job) -> None:
        attempts = self.submitted.count(job.pack)
        self.submitted.append(job.pack)
        done = PackDone(job.pack, [Trial(cell, 0, Status.COMPLETE) for cell in job.pack.cells])
        self.left.append(self.is_lost(job.pack, attempts) or done)

    def events(self) -> Sequence[Event]:
        return [self.left.popleft()]

    def cancel(self) -> None:
        pass

    close = cancel


class TestLostPacks:
    def _trained(
        self, is_lost: Callable[[Pack, int], PackLost | None], monkeypatch: pytest.MonkeyPatch
    ) -> tuple[_Losing, dict[Cell, Trial]]:
        losing, on = _Losing(is_lost), _on_two_cores()
        monkeypatch.setattr(on, "_open", lambda _: losing)
        events = list(on.train(ADAMW, [Pack(tuple(CELLS[:4]), 0)]))
        done = [event for event in events if isinstance(event, PackDone)]
        return losing, {trial.cell: trial for event in done for trial in event.trials}

    def test_are_trained_again_in_halves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        losing, trials = self._trained(
            lambda pack, _: PackLost(pack, "killed") if len(pack.cells) > 2 else None, monkeypatch
        )
        assert sorted(len(pack.cells) for pack in losing.submitted) == [2, 2, 4]
        assert {trial.status for trial in trials.values()} == {Status.COMPLETE}
        assert len(trials) == 4

    def test_cost_only_the_lane_that_is_lost_each_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ill = CELLS[0]
        losing, trials = self._trained(
            lambda pack, _: PackLost(pack, "killed") if ill in pack.cells else None, monkeypatch
        )
        assert {cell for cell, trial in trials.items() if trial.status is Status.FAILED} == {ill}
        assert trials[ill].detail == "killed"
        assert sum(ill in pack.cells for pack in losing.submitted) == ATTEMPTS

    def test_of_one_lane_are_retried_unless_memory_is_short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for out_of_memory, attempts in ((False, ATTEMPTS), (True, 1)):

            def is_lost(pack: Pack, _: int, out_of_memory: bool = out_of_memory) -> PackLost:
                return PackLost(pack, "lost", out_of_memory)

            losing, on = _Losing(is_lost), _on_two_cores()
            monkeypatch.setattr(on, "_open", lambda _, losing=losing: losing)
            *_, done = on.train(ADAMW, [Pack((CELLS[0],), 0)])
            assert isinstance(done, PackDone)
            assert [trial.status for trial in done.trials] == [Status.FAILED]
            assert len(losing.submitted) == attempts, out_of_memory

    def test_of_a_killed_process_end_as_lanes_trained_in_one_thread(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv(strange.HOME, str(os.getpid()))
        monkeypatch.setenv(strange.MARKS, str(tmp_path))
        on = _on_two_cores(f"{strange.__name__}:MortalOnce")
        found = _trials(on, {0: CELLS})
        on.processes.close()
        assert (tmp_path / "died").exists()
        on.places = (CPU,)
        assert found == _trials(on, {0: CELLS})
        assert {trial.status for trial in found.values()} == {Status.COMPLETE}


def test_max_lanes_bounds_the_packs_and_changes_no_result() -> None:
    on, todo = _on_two_cores(), {0: CELLS, 1: CELLS}
    assert max(len(pack.cells) for pack in on.plan(todo, max_lanes=2)) == 2
    assert _trials(on, todo, max_lanes=2) == _trials(on, todo)


def test_stop_keeps_what_was_yielded_and_ends_every_thread() -> None:
    on = _on_two_cores(epochs=40)
    packs = on.plan(dict.fromkeys(range(6), CELLS), max_lanes=3)
    done: list[PackDone] = []
    events = on.train(ADAMW, packs, lambda: bool(done))
    with pytest.raises(Stopped):
        done.extend(event for event in events if isinstance(event, PackDone))
    assert 1 <= len(done) < len(packs)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lanes")]


def _out_of_memory_above(lanes: int) -> Callable[..., list[Trial]]:
    run = PackTrainer.run

    def limited(self: PackTrainer, on_epoch: OnEpoch, should_stop: Callable[[], bool]) -> list[Trial]:
        if len(self.cells) > lanes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, on_epoch, should_stop)

    return limited


def test_a_pack_without_room_is_halved_to_the_same_results_down_to_lanes_that_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on, todo = _on_two_cores(), {0: CELLS}
    whole = _trials(on, todo)
    with monkeypatch.context() as patch:
        patch.setattr(PackTrainer, "run", _out_of_memory_above(1))
        assert _trials(on, todo) == whole
    monkeypatch.setattr(PackTrainer, "run", _out_of_memory_above(0))
    trials = _trials(on, todo).values()
    assert {trial.status for trial in trials} == {Status.FAILED}
    assert {trial.detail for trial in trials} == {"cpu has no room for one lane of mlp-norm"}


def test_a_fault_in_a_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[Trial]:
        raise RuntimeError("a shape is wrong")

    monkeypatch.setattr(PackTrainer, "run", broken)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        _trials(_on_two_cores(), {0: CELLS})


def test_an_impossible_network_or_device_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for net in ("torchvision:resnet81", "torchvision:squeezenet1_1"):
        with pytest.raises(UsageError):
            Execution(Task(net=net), "cpu")
    with pytest.raises(UnknownName, match="cuda"):
        Execution(Task(), "cuuda")
    with pytest.raises(DeviceError, match="device='cpu'"):
        Execution(Task(), "cuda:99")
    monkeypatch.setattr(packing, "free_bytes", lambda _: 1 << 16)
    with pytest.raises(DeviceError, match=r"^cpu has 0 MiB free and a lane of mlp-norm needs \d+; "):
        Execution(Task(), "cpu")


def test_no_more_cores_train_than_have_room_for_a_lane(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("lrwd_sweep.engine.host.cores", lambda: 8)
    needed = pack_bytes(Task(epochs=1), 1, CPU) / packing.MEMORY_SHARE
    for room, slots in ((0.9 * 8, 7), (3.5, 3), (1.1, 1), (100, 8)):
        free = int(room * needed)
        monkeypatch.setattr(packing, "free_bytes", lambda _, free=free: free)
        on = Execution(Task(epochs=1), "cpu")
        packs = on.plan({0: [Cell(1 + k, 1) for k in range(100)]})
        assert (len(on.slots()), len(on.places)) == (slots, 8), room
        assert slots * pack_bytes(Task(epochs=1), len(packs[0].cells), CPU) < free
    monkeypatch.setattr(packing, "free_bytes", lambda _: int(1.1 * needed))
    storage = tmp_path / "a.db"
    found = lrwd_sweep.sweep(lr="2^-7:2^-6", weight_decay="0.01,0.1", seeds=1, epochs=1, storage=storage)
    assert found.surface.counts()["complete"] == 4
    told = "there is memory for 1 lane of mlp-norm at a time; 7 of 8 cores stay idle"
    assert told in capsys.readouterr().err


def test_a_device_without_room_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    places = tuple(torch.device("cpu", k) for k in range(3))  # as GPUs are, each with memory of its own
    monkeypatch.setattr(device, "places", lambda _: places)
    free = [1000, 1 << 40, 1 << 40]
    monkeypatch.setattr(packing, "free_bytes", lambda place: free[place.index])
    on = Execution(Task(epochs=1), "cpu")
    assert on.device == places[1]
    assert on.slots() == places[1:]
    free[:] = 1 << 40, 1 << 40, 1000
    assert on.slots() == (places[1], places[0])  # where the data are comes first
    free[:] = [1000] * 3
    with pytest.raises(DeviceError, match="free some memory"):
        on.plan({0: [Cell(1, 1)]})
    with pytest.raises(DeviceError, match=r"^cpu:0 has 0 MiB free"):
        Execution(Task(epochs=1), "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_follows_the_cpu() -> None:
    on = {name: _trials(Execution(Task(epochs=2), name), {0: CELLS}) for name in ("cpu", "cuda")}
    for lane, trial in on["cpu"].items():
        assert on["cuda"][lane].metrics["val_loss"] == pytest.approx(trial.metrics["val_loss"], rel=1e-3)
