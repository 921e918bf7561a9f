"""A store returns studies and trials as given, each lane once; stores are joined whole or not at all."""

import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, lists

from lrwd_sweep import __version__
from lrwd_sweep.cli.study import merge as merge_command
from lrwd_sweep.errors import SpecMismatch, StoreError, UnknownName, UsageError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import Shard
from lrwd_sweep.spec.study import Kind
from lrwd_sweep.store import Store, database, open_store
from lrwd_sweep.store.database import Inaccessible
from lrwd_sweep.store.merge import MergedStudy, merge_stores
from lrwd_sweep.store.schema import Unreadable
from lrwd_sweep.store.studies import Driver
from tests.refusal import assert_raises
from tests.store.sample import complete, filled, lattice_trials, spec

CELL = Cell(0.1, 0.001)
TRIALS = [
    *lattice_trials(spec()),
    Trial(Cell(1, 0.1), 0, Status.DIVERGED, curves={"val_loss": (2.3,)}, detail="epoch 2"),
    Trial(Cell(1, 1), 0, Status.COMPLETE, {"a": 0.1}, snapshots={4: {"a": 0.3}, 12: {"a": 0.1, "b": 1 / 3}}),
    Trial(Cell(1, 0.1), 1, Status.FAILED, detail="no memory"),
]


@pytest.fixture
def begun(store: Store) -> Store:
    store.begin_study("a", spec())
    return store


def test_begun_study_is_found_as_given_and_extended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = store.begin_study("digits-adamw", spec())
    assert begun == store.find_study("digits-adamw") == store.get_study("digits-adamw")
    assert (begun.spec, begun.version, begun.created[-6:]) == (spec(), __version__, "+00:00")
    assert store.find_study("digits-adam") is None
    assert_raises(r"did you mean digits-adamw\?", store.get_study, "digits-adam", error=UnknownName)
    monkeypatch.setattr("lrwd_sweep.store.studies.__version__", "99")
    store.add_trials("digits-adamw", TRIALS)
    wider = spec(lr=(0.1, 1.0), seeds=3, metric="val_error")
    extended = store.begin_study("digits-adamw", wider)
    assert extended == replace(begun, spec=spec().extended(wider)) == store.get_study("digits-adamw")
    assert store.trials("digits-adamw", curves=True) == TRIALS
    assert store.trials("digits-adamw") == [replace(trial, curves={}) for trial in TRIALS]
    assert store.finished("digits-adamw") == {(trial.cell, trial.seed) for trial in TRIALS[:-1]}
    said, other = r"kind: grid, tpe.*study_name", spec(kind=Kind.TPE)
    for act in (store.begin_study, store.check_study):
        assert_raises(said, act, "digits-adamw", other, error=SpecMismatch)
    assert store.get_study("digits-adamw").spec == extended.spec
    assert store.begin_study("b", spec()).version == "99"


def test_any_text_is_a_name_and_nothing_else(store: Store) -> None:
    for name in ("", "  ", "a\udcff"):
        assert_raises("is not a name", store.begin_study, name, spec())
        assert store.find_study(name) is None
    hostile = ["a'; DROP TABLE studies; --", "[/x]\x1b[31m", "λ′\nβ", "=cmd()"]
    for name in hostile:
        store.begin_study(name, spec())
        assert store.latest() == [name]
    assert [summary.name for summary in store.studies()] == hostile


def test_import_is_whole_or_unfinished(begun: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrwd_sweep.store.bulk_import.BATCH", 3)
    process = [real := Driver.here()]
    monkeypatch.setattr(Driver, "here", lambda: process[0])
    unfinished = "has not finished: wait for it, repeat it, or remove it"

    def found(end: type[BaseException]) -> Iterator[Trial]:
        yield from TRIALS[:7]
        begun.add_trials("a", [TRIALS[0]])  # between two batches, as another process
        assert begun.studies()[1].unreadable.startswith("the import of study 'b' has not finished: wait")
        assert_raises(unfinished, begun.begin_study, "b", spec(), error=Unreadable)
        process[0] = replace(real, pid=1, started=0)
        again = {"b": (spec(), TRIALS)}
        assert_raises("study 'b' is being imported by process", begun.import_studies, again)
        process[0] = replace(process[0], pid=os.getpid(), started=real.started)
        raise end

    with pytest.raises(KeyboardInterrupt):
        begun.import_studies({"b": (spec(), TRIALS), "c": (spec(), found(KeyboardInterrupt))})
    assert [bool(one.unreadable) for one in begun.studies()] == [False, True, True]
    assert begun.latest() == ["a"]
    begun.delete_study("c")
    with pytest.raises(ZeroDivisionError):
        begun.import_studies({"b": (spec(), found(ZeroDivisionError))})
    for repeated in ([complete(CELL), complete(CELL)], [*TRIALS, TRIALS[0]]):
        new = {"b": (spec(), repeated)}
        assert_raises("seed 0 occurs twice for study 'b'", begun.import_studies, new, error=StoreError)
    assert [one.name for one in begun.studies()] == ["a"]
    begun.import_studies({"b": (spec(), iter(TRIALS)), "c": (spec(), TRIALS)})
    assert begun.trials("b", curves=True) == begun.trials("c", curves=True) == TRIALS
    assert begun.latest() == ["b", "c"]
    assert_raises("study 'b' exists", begun.import_studies, {"b": (spec(), [])})


def test_summary_counts_cells_by_the_worst_seed(begun: Store) -> None:
    first, second, third, _ = spec().lattice.cells()
    begun.add_trials("a", [complete(first)])
    assert begun.studies()[0].counts["missing"] == 4
    lanes = [complete(first, 1), complete(second), Trial(second, 1, Status.DIVERGED)]
    begun.add_trials("a", [*lanes, Trial(third, 0, Status.FAILED)])
    begun.begin_study("b", spec(kind=Kind.TPE, seeds=1))
    begun.add_trials("b", [complete(Cell(0.012, 0.0003)), Trial(Cell(0.05, 0.0001), 0, Status.DIVERGED)])
    lattice, search = begun.studies()
    assert (lattice.name, lattice.optimizer) == ("a", "adamw")
    assert lattice.counts == {"cells": 4, "complete": 1, "diverged": 1, "failed": 1, "missing": 1}
    assert search.counts == {"cells": 2, "complete": 1, "diverged": 1, "failed": 0, "missing": 0}


@given(floats(1e-300, 1e300), floats(0, 1e300), integers(-(2**53), 2**53), lists(floats(), max_size=5))
@settings(max_examples=15)
def test_numbers_are_read_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, lr: float, decay: float, seed: int, curve: list[float]
) -> None:
    trial = Trial(Cell(lr, decay), seed, Status.COMPLETE, {"m": lr}, {"c": tuple(curve)})
    with open_store(str(tmp_path_factory.mktemp("bits") / "a.db"), write=True) as store:
        store.begin_study("a", spec())
        store.add_trials("a", [trial])
        (read,) = store.trials("a", curves=True)
        assert store.finished("a") == {(trial.cell, seed)}
    assert (read.cell, read.seed, read.metrics) == (trial.cell, seed, trial.metrics)
    assert [struct.pack("d", x) for x in read.curves["c"]] == [struct.pack("d", x) for x in curve]


def test_lane_is_stored_once_and_a_retry_replaces_only_failed_ones(begun: Store) -> None:
    diverged = Trial(CELL, 1, Status.DIVERGED, curves={"val_loss": (2.0,)})
    begun.add_trials("a", [Trial(CELL, 0, Status.FAILED, detail="no memory"), diverged, complete(CELL, 3)])
    pack = [complete(CELL, seed, 0.7) for seed in (0, 2, 1, 3)]
    assert begun.add_trials("a", pack) == [(CELL, 1), (CELL, 3)]
    failed = [Trial(CELL, seed, Status.FAILED) for seed in range(4)]
    assert begun.add_trials("a", failed) == [(CELL, seed) for seed in range(4)]
    repeated = [complete(Cell(1, 1)), complete(Cell(1 + 1e-16, 1))]
    assert_raises("seed 0 occurs twice for study 'a'", begun.add_trials, "a", repeated, error=StoreError)
    assert begun.trials("a", curves=True) == [diverged, complete(CELL, 3), *pack[:2]]
    columns = "study_id, lr, weight_decay, seed, status, metrics, detail"
    with pytest.raises(StoreError, match="UNIQUE"), begun._writing() as connection:
        connection.exec_driver_sql(f"INSERT INTO trials ({columns}) SELECT {columns} FROM trials")
    begun.begin_study("b", spec())
    for cell, kept in ((CELL, []), (Cell(0.1, -0.0), []), (Cell(0.1, 0.0), [(Cell(0.1, 0.0), 0)])):
        assert begun.add_trials("b", [complete(cell)]) == kept, cell
    assert_raises("unknown study 'c'", begun.add_trials, "c", [complete(CELL)], error=UnknownName)


def test_latest_is_the_last_study_or_comparison_that_exists(store: Store) -> None:
    assert store.latest() == []
    for name in ("a", "b", "c"):
        store.begin_study(name, spec())
    assert store.latest() == ["c"]
    store.record_comparison(["b", "a"])
    assert_raises("unknown study 'd'", store.record_comparison, ["a", "d"], error=UnknownName)
    assert store.latest() == ["b", "a"]
    store.begin_study("c", spec())  # the same command again
    assert store.latest() == ["c"]
    store.record_comparison(["a", "b"])
    store.delete_study("b")
    assert store.latest() == ["c"]


EVERY = [complete(cell) for cell in spec().lattice.cells()]


def merge(into: Path | str, *sources: Path | str) -> MergedStudy:
    with ExitStack() as opened:
        store = opened.enter_context(open_store(str(into), write=True))
        read = [opened.enter_context(open_store(str(source), write=False)) for source in sources]
        return merge_stores(store, read)["a"]


def test_parts_become_the_whole(tmp_path: Path) -> None:
    every = [replace(trial, curves={"val_loss": (2.0, float("nan"))}) for trial in EVERY]
    again = replace(every[2], status=Status.FAILED, metrics={}, curves={}, detail="no memory")
    parts = every[:2], [every[1], again], every[2:]
    sources = [filled(tmp_path / f"{k}.db", trials=part) for k, part in enumerate(parts)]
    into = tmp_path / "all.db"
    assert merge(into, *sources).added == [2, 1, len(every) - 2]
    twice = merge(into, *sources)
    assert (twice.added, twice.seconds) == ([0, 0, 0], 0.0), "a second time adds nothing"
    with open_store(str(into), write=False) as store:
        assert sorted(map(repr, store.trials("a", curves=True))) == sorted(map(repr, every))
        assert store.latest() == ["a"]


def test_differences_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    first = filled(tmp_path / "1.db", trials=EVERY[:1])
    before = first.read_bytes()
    other = filled(tmp_path / "2.db", trials=[replace(EVERY[0], metrics={"val_loss": 9.0})])
    for source, error, said in (
        (other, StoreError, "differs from the same lane"),
        (filled(tmp_path / "3.db", of=spec(epochs=9), trials=[]), SpecMismatch, "epochs"),
        (first, UsageError, "into itself"),
    ):
        assert_raises(said, merge, first, source, error=error)
        assert first.read_bytes() == before, said
        if source != first:
            new, sources = str(tmp_path / "new.db"), [str(first), str(source)]
            assert_raises(said, merge_command, new, sources, error=error)
            assert not list(tmp_path.glob("new*")), said


def test_missing_lanes_are_told_by_shard_and_times_are_added(tmp_path: Path) -> None:
    axis = tuple(2.0**-k for k in range(8))
    of = spec(lr=axis, weight_decay=axis, seeds=1)
    shards = [Shard(part, 5) for part in range(1, 6)]
    shares = [[trial for trial in lattice_trials(of) if shard.holds(trial.cell, 0)] for shard in shards]
    paths = []
    for part, share in zip((1, 2, 4), (shares[0], shares[1][:-2], shares[3]), strict=True):
        paths.append(filled(tmp_path / f"{part}.db", of=of, trials=share[:-1]))
        with open_store(str(paths[-1]), write=True) as store:
            store.add_trials("a", share[-1:], seconds=float(len(share)))
    into = tmp_path / "all.db"
    assert merge(into, paths[0]).missing == 64 - len(shares[0])
    found = merge(into, *paths)
    n = [len(share) for share in shares]
    assert found.shards == {shards[1]: (2, n[1]), shards[2]: (n[2], n[2]), shards[4]: (n[4], n[4])}
    with open_store(str(into), write=False) as store:
        assert store.get_study("a").seconds == 64 - found.missing, "one second a lane"


def test_pack_for_a_locked_store_is_kept_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    path = filled(tmp_path / "a.db", trials=TRIALS[:5])
    with open_store(str(path), write=True) as store:
        store.begin_study("a", spec())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            line = "is locked by another process; .*; results are kept: "
            assert_raises(line, store.add_trials, "a", TRIALS[5:8], error=Inaccessible)
        (kept,) = tmp_path.glob("a.db.rescue-*.db")
        with open_store(str(kept), write=False) as beside:
            assert beside.trials("a", curves=True) == TRIALS[5:8]
            merge_stores(store, [beside])
        assert store.trials("a", curves=True) == TRIALS[:8]
