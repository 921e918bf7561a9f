"""Packs are planned, train side by side, are retried if lost, and stop when asked."""

import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lrwd_sweep
from lrwd_sweep.engine import cost, device
from lrwd_sweep.engine.cost import pack_bytes
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.runner import execution
from lrwd_sweep.runner.execution import ATTEMPTS, Execution, plan
from lrwd_sweep.runner.executors import local
from lrwd_sweep.runner.executors.local import Threads
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import Event, Pack, PackDone, PackLost
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.runner import strange
from tests.small import ADAMW, CPU

CELLS = list(Lattice((0.01, 0.02, 0.04), (0.001, 0.01)).cells())


def _on_two_cores(net: str = "mlp-norm") -> Execution:
    engine = "auto" if net == "mlp-norm" else "loop"
    found = Execution(Task(net=net, epochs=2, engine=engine, eval_every=1), "cpu")
    found.places = (CPU, CPU)
    return found


def _trials(on: Execution, packs: Sequence[Pack]) -> list[Trial]:
    events = on.train(ADAMW, packs)
    return [trial for event in events if isinstance(event, PackDone) for trial in event.trials]


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 200), min_size=1, max_size=5), st.integers(1, 64))
def test_plan_holds_every_lane_once_in_packs_of_similar_size(sizes: dict[int, int], lanes: int) -> None:
    todo = {seed: [Cell(1 + k, 1) for k in range(size)] for seed, size in sizes.items()}
    packs = plan(todo, lanes)
    planned = [(cell, pack.seed) for pack in packs for cell in pack.cells]
    assert sorted(planned) == sorted((cell, seed) for seed, found in todo.items() for cell in found)
    assert [len(pack.cells) for pack in packs] == sorted((len(pack.cells) for pack in packs), reverse=True)
    for seed, size in sizes.items():
        of_seed = [len(pack.cells) for pack in packs if pack.seed == seed]
        assert ceil(size / lanes) <= len(of_seed) <= ceil(size / lanes) + 1
        assert max(of_seed) <= min(lanes, 2 * min(of_seed) + 1)


def test_executor_follows_the_network_the_slots_and_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    module, native = _on_two_cores(f"{strange.__name__}:Net"), _on_two_cores()
    assert isinstance(native._open([CPU] * 2), Threads)
    assert isinstance(module._open([CPU]), Threads)
    assert module._open([CPU] * 2) is module.processes
    assert module.processes.free == 2
    native.kind, module.kind = "processes", "threads"  # as the user wants
    assert native._open([CPU] * 2) is native.processes
    assert isinstance(module._open([CPU] * 2), Threads)
    native.kind = module.kind = "auto"
    with monkeypatch.context() as patch:
        patch.setattr(device, "free_bytes", lambda _: execution.PROCESS)
        assert isinstance(module._open([CPU] * 2), Threads)
    gpus = [torch.device("cuda", k) for k in range(2)]  # not used before a job comes
    native.device, native.places = gpus[0], (gpus[0], gpus[1])
    assert native._open(gpus) is native.processes
    assert native._open(gpus[:1]).free == 1
    for each in (module, native):
        each.processes.close()


def test_lanes_train_in_threads_if_no_process_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lrwd_sweep")
    module = _on_two_cores(f"{strange.__name__}:Net")
    ended = local, "_begin", strange.refuse_to_begin, "a process for lanes ended at its start (exit status 3)"
    impossible = sys, "executable", "", "a process of its own needs a POSIX"
    for target, name, value, why in (impossible, ended):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            assert {trial.cell for trial in _trials(module, module.plan({0: CELLS[:2]}))} == {*CELLS[:2]}
        (told,) = (line for line in caplog.messages if line.startswith("no further process could be started"))
        assert (why in told, told.endswith("lanes train in this one, which is slower")) == (True, True)
        caplog.clear()
    module.processes.close()


def _losing(is_lost: Callable[[Pack], bool], lost: PackLost) -> Mock:
    """Make an executor that loses packs by a rule, and trains the others at once."""
    left = deque[Pack]()

    def events() -> list[Event]:
        pack = left.popleft()
        done = PackDone(pack, [Trial(cell, 0, Status.COMPLETE) for cell in pack.cells])
        return [replace(lost, pack=pack) if is_lost(pack) else done]

    return Mock(free=1, submit=Mock(side_effect=lambda job: left.append(job.pack)), events=events)


def test_lost_packs_are_trained_again_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    pack, ill = Pack(tuple(CELLS[:4]), 0), CELLS[0]
    killed = PackLost(pack, "why")
    full, gone = replace(killed, out_of_memory=True), replace(killed, whole=True)
    for event, lanes, failed, attempts in (  # packs of more than two lanes are lost, or those of an ill one
        (killed, 4, set(), {4: 1, 2: 2}),
        (full, 4, set(), {4: 1, 2: 2}),
        (gone, 4, set(), {4: ATTEMPTS, 2: 2}),  # first as it is
        (killed, 4, {ill}, {4: 1, 2: 2, 1: 2}),
        (gone, 2, {ill}, {2: ATTEMPTS, 1: 1 + ATTEMPTS}),
        (killed, 1, {ill}, {1: ATTEMPTS}),
        (full, 1, {ill}, {1: 1}),  # without room one attempt is enough
    ):
        is_lost = (lambda pack: ill in pack.cells) if failed else (lambda pack: len(pack.cells) > 2)
        losing, on = _losing(is_lost, event), _on_two_cores()
        monkeypatch.setattr(on, "_open", lambda _, losing=losing: losing)
        trials = _trials(on, [Pack(pack.cells[:lanes], 0)])
        assert {trial.cell for trial in trials} == set(CELLS[:lanes]), attempts
        lost = {trial.cell: trial.detail for trial in trials if trial.status is Status.FAILED}
        assert lost == dict.fromkeys(failed, "why"), attempts
        assert Counter(len(call.args[0].pack.cells) for call in losing.submit.mock_calls) == attempts


def test_only_cores_with_room_for_a_lane_train(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 8)
    needed = pack_bytes(Task(epochs=1), 1, CPU) / cost.MEMORY_SHARE
    for room, slots in ((0.9 * 8, 7), (3.5, 3), (1.1, 1), (100, 8)):
        free = int(room * needed)
        monkeypatch.setattr(cost, "free_bytes", lambda _, free=free: free)
        on = Execution(Task(epochs=1), "cpu")
        packs = on.plan({0: [Cell(1 + k, 1) for k in range(100)]})
        assert (len(on.slots()), len(on.places)) == (slots, 8), room
        assert slots * pack_bytes(Task(epochs=1), len(packs[0].cells), CPU) < free
    monkeypatch.setattr(cost, "free_bytes", lambda _: int(1.1 * needed))
    storage = tmp_path / "a.db"
    found = lrwd_sweep.sweep(lr="2^-7:2^-6", weight_decay="0.01,0.1", seeds=1, epochs=1, storage=storage)
    assert found.surface.counts()["complete"] == 4
    told = "there is memory for 1 lane of mlp-norm at a time; 7 of 8 cores stay idle"
    assert told in capsys.readouterr().err


def test_a_device_without_room_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    places = tuple(torch.device("cpu", k) for k in range(3))  # as GPUs are, each with memory of its own
    monkeypatch.setattr(device, "places", lambda _: places)
    free = [1000, 1 << 40, 1 << 40]
    monkeypatch.setattr(cost, "free_bytes", lambda place: free[place.index])
    on = Execution(Task(epochs=1), "cpu")
    assert on.device == places[1]
    assert on.slots() == places[1:]
    free[:] = 1 << 40, 1 << 40, 1000
    assert on.slots() == (places[1], places[0])  # where the data are comes first
    free[:] = [1000] * 3
    assert_raises("free some memory", on.plan, {0: [Cell(1, 1)]}, error=DeviceError)
    assert_raises(r"^cpu:0 has 0 MiB free", Execution, Task(epochs=1), "cpu", error=DeviceError)
