"""A sweep trains what is missing, nothing twice, and gives the same bits however often it is interrupted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.engine.pack import Stopped
from lrwd_sweep.errors import StoreError
from lrwd_sweep.runner.execution import Execution
from lrwd_sweep.runner.study_loop import StudyLoop
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import EpochDone, Event, Pack, PackDone, PackLost
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from lrwd_sweep.store import Store, open_store

SPEC = StudySpec(
    Kind.GRID,
    Optimizer.parse("adamw"),
    Lattice((0.005, 0.01, 0.02), (0.001, 0.01)),
    (0, 1),
    "val_loss",
    Task(epochs=2),
)


def _beginning_otherwise(store: Store, spec: StudySpec | None) -> None:
    store.delete_study("study")
    if spec is not None:
        store.begin_study("study", spec)


class Log:
    """A watcher that remembers the packs."""

    def __init__(self) -> None:
        self.packs: list[Pack] = []
        self.begun: list[list[Pack]] = []
        self.done = 0

    def begin(self, packs: Sequence[Pack]) -> None:
        self.packs += packs
        self.begun.append(list(packs))

    def happened(self, event: EpochDone | PackDone) -> None:
        self.done += isinstance(event, PackDone)

    @property
    def lanes(self) -> int:
        return sum(len(pack.cells) for pack in self.packs)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "sweep.db"), write=True) as opened:
        yield opened


def _loop(
    store: Store, spec: StudySpec = SPEC, *, max_lanes: int | None = None, name: str = "study"
) -> tuple[StudyLoop, Log]:
    assert spec.task is not None
    store.begin_study(name, spec)
    log = Log()
    return StudyLoop(name, spec, store, Execution(spec.task, "cpu"), log, max_lanes), log


def _results(store: Store, name: str = "study") -> dict[tuple[Cell, int], Trial]:
    return {(trial.cell, trial.seed): trial for trial in store.trials(name, curves=True)}


def test_grid_trains_every_lane_once_and_stores_its_curves(store: Store) -> None:
    loop, log = _loop(store)
    loop.grid()
    assert log.lanes == 12
    trials = store.trials("study", curves=True)
    assert {(trial.cell, trial.seed) for trial in trials} == {
        (cell, seed) for cell in SPEC.lattice.cells() for seed in SPEC.seeds
    }
    assert all(len(trial.curves["val_loss"]) == 2 for trial in trials)
    assert all(trial.metrics["val_loss"] == trial.curves["val_loss"][-1] for trial in trials)


def test_second_run_trains_nothing(store: Store) -> None:
    _loop(store)[0].grid()
    loop, log = _loop(store)
    loop.grid()
    assert log.packs == []


def test_more_seeds_and_a_larger_lattice_keep_what_is_there(store: Store) -> None:
    _loop(store)[0].grid()
    before = _results(store)
    larger = replace(SPEC, lattice=Lattice((0.005, 0.01, 0.02, 0.04), (0.001, 0.01)), seeds=(0, 1, 2))
    loop, log = _loop(store, larger)
    loop.grid()
    assert log.lanes == 8 * 3 - 12
    after = _results(store)
    assert {lane: after[lane] for lane in before} == before


def test_failed_lanes_are_tried_again_and_diverged_ones_are_not(store: Store) -> None:
    cells = list(SPEC.lattice.cells())
    store.begin_study("study", SPEC)
    store.add_trials("study", [Trial(cells[0], 0, Status.FAILED), Trial(cells[1], 0, Status.DIVERGED)])
    loop, log = _loop(store)
    loop.grid()
    assert log.lanes == 11
    results = _results(store)
    assert results[cells[0], 0].status is Status.COMPLETE
    assert results[cells[1], 0].status is Status.DIVERGED


@pytest.mark.parametrize("packs_before", [1, 3])
def test_interrupted_sweep_continues_to_the_same_bits(store: Store, packs_before: int) -> None:
    _loop(store, name="whole")[0].grid()
    loop, log = _loop(store, max_lanes=2)
    with pytest.raises(Stopped):
        replace(loop, should_stop=lambda: log.done >= packs_before).grid()
    kept = len(store.trials("study"))
    assert 0 < kept < 12
    resumed, log = _loop(store, max_lanes=5)
    resumed.grid()
    assert log.lanes == 12 - kept
    assert _results(store) == _results(store, "whole")


def _beside(
    loop: StudyLoop, others: dict[int, Sequence[Trial]], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Let another process store lanes before the sweep's n-th pack is stored."""
    add, number = loop.store.add_trials, itertools.count()

    def add_beside(*given: Any) -> list[Any]:
        add(loop.name, others.get(next(number), []))
        return add(*given)

    monkeypatch.setattr(loop.store, "add_trials", add_beside)
    caplog.set_level("INFO", "lrwd_sweep")


def _marked(cells: Sequence[Cell], seed: int) -> list[Trial]:
    """Lanes as another process trained them, by their detail."""
    return [Trial(cell, seed, Status.DIVERGED, detail="theirs") for cell in cells]


def test_lanes_that_another_process_stores_meanwhile_are_kept_and_the_rest_is_trained(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _loop(store, name="alone")[0].grid()
    loop, _ = _loop(store, max_lanes=2)
    cells = list(SPEC.lattice.cells())
    theirs = _marked(cells[:3], 0)
    _beside(loop, {0: theirs}, monkeypatch, caplog)
    loop.grid()
    found, alone = _results(store), _results(store, "alone")
    lanes = {(trial.cell, trial.seed) for trial in theirs}
    assert [found[lane].detail for lane in lanes] == ["theirs"] * 3
    assert found.keys() == alone.keys()
    assert all(found[lane] == alone[lane] for lane in found.keys() - lanes)
    said = [text for text in caplog.messages if "another process trains study too" in text]
    assert len(said) == 1


def test_a_sweep_whose_last_lanes_another_process_stores_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop, _ = _loop(store)
    theirs = [trial for seed in SPEC.seeds for trial in _marked(list(SPEC.lattice.cells()), seed)]
    _beside(loop, {0: theirs}, monkeypatch, caplog)
    loop.grid()
    assert {trial.detail for trial in store.trials("study")} == {"theirs"}


def test_a_search_goes_on_beside_another_process(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop, _ = _tpe(store)
    _beside(loop, {1: _marked([Cell(0.01, 0.005)], 0)}, monkeypatch, caplog)
    loop.tpe(6)
    points = {cell: {s for c, s in _results(store) if c == cell} for cell, _ in _results(store)}
    assert len(points) >= 6
    assert all(seeds == {0, 1} for seeds in points.values())


def _tpe(store: Store, should_stop: Callable[[], bool] = lambda: False) -> tuple[StudyLoop, Log]:
    loop, log = _loop(store, replace(SPEC, kind=Kind.TPE))
    return replace(loop, should_stop=should_stop), log


def test_tpe_counts_the_points_of_earlier_runs(store: Store) -> None:
    _tpe(store)[0].tpe(6)
    assert len({trial.cell for trial in store.trials("study")}) == 6
    loop, log = _tpe(store)
    loop.tpe(10)
    assert log.lanes == 4 * 2
    trials = store.trials("study")
    assert len(trials) == 20
    low, high = SPEC.lattice.lr[0], SPEC.lattice.lr[-1]
    assert all(low <= trial.cell.lr <= high for trial in trials)


def test_tpe_finishes_points_that_an_interruption_left_half_done(store: Store) -> None:
    loop, log = _tpe(store)
    with pytest.raises(Stopped):
        replace(loop, should_stop=lambda: log.done >= 1).tpe(4)
    _tpe(store)[0].tpe(4)
    points: dict[object, set[int]] = {}
    for trial in store.trials("study"):
        points.setdefault(trial.cell, set()).add(trial.seed)
    assert len(points) == 4
    assert set(map(frozenset, points.values())) == {frozenset({0, 1})}


def test_tpe_asks_in_several_rounds_that_share_the_device(store: Store) -> None:
    loop, log = _tpe(store)
    loop.tpe(8)
    of_first_seed = [pack for pack in log.packs if pack.seed == 0]
    assert sum(len(pack.cells) for pack in of_first_seed) == 8
    assert max(len(pack.cells) for pack in of_first_seed) == 2  # a quarter of the points at a time


def test_a_lost_pack_loses_nothing_and_its_halves_are_watched(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, log = _loop(store)
    train = loop.execution.train

    def losing(optimizer: Any, packs: Sequence[Pack], *rest: Any) -> Generator[Event, None, None]:
        first, *others = packs
        yield PackLost(first, "killed")
        yield from train(optimizer, [*first.halves(), *others], *rest)

    monkeypatch.setattr(loop.execution, "train", losing)
    loop.grid()
    first, *others = log.begun[0]
    assert log.begun[1:] == [[*others, *first.halves()]]
    assert len(store.trials("study")) == 12


OTHERWISE = replace(SPEC, task=Task(epochs=1))


@pytest.mark.parametrize(
    ("meanwhile", "said"),
    [(None, "was deleted while"), (OTHERWISE, r"another specification \(epochs: 1, 2:")],
)
def test_a_study_that_became_another_meanwhile_gets_nothing(
    store: Store, meanwhile: StudySpec | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, _ = _loop(store)
    train = loop.execution.train

    def interrupted(*arguments: Any) -> Generator[Event, None, None]:
        _beginning_otherwise(store, meanwhile)
        yield from train(*arguments)

    monkeypatch.setattr(loop.execution, "train", interrupted)
    with pytest.raises(StoreError, match=said):
        loop.grid()
    assert meanwhile is None or store.trials("study") == []


def test_a_study_that_was_begun_anew_meanwhile_has_room_for_all_lanes(store: Store) -> None:
    loop, _ = _loop(store)
    _beginning_otherwise(store, replace(SPEC, lattice=Lattice((0.005, 0.01), (0.001, 0.01)), seeds=(1,)))
    trials = [Trial(cell, 0, Status.DIVERGED) for cell in SPEC.lattice.cells()]
    store.add_trials("study", trials, loop.spec)
    assert store.trials("study") == trials
    assert store.get_study("study").spec.lattice == SPEC.lattice
    assert store.get_study("study").spec.seeds == (0, 1)
