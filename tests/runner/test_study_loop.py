"""A study trains its missing lanes once, and gives the same bits after any interruption."""

import itertools
import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lrwd_sweep.engine.checkpoint import Checkpoints, State, find
from lrwd_sweep.engine.cost import Speed
from lrwd_sweep.errors import StoreError
from lrwd_sweep.runner import execution
from lrwd_sweep.runner.cluster import store_packs, study_key, write_pack
from lrwd_sweep.runner.execution import Execution, estimate
from lrwd_sweep.runner.study_loop import StudyLoop
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial, unfinished
from lrwd_sweep.spec import job
from lrwd_sweep.spec.job import Pack, Shard, Stopped
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from lrwd_sweep.store import Store
from tests.refusal import assert_raises
from tests.specs import spec

LATTICE = Lattice((0.005, 0.01, 0.02), (0.001, 0.01))
CELLS = list(LATTICE.cells())
SPEC, TPE = (spec(kind=kind, lattice=LATTICE, epochs=2) for kind in (Kind.GRID, Kind.TPE))


def _loop(
    store: Store, spec: StudySpec = SPEC, name: str = "study", **given: Any
) -> tuple[StudyLoop, list[list[Pack]]]:
    """Begin a study; return its loop, and the packs of which its watcher is told."""
    assert spec.task is not None
    store.begin_study(name, spec)
    begun: list[list[Pack]] = []
    watcher = Mock(begin=lambda packs: begun.append([*packs]))
    return StudyLoop(name, spec, store, Execution(spec.task, "cpu"), watcher, **given), begun


def _train(store: Store, spec: StudySpec = SPEC, points: int = 0, **given: Any) -> list[Pack]:
    loop, begun = _loop(store, spec, **given)
    loop.tpe(points) if points else loop.grid()
    return [*itertools.chain(*begun)]


def _results(store: Store, name: str = "study") -> dict[tuple[Cell, int], Trial]:
    return {(trial.cell, trial.seed): trial for trial in store.trials(name, curves=True)}


def _points(store: Store) -> dict[Cell, set[int]]:
    lanes = _results(store)
    return {cell: {seed for other, seed in lanes if other == cell} for cell, _ in lanes}


def test_a_shard_keeps_the_checkpoints_of_others(store: Store) -> None:
    todo = unfinished(CELLS, SPEC.seeds, ())
    mine, other = (Shard(part, 2).among(todo)[0] for part in (1, 2))
    for cells in ([*other, mine[0]], other):
        loop, _ = _loop(store, name=f"study {len(cells)}", shard=Shard(1, 2))
        place = job.CheckpointPlace(f"{store.path}.packs", loop.name, loop.name, 60.0)
        loop.execution.checkpoints = place
        Checkpoints(place, Pack(tuple(cells), 0)).write(State({}, {}, {}), 1)
        loop.grid()
        assert find(place), cells


def test_halves_of_a_lost_pack_are_watched(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, begun = _loop(store)
    train = loop.execution.train

    def losing(optimizer: Any, packs: Sequence[Pack], *rest: Any) -> Generator[job.Event, None, None]:
        first, *others = packs
        yield job.PackLost(first, "killed", parts=tuple(first.halves()))
        yield from train(optimizer, [*first.halves(), *others], *rest)

    monkeypatch.setattr(loop.execution, "train", losing)
    loop.grid()
    first, *others = begun[0]
    assert begun[1:] == [[*others, *first.halves()]]
    assert len(store.trials("study")) == 12


def test_tpe_counts_and_finishes_the_points_of_earlier_runs(store: Store) -> None:
    loop, _ = _loop(store, TPE)
    with pytest.raises(Stopped):
        replace(loop, should_stop=lambda: bool(store.trials("study"))).tpe(4)
    _train(store, TPE, 4)
    assert list(_points(store).values()) == [{0, 1}] * 4
    seconds = store.get_study("study").seconds
    packs = _train(store, TPE, 12)
    assert 0 < seconds < store.get_study("study").seconds, "times add up"
    assert sum(len(pack.cells) for pack in packs) == 8 * 2
    assert list(_points(store).values()) == [{0, 1}] * 12
    assert all(0.005 <= cell.lr <= 0.02 for cell in _points(store))
    for found in _results(store).values():
        assert found.metrics["val_loss"] == found.curves["val_loss"][-1]
    assert max(len(pack.cells) for pack in packs if pack.seed == 0) <= 3  # a quarter of the points at a time


def test_lanes_of_another_process_are_kept(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "lrwd_sweep")
    _train(store, name="alone")
    alone, add = _results(store, "alone"), store.add_trials

    beside = [CELLS[:3]]  # what another process stores of seed 0 before a pack of this one is stored

    def add_beside(*given: Any) -> list[Any]:
        cells = beside.pop() if beside else []
        add("study", [Trial(cell, 0, Status.DIVERGED, detail="theirs") for cell in cells])
        return add(*given)

    monkeypatch.setattr(store, "add_trials", add_beside)
    _train(store, max_lanes=2)
    found = _results(store)
    theirs = {lane: trial for lane, trial in found.items() if trial.detail == "theirs"}
    assert theirs.keys() == {(cell, 0) for cell in CELLS[:3]}
    assert found == alone | theirs
    assert sum("another process trains study too" in text for text in caplog.messages) == 1
    store.delete_study("study")
    beside[:] = [Cell(0.01, 0.005)], []
    _train(store, TPE, 6)
    seeds = [*_points(store).values()]
    assert seeds == [{0, 1}] * max(len(seeds), 6)


def test_a_study_replaced_in_training_gets_no_lanes(store: Store) -> None:
    other, said = replace(SPEC, task=Task(epochs=1)), r"another specification \(epochs: 1, 2:"
    for meanwhile, message in (([], "was deleted while"), ([other], said)):

        def begin(_: object, anew: Any = meanwhile) -> None:
            store.delete_study("study")
            for each in anew:
                store.begin_study("study", each)

        loop, _ = _loop(store)
        assert_raises(message, replace(loop, watcher=Mock(begin=begin)).grid, error=StoreError)
        assert not meanwhile or store.trials("study") == []


def test_estimates_of_studies_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_: Optimizer, task: Task, *__: object) -> Speed:
        return Speed(step=1.0, sample=0.0, whole=task.net != "mlp")

    monkeypatch.setattr(execution, "measure", measure)
    adam, more = spec(optimizer="adam", epochs=10), spec(optimizer="adamw", epochs=9, seeds=(0, 1, 2))
    sgd, mlp = spec(optimizer="sgd", epochs=20), spec(optimizer="adam", net="mlp")
    found = estimate([adam, more, sgd])
    assert (found.seconds, found.whole) == ((8 * 10 + 12 * 9 + 8 * 20) * 6, True)
    assert not estimate([adam, mlp]).whole  # one was extrapolated


def test_finished_packs_of_a_spool_are_stored_once(store: Store, tmp_path: Path) -> None:
    place, key = tmp_path / "spool", study_key("study", SPEC)
    store.begin_study("study", SPEC)
    values = {"val_loss": 0.1, "x": math.inf}, {"val_loss": (0.3, math.nan)}
    packs = [Pack(tuple(CELLS[:2]), seed) for seed in (0, 1)]
    done = [[Trial(cell, pack.seed, Status.COMPLETE, *values) for cell in pack.cells] for pack in packs]
    for pack, trials, owner in zip([*packs, packs[0]], [*done, done[0]], (key, key, "another"), strict=True):
        write_pack(str(place), owner, pack, trials)
    write_pack(str(place), key, third := Pack(tuple(CELLS[2:3]), 0), [Trial(CELLS[2], 0, Status.COMPLETE)])
    (damaged,) = place.glob(f"*{job.short_digest(repr(third))}*")
    damaged.write_text(damaged.read_text().replace("complete", "diverged", 1))
    assert store_packs(store, "study", SPEC, str(place)) == 4
    assert sorted(map(repr, _results(store).values())) == sorted(map(repr, itertools.chain(*done)))
    assert [file.name.startswith("done-another") for file in place.iterdir()] == [True]
    assert study_key("study", replace(SPEC, seeds=(0,))) == key, "seeds extend a study"
    assert study_key("study", spec(batch_size=7)) != study_key("study", spec())
