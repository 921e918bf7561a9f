"""A store returns studies and trials as they were given, each lane once."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrwd_sweep import __version__
from lrwd_sweep.errors import SpecMismatch, StoreError, UnknownName, UsageError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from lrwd_sweep.store import Store, open_store
from lrwd_sweep.store.schema import Unreadable
from lrwd_sweep.store.studies import Driver
from tests.store.sample import complete, lattice_trials, spec

CELL = Cell(0.1, 0.001)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "a.db"), write=True) as opened:
        yield opened


@pytest.fixture
def begun(store: Store) -> Store:
    store.begin_study("a", spec())
    return store


class TestStudies:
    """A study keeps its identity."""

    def test_begun_study_is_found_as_given(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        begun = store.begin_study("digits-adamw", spec())
        assert begun == store.find_study("digits-adamw") == store.get_study("digits-adamw")
        assert (begun.spec, begun.version) == (spec(), __version__)
        assert begun.created.endswith("+00:00")
        assert store.find_study("digits-adam") is None
        with pytest.raises(UnknownName, match=r"did you mean digits-adamw\?"):
            store.get_study("digits-adam")
        monkeypatch.setattr("lrwd_sweep.store.studies.__version__", "99")
        assert store.begin_study("digits-adamw", spec(seeds=3)).version == __version__
        assert store.begin_study("b", spec()).version == store.get_study("b").version == "99"

    def test_larger_lattice_and_more_seeds_extend_the_study_and_nothing_else(self, begun: Store) -> None:
        created = begun.get_study("a").created
        begun.add_trials("a", lattice_trials(spec()))
        wider = spec(lr=(0.1, 1.0), seeds=3, metric="val_error")
        extended = begun.begin_study("a", wider)
        assert extended.spec == spec().extended(wider) == begun.get_study("a").spec
        assert (extended.created, len(begun.trials("a"))) == (created, 8)
        for act in (begun.begin_study, begun.check_study):
            with pytest.raises(SpecMismatch, match=r"kind: grid, tpe.*study_name"):
                act("a", spec(kind=Kind.TPE))
        assert begun.get_study("a").spec == extended.spec

    def test_any_text_is_a_name_and_nothing_else(self, store: Store) -> None:
        for name in ("", "  ", "a\udcff"):
            with pytest.raises(UsageError, match="is not a name"):
                store.begin_study(name, spec())
            assert store.find_study(name) is None
        assert store.studies() == []
        hostile = ["a'; DROP TABLE studies; --", "[/x]\x1b[31m", "λ′\nβ", "=cmd()"]
        for name in hostile:
            store.begin_study(name, spec())
            assert store.latest() == [name]
        assert [summary.name for summary in store.studies()] == hostile

    def test_deleting_a_study_removes_only_its_trials(self, begun: Store) -> None:
        begun.begin_study("b", spec())
        for name in ("a", "b"):
            begun.add_trials(name, lattice_trials(spec()))
        begun.delete_study("a")
        with pytest.raises(UnknownName):
            begun.delete_study("a")
        assert begun.find_study("a") is None
        assert begun.trials("b", curves=True) == lattice_trials(spec())
        begun.begin_study("a", spec(epochs=30))
        assert begun.trials("a") == []
        with closing(sqlite3.connect(begun.path)) as plain:
            assert plain.execute("SELECT count(*) FROM curves").fetchone() == (2 * 8,)

    def test_import_stores_study_and_trials_or_nothing(self, store: Store) -> None:
        with pytest.raises(StoreError, match=r"lr 0\.1, weight decay 0\.001, seed 0 occurs twice"):
            store.import_studies({"a": (spec(), [complete(CELL), complete(CELL)])})
        assert (store.studies(), store.latest()) == ([], [])
        store.import_studies({"a": (spec(), lattice_trials(spec()))})
        with pytest.raises(UsageError, match="study 'a' exists"):
            store.import_studies({"a": (spec(), [])})
        assert (store.get_study("a").spec, store.latest()) == (spec(), ["a"])
        assert store.trials("a", curves=True) == lattice_trials(spec())

    def test_import_in_batches_lets_others_write_and_is_whole_or_unfinished(
        self, begun: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lrwd_sweep.store.bulk_import.BATCH", 3)
        trials = lattice_trials(spec())
        process = [Driver.here()]
        monkeypatch.setattr(Driver, "here", lambda: process[0])

        def found(end: type[BaseException]) -> Iterator[Trial]:
            yield from trials[:7]
            begun.add_trials("a", [trials[0]])  # between two batches, as another process
            assert begun.studies()[1].unreadable.startswith("the import of study 'b' has not finished: wait")
            with pytest.raises(Unreadable, match="has not finished: wait for it, repeat it, or remove it"):
                begun.begin_study("b", spec())
            process.append(replace(process.pop(), pid=1, started=0))
            with pytest.raises(UsageError, match="study 'b' is being imported by process"):
                begun.import_studies({"b": (spec(), trials)})
            process[:] = [replace(process[0], pid=os.getpid(), started=real.started)]
            raise end

        real = process[0]
        with pytest.raises(KeyboardInterrupt):
            begun.import_studies({"b": (spec(), trials), "c": (spec(), found(KeyboardInterrupt))})
        assert [bool(one.unreadable) for one in begun.studies()] == [False, True, True]
        assert begun.latest() == ["a"]
        begun.delete_study("c")
        with pytest.raises(ZeroDivisionError):
            begun.import_studies({"b": (spec(), found(ZeroDivisionError))})
        with pytest.raises(StoreError, match="occurs twice"):
            begun.import_studies({"b": (spec(), [*trials, trials[0]])})
        assert [one.name for one in begun.studies()] == ["a"]
        begun.import_studies({"b": (spec(), iter(trials)), "c": (spec(), trials)})
        assert begun.trials("b", curves=True) == begun.trials("c", curves=True) == trials
        assert begun.latest() == ["b", "c"]


def test_summary_counts_cells_by_the_worst_seed(store: Store) -> None:
    first, second, third, _ = spec().lattice.cells()
    store.begin_study("a", spec())
    store.add_trials("a", [complete(first)])
    assert store.studies()[0].counts["missing"] == 4
    lanes = [complete(first, 1), complete(second), Trial(second, 1, Status.DIVERGED)]
    store.add_trials("a", [*lanes, Trial(third, 0, Status.FAILED)])
    store.begin_study("b", spec(kind=Kind.TPE, seeds=1))
    store.add_trials("b", [complete(Cell(0.012, 0.0003)), Trial(Cell(0.05, 0.0001), 0, Status.DIVERGED)])
    lattice, search = store.studies()
    assert (lattice.name, lattice.optimizer) == ("a", "adamw")
    assert lattice.counts == {"cells": 4, "complete": 1, "diverged": 1, "failed": 1, "missing": 1}
    assert search.counts == {"cells": 2, "complete": 1, "diverged": 1, "failed": 0, "missing": 0}


class TestTrials:
    """A lane's result is stored once, whole, and without loss."""

    def test_trials_are_read_as_written(self, begun: Store) -> None:
        snapshots = {4: {"val_loss": 0.3}, 12: {"val_loss": 0.1, "test_loss": 1 / 3}}
        trials = [
            *lattice_trials(spec()),
            Trial(Cell(1.0, 0.1), 0, Status.DIVERGED, curves={"val_loss": (2.3,)}, detail="epoch 2"),
            Trial(Cell(1.0, 1.0), 0, Status.COMPLETE, {"val_loss": 0.1}, snapshots=snapshots),
            Trial(Cell(1.0, 0.1), 1, Status.FAILED, detail="no memory"),
        ]
        begun.add_trials("a", trials)
        assert begun.trials("a", curves=True) == trials
        assert all(trial.curves == {} for trial in begun.trials("a"))
        assert begun.finished("a") == {(trial.cell, trial.seed) for trial in trials[:-1]}

    @given(
        st.floats(min_value=1e-300, max_value=1e300),
        st.floats(min_value=0, max_value=1e300),
        st.integers(-(2**53), 2**53),
        st.lists(st.floats(), max_size=5),
    )
    @settings(max_examples=15)
    def test_numbers_are_read_bit_by_bit(
        self, tmp_path_factory: pytest.TempPathFactory, lr: float, decay: float, seed: int, curve: list[float]
    ) -> None:
        trial = Trial(Cell(lr, decay), seed, Status.COMPLETE, {"m": lr}, {"c": tuple(curve)})
        with open_store(str(tmp_path_factory.mktemp("bits") / "a.db"), write=True) as store:
            store.begin_study("a", spec())
            store.add_trials("a", [trial])
            (read,) = store.trials("a", curves=True)
            assert store.finished("a") == {(trial.cell, seed)}
        assert (read.cell, read.seed, read.metrics) == (trial.cell, seed, trial.metrics)
        assert [struct.pack("d", x) for x in read.curves["c"]] == [struct.pack("d", x) for x in curve]

    def test_retry_replaces_only_failed_lanes(self, begun: Store) -> None:
        diverged = Trial(CELL, 1, Status.DIVERGED, curves={"val_loss": (2.0,)})
        begun.add_trials(
            "a", [Trial(CELL, 0, Status.FAILED, detail="no memory"), diverged, complete(CELL, 3)]
        )
        pack = [complete(CELL, seed, 0.7) for seed in (0, 2, 1, 3)]
        assert begun.add_trials("a", pack) == [(CELL, 1), (CELL, 3)]
        expected = [diverged, complete(CELL, 3), *pack[:2]]
        assert begun.trials("a", curves=True) == expected
        failed = [Trial(CELL, seed, Status.FAILED) for seed in range(4)]
        assert begun.add_trials("a", failed) == [(CELL, seed) for seed in range(4)]
        assert begun.trials("a", curves=True) == expected

    def test_lane_is_unique_in_the_database_and_in_a_pack(self, begun: Store) -> None:
        with pytest.raises(StoreError, match="seed 0 occurs twice for study 'a'"):
            begun.add_trials("a", [complete(CELL), complete(Cell(0.1 + 1e-16, 0.001))])
        assert begun.trials("a") == []
        begun.add_trials("a", [complete(CELL)])
        again = (
            "INSERT INTO trials (study_id, lr, weight_decay, seed, status, metrics, detail)"
            " SELECT study_id, lr, weight_decay, seed, status, metrics, detail FROM trials"
        )
        with pytest.raises(StoreError, match="UNIQUE"), begun._writing() as connection:
            connection.exec_driver_sql(again)
        begun.begin_study("b", spec())
        assert begun.add_trials("b", [complete(CELL)]) == []  # another study
        assert begun.add_trials("b", [complete(Cell(0.1, -0.0))]) == []
        assert begun.add_trials("b", [complete(Cell(0.1, 0.0))]) == [(Cell(0.1, 0.0), 0)]
        with pytest.raises(UnknownName):
            begun.add_trials("c", [complete(CELL)])


def test_latest_is_the_last_study_or_comparison_that_exists(store: Store) -> None:
    assert store.latest() == []
    for name in ("a", "b", "c"):
        store.begin_study(name, spec())
    assert store.latest() == ["c"]
    store.record_comparison(["b", "a"])
    assert store.latest() == ["b", "a"]
    with pytest.raises(UnknownName):
        store.record_comparison(["a", "d"])
    assert store.latest() == ["b", "a"]
    store.begin_study("c", spec())  # the same command again
    assert store.latest() == ["c"]
    store.record_comparison(["a", "b"])
    store.delete_study("b")
    assert store.latest() == ["c"]
