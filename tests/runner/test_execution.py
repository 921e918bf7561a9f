"""Packs side by side: planned whole, sized to what is free, stopped and halved when need be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import ceil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.data import Splits
from lrwd_sweep.engine import Pool, Stopped, device, packing
from lrwd_sweep.engine.memory import pack_bytes
from lrwd_sweep.engine.packing import lanes_that_fit, plan
from lrwd_sweep.engine.trainer import OnEpoch, PackTrainer
from lrwd_sweep.errors import DeviceError, UnknownName
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import EpochDone, PackDone
from lrwd_sweep.spec.task import Task

ADAMW = Optimizer.parse("adamw")
CELLS = list(Lattice((0.01, 0.02, 0.04), (0.001, 0.01)).cells())
CPU = torch.device("cpu")


def _trials(pool: Pool, todo: dict[int, list[Cell]], max_lanes: int | None = None) -> list[Trial]:
    events = pool.train(ADAMW, pool.plan(todo, max_lanes))
    return [trial for event in events if isinstance(event, PackDone) for trial in event.trials]


def _by_lane(trials: list[Trial]) -> dict[tuple[Cell, int], Trial]:
    return {(trial.cell, trial.seed): trial for trial in trials}


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 200), min_size=1, max_size=5), st.integers(1, 64))
def test_plan_holds_every_lane_once_in_packs_of_like_size(sizes: dict[int, int], lanes: int) -> None:
    todo = {seed: [Cell(1 + k, 1) for k in range(size)] for seed, size in sizes.items()}
    packs = plan(todo, lanes)
    planned = [(cell, pack.seed) for pack in packs for cell in pack.cells]
    assert sorted(planned) == sorted((cell, seed) for seed, cells in todo.items() for cell in cells)
    assert [len(pack.cells) for pack in packs] == sorted((len(pack.cells) for pack in packs), reverse=True)
    for seed, size in sizes.items():
        of_seed = [len(pack.cells) for pack in packs if pack.seed == seed]
        assert ceil(size / lanes) <= len(of_seed) <= ceil(size / lanes) + 1
        assert max(of_seed) <= lanes
        assert max(of_seed) <= 2 * min(of_seed) + 1


@pytest.mark.parametrize(("cells", "most"), [(9, 14), (7, 11), (12, 18), (121, 182), (1, 2)])
def test_no_worker_waits_for_another_that_has_a_whole_pack_to_do(cells: int, most: int) -> None:
    todo = {seed: [Cell(1 + k, 1) for k in range(cells)] for seed in range(3)}
    loads = [0, 0]
    for pack in plan(todo, min(16, ceil(3 * cells / 2)), workers=2):
        loads[loads.index(min(loads))] += len(pack.cells)
    assert max(loads) == most


def test_packs_never_exceed_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task()
    for lanes in (1, 3, 12):
        free = int(2 * pack_bytes(task, lanes, CPU) / packing.MEMORY_SHARE) + 100
        monkeypatch.setattr(packing, "free_bytes", lambda _, free=free: free)
        assert lanes_that_fit(task, device=CPU, workers=2, max_lanes=None) == lanes
    monkeypatch.setattr(packing, "free_bytes", lambda _: 1000)
    with pytest.raises(DeviceError, match="free some memory"):
        lanes_that_fit(task, device=CPU, workers=2, max_lanes=None)


def test_memory_model_covers_what_a_pack_allocates(digits32: Splits) -> None:
    # The parameters, gradients and moments alone are a lower bound that can be counted.
    task = Task()
    trainer = PackTrainer(ADAMW, task, CELLS, 0, digits32)
    held = [trainer.arena.theta, trainer.arena.grad, *trainer.update.family.moments()]
    counted = sum(tensor.numel() * tensor.element_size() for tensor in held)
    assert counted < pack_bytes(task, len(CELLS), CPU) < 3 * counted


def test_max_lanes_bounds_the_packs_and_changes_no_result() -> None:
    pool = Pool(Task(epochs=2), "cpu")
    todo = {0: CELLS, 1: CELLS}
    assert max(len(pack.cells) for pack in pool.plan(todo, max_lanes=2)) == 2
    assert _by_lane(_trials(pool, todo, max_lanes=2)) == _by_lane(_trials(pool, todo))


def test_events_come_to_the_calling_thread_in_order() -> None:
    pool = Pool(Task(epochs=3), "cpu")
    packs = pool.plan({0: CELLS})
    seen: dict[object, list[int]] = {}
    for event in pool.train(ADAMW, packs):
        assert threading.current_thread() is threading.main_thread()
        if isinstance(event, EpochDone):
            seen.setdefault(event.pack, []).append(event.epoch)
            assert len(event.metrics["val_loss"]) == len(event.pack.cells)
        else:
            assert seen[event.pack] == [1, 2, 3]
    assert set(seen) == set(packs)


def test_stop_keeps_what_was_yielded_and_ends_every_thread() -> None:
    pool = Pool(Task(epochs=40), "cpu")
    packs = pool.plan(dict.fromkeys(range(6), CELLS), max_lanes=3)
    done: list[PackDone] = []
    events = pool.train(ADAMW, packs, lambda: bool(done))
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


def test_pack_without_room_is_halved_and_gives_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(Task(epochs=2), "cpu")
    whole = _trials(pool, {0: CELLS})
    monkeypatch.setattr(PackTrainer, "run", _out_of_memory_above(1))
    assert _by_lane(_trials(pool, {0: CELLS})) == _by_lane(whole)


def test_lane_without_room_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(Task(epochs=2), "cpu")
    monkeypatch.setattr(PackTrainer, "run", _out_of_memory_above(0))
    trials = _trials(pool, {0: CELLS})
    assert {trial.status for trial in trials} == {Status.FAILED}
    assert "no room" in trials[0].detail


def test_fault_in_a_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[Trial]:
        raise RuntimeError("a shape is wrong")

    monkeypatch.setattr(PackTrainer, "run", broken)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        _trials(Pool(Task(epochs=2), "cpu"), {0: CELLS})


def test_device_names_are_checked() -> None:
    assert device.choose("cpu") == CPU
    assert device.choose("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UnknownName, match="cuda"):
        device.choose("cuuda")
    with pytest.raises(DeviceError, match="--device cpu"):
        device.choose("cuda:99")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_follows_the_cpu() -> None:
    on = {name: _by_lane(_trials(Pool(Task(epochs=2), name), {0: CELLS})) for name in ("cpu", "cuda")}
    for lane, trial in on["cpu"].items():
        assert on["cuda"][lane].metrics["val_loss"] == pytest.approx(trial.metrics["val_loss"], rel=1e-3)
