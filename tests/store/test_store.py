"""A store keeps studies and trials as they were given, each lane once."""

from __future__ import annotations

import sqlite3
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrwd_sweep import __version__
from lrwd_sweep.errors import LrwdError, SpecMismatch, StoreError, UnknownName, UsageError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from lrwd_sweep.store import Store, open_store
from lrwd_sweep.store.trials import FIND_LANE
from tests.store.damage import rewrite_spec_in
from tests.store.sample import complete, lattice_trials, spec

CELL = Cell(0.1, 0.001)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "a.db"), write=True) as opened:
        yield opened


def one_line(error: pytest.ExceptionInfo[LrwdError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


class TestStudies:
    """What is known of a study besides its trials."""

    def test_begun_study_is_found_as_it_was_given(self, store: Store) -> None:
        begun = store.begin_study("a", spec())
        assert begun == store.find_study("a") == store.get_study("a")
        assert begun.spec == spec()
        assert begun.created.endswith("+00:00")

    def test_study_that_is_not_there(self, store: Store) -> None:
        store.begin_study("digits-adamw", spec())
        assert store.find_study("digits-adam") is None
        with pytest.raises(UnknownName, match=r"did you mean digits-adamw\?") as error:
            store.get_study("digits-adam")
        assert one_line(error)

    def test_larger_lattice_and_more_seeds_extend_the_study(self, store: Store) -> None:
        created = store.begin_study("a", spec()).created
        store.add_trials("a", lattice_trials(spec()))
        wider = spec(lr=(0.1, 1.0), seeds=3, metric="val_error")
        extended = store.begin_study("a", wider)
        assert extended.spec == spec().extended(wider) == store.get_study("a").spec
        assert extended.created == created
        assert len(store.trials("a")) == 8

    @pytest.mark.parametrize(
        ("other", "difference"),
        [
            (spec(epochs=30), "epochs: 60, 30"),
            (spec("adam"), "optimizer: adamw, adam"),
            (spec(kind=Kind.TPE), "kind: grid, tpe"),
        ],
    )
    def test_changed_spec_is_refused_with_the_difference_named(
        self, store: Store, other: object, difference: str
    ) -> None:
        assert isinstance(other, type(spec()))
        store.begin_study("a", spec())
        with pytest.raises(SpecMismatch) as error:
            store.begin_study("a", other)
        text = one_line(error)
        assert difference in text
        assert "study_name" in text
        assert store.get_study("a").spec == spec()

    @pytest.mark.parametrize("name", ["", "  ", "a\udcff"])
    def test_name_that_cannot_be_kept_is_refused(self, store: Store, name: str) -> None:
        with pytest.raises(UsageError, match="is not a name"):
            store.begin_study(name, spec())
        assert store.find_study(name) is None
        assert store.studies() == []

    @pytest.mark.parametrize("name", ["a'; DROP TABLE studies; --", "[/x]\x1b[31m", "λ′\nβ", "=cmd()"])
    def test_hostile_name_is_kept_as_it_is(self, store: Store, name: str) -> None:
        store.begin_study(name, spec())
        assert [summary.name for summary in store.studies()] == [name]
        assert store.latest() == [name]

    def test_deleted_study_takes_its_trials_along(self, store: Store) -> None:
        for name in ("a", "b"):
            store.begin_study(name, spec())
            store.add_trials(name, lattice_trials(spec()))
        store.delete_study("a")
        with pytest.raises(UnknownName):
            store.delete_study("a")
        assert store.find_study("a") is None
        assert store.trials("b", curves=True) == lattice_trials(spec())
        store.begin_study("a", spec(epochs=30))
        assert store.trials("a") == []
        with store._reading() as session:
            count = session.connection().exec_driver_sql("SELECT count(*) FROM curves").scalar_one()
        assert count == 2 * 8

    def test_an_import_that_is_refused_leaves_nothing(self, store: Store) -> None:
        with pytest.raises(StoreError, match=r"lr 0\.1, weight decay 0\.001, seed 0 occurs twice"):
            store.import_study("a", spec(), [complete(CELL), complete(CELL)])
        assert store.studies() == []
        assert store.latest() == []

    def test_an_import_brings_study_and_trials_at_once(self, store: Store) -> None:
        store.import_study("a", spec(), lattice_trials(spec()))
        assert store.get_study("a").spec == spec()
        assert store.trials("a", curves=True) == lattice_trials(spec())
        assert store.latest() == ["a"]

    def test_an_import_under_a_name_that_is_taken_is_refused(self, store: Store) -> None:
        store.begin_study("a", spec())
        with pytest.raises(UsageError, match="study 'a' exists"):
            store.import_study("a", spec(), lattice_trials(spec()))
        assert store.trials("a") == []

    def test_unreadable_spec_says_which_study(self, store: Store) -> None:
        store.begin_study("a", spec())
        rewrite_spec_in(store, "a", lambda found: found["training"].update(warm_up=3))
        with pytest.raises(StoreError, match="study 'a' has a specification that this version cannot read"):
            store.get_study("a")

    def test_study_keeps_the_version_that_began_it(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert store.begin_study("a", spec()).version == __version__
        monkeypatch.setattr("lrwd_sweep.store.studies.__version__", "99")
        assert store.begin_study("a", spec(seeds=3)).version == __version__
        assert store.begin_study("b", spec()).version == "99"
        assert store.get_study("b").version == "99"


class TestSummaries:
    """Cells are counted by the worst of their seeds."""

    def test_counts_of_a_lattice(self, store: Store) -> None:
        cells = list(spec().lattice.cells())
        store.begin_study("a", spec())
        store.add_trials(
            "a",
            [
                complete(cells[0], 0),
                complete(cells[0], 1),
                complete(cells[1], 0),
                Trial(cells[1], 1, Status.DIVERGED),
                Trial(cells[2], 0, Status.FAILED),
            ],
        )
        (summary,) = store.studies()
        assert (summary.name, summary.optimizer) == ("a", "adamw")
        assert summary.counts == {"cells": 4, "complete": 1, "diverged": 1, "failed": 1, "missing": 1}

    def test_half_trained_cell_is_missing(self, store: Store) -> None:
        store.begin_study("a", spec())
        store.add_trials("a", [complete(CELL)])
        assert store.studies()[0].counts["missing"] == 4

    def test_search_counts_the_cells_it_visited(self, store: Store) -> None:
        store.begin_study("a", spec(kind=Kind.TPE, seeds=1))
        store.add_trials("a", [complete(Cell(0.012, 0.0003)), Trial(Cell(0.05, 0.0001), 0, Status.DIVERGED)])
        expected = {"cells": 2, "complete": 1, "diverged": 1, "failed": 0, "missing": 0}
        assert store.studies()[0].counts == expected


class TestTrials:
    """A lane's result is stored once, whole, and without loss."""

    def test_trials_come_back_as_they_went_in(self, store: Store) -> None:
        trials = [
            *lattice_trials(spec()),
            Trial(Cell(1.0, 0.1), 0, Status.DIVERGED, curves={"val_loss": (2.3,)}, detail="epoch 2"),
            Trial(
                Cell(1.0, 1.0),
                0,
                Status.COMPLETE,
                {"val_loss": 0.1},
                snapshots={4: {"val_loss": 0.3}, 12: {"val_loss": 0.1, "test_loss": 1 / 3}},
            ),
            Trial(Cell(1.0, 0.1), 1, Status.FAILED, detail="no memory"),
        ]
        store.begin_study("a", spec())
        store.add_trials("a", trials)
        assert store.trials("a", curves=True) == trials
        assert all(trial.curves == {} for trial in store.trials("a"))

    @given(
        st.floats(min_value=1e-300, max_value=1e300),
        st.floats(min_value=0, max_value=1e300),
        st.integers(-(2**53), 2**53),
        st.lists(st.floats(), max_size=5),
    )
    @settings(max_examples=15, deadline=None)
    def test_numbers_come_back_bit_by_bit(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        lr: float,
        weight_decay: float,
        seed: int,
        curve: list[float],
    ) -> None:
        trial = Trial(Cell(lr, weight_decay), seed, Status.COMPLETE, {"m": lr}, {"c": tuple(curve)})
        with open_store(str(tmp_path_factory.mktemp("bits") / "a.db"), write=True) as store:
            store.begin_study("a", spec())
            store.add_trials("a", [trial])
            (read,) = store.trials("a", curves=True)
            assert store.finished("a") == {(trial.cell, seed)}
        assert (read.cell, read.seed, read.metrics) == (trial.cell, seed, trial.metrics)
        assert [struct.pack("d", x) for x in read.curves["c"]] == [struct.pack("d", x) for x in curve]

    def test_finished_leaves_out_what_failed(self, store: Store) -> None:
        store.begin_study("a", spec())
        outcomes = (Status.COMPLETE, Status.DIVERGED, Status.FAILED)
        store.add_trials("a", [Trial(CELL, seed, status) for seed, status in enumerate(outcomes)])
        assert store.finished("a") == {(CELL, 0), (CELL, 1)}

    def test_a_pack_looks_only_for_its_own_lanes(self, store: Store) -> None:
        with sqlite3.connect(store.path) as plain:
            plan = plain.execute(f"EXPLAIN QUERY PLAN {FIND_LANE}", (1, 0.1, 0.1, 0)).fetchall()
        plain.close()
        assert "(study_id=? AND lr=? AND weight_decay=? AND seed=?)" in plan[0][-1]

    def test_retry_replaces_what_failed(self, store: Store) -> None:
        store.begin_study("a", spec())
        store.add_trials("a", [Trial(CELL, 0, Status.FAILED, detail="no memory"), complete(CELL, 1)])
        store.add_trials("a", [complete(CELL, 0)])
        assert sorted(store.trials("a", curves=True), key=lambda t: t.seed) == [
            complete(CELL, 0),
            complete(CELL, 1),
        ]

    @pytest.mark.parametrize("status", [Status.COMPLETE, Status.DIVERGED])
    def test_first_result_of_a_lane_is_kept(self, store: Store, status: Status) -> None:
        store.begin_study("a", spec())
        first = Trial(CELL, 1, status, curves={"val_loss": (2.0,)})
        store.add_trials("a", [first, Trial(CELL, 0, Status.FAILED)])
        pack = [complete(CELL, seed) for seed in (0, 2, 1)]
        assert store.add_trials("a", pack) == [(CELL, 1)]
        assert store.trials("a", curves=True) == [first, *pack[:2]]
        assert store.add_trials("a", pack) == [(CELL, 0), (CELL, 2), (CELL, 1)]
        assert store.trials("a", curves=True) == [first, *pack[:2]]

    def test_failed_lane_does_not_replace_a_complete_one(self, store: Store) -> None:
        store.begin_study("a", spec())
        store.add_trials("a", [complete(CELL)])
        assert store.add_trials("a", [Trial(CELL, 0, Status.FAILED)]) == [(CELL, 0)]
        assert store.trials("a", curves=True) == [complete(CELL)]

    def test_pack_with_one_lane_twice_is_refused(self, store: Store) -> None:
        store.begin_study("a", spec())
        with pytest.raises(StoreError, match="seed 0 occurs twice for study 'a'"):
            store.add_trials("a", [complete(CELL), complete(Cell(0.1 + 1e-16, 0.001))])
        assert store.trials("a") == []

    def test_uniqueness_is_the_databases_own(self, store: Store) -> None:
        store.begin_study("a", spec())
        store.add_trials("a", [complete(CELL)])
        again = (
            "INSERT INTO trials (study_id, lr, weight_decay, seed, status, metrics, detail)"
            " SELECT study_id, lr, weight_decay, seed, status, metrics, detail FROM trials"
        )
        with pytest.raises(StoreError, match="UNIQUE"), store._writing() as session:
            session.connection().exec_driver_sql(again)

    def test_same_cell_of_two_studies_is_two_lanes(self, store: Store) -> None:
        for name in ("a", "b"):
            store.begin_study(name, spec())
            store.add_trials(name, [complete(CELL)])
        assert store.trials("a") == store.trials("b")

    def test_negative_zero_is_the_baseline_column(self, store: Store) -> None:
        store.begin_study("a", spec())
        store.add_trials("a", [complete(Cell(0.1, -0.0))])
        assert store.add_trials("a", [complete(Cell(0.1, 0.0))]) == [(Cell(0.1, 0.0), 0)]

    def test_trials_of_an_unknown_study(self, store: Store) -> None:
        for act in (store.trials, store.finished, lambda name: store.add_trials(name, [complete(CELL)])):
            with pytest.raises(UnknownName):
                act("a")


class TestLatest:
    """What a report without names is about."""

    def test_empty_store_has_none(self, store: Store) -> None:
        assert store.latest() == []

    def test_last_asked_for_is_latest(self, store: Store) -> None:
        for name in ("a", "b", "c"):
            store.begin_study(name, spec())
        assert store.latest() == ["c"]
        store.record_comparison(["b", "a"])
        assert store.latest() == ["b", "a"]
        store.begin_study("c", spec())  # the same command again
        assert store.latest() == ["c"]

    def test_comparison_with_a_deleted_study_is_forgotten(self, store: Store) -> None:
        for name in ("a", "b"):
            store.begin_study(name, spec())
        store.record_comparison(["a", "b"])
        store.delete_study("b")
        assert store.latest() == ["a"]

    def test_comparison_of_an_unknown_study_is_refused(self, store: Store) -> None:
        store.begin_study("a", spec())
        with pytest.raises(UnknownName):
            store.record_comparison(["a", "b"])
        assert store.latest() == ["a"]


def test_importing_the_store_loads_neither_torch_nor_optuna() -> None:
    code = "import sys, lrwd_sweep.store; print(sorted({'torch', 'optuna', 'rich'} & set(sys.modules)))"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
