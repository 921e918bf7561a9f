"""Stores are joined whole or not at all."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from lrwd_sweep.cli.study import merge as merge_command
from lrwd_sweep.errors import SpecMismatch, StoreError, UsageError
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import Shard
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import open_store
from lrwd_sweep.store.merge import MergedStudy, merge_stores
from tests.store.sample import complete, lattice_trials, spec

NAME = "study"


def make(path: Path, trials: list[Trial], of: StudySpec | None = None) -> str:
    with open_store(str(path), write=True) as store:
        store.begin_study(NAME, of or spec())
        store.add_trials(NAME, trials)
    return str(path)


def merge(into: str, *sources: str) -> MergedStudy:
    with ExitStack() as opened:
        store = opened.enter_context(open_store(into, write=True))
        read = [opened.enter_context(open_store(source, write=False)) for source in sources]
        return merge_stores(store, read)[NAME]


def test_parts_become_the_whole(tmp_path: Path) -> None:
    curves = {"val_loss": (2.0, float("nan"))}
    every = [replace(complete(cell), curves=curves) for cell in spec().lattice.cells()]
    first = make(tmp_path / "1.db", every[:2])
    again = replace(every[2], status=Status.FAILED, metrics={}, curves={}, detail="no memory")
    second = make(tmp_path / "2.db", [*every[1:2], again])
    third = make(tmp_path / "3.db", every[2:])
    into = str(tmp_path / "all.db")
    assert merge(into, first, second, third).added == [2, 1, len(every) - 2]
    twice = merge(into, first, second, third)
    assert (twice.added, twice.seconds) == ([0, 0, 0], 0.0), "a second time adds nothing"
    with open_store(into, write=False) as store:
        assert sorted(map(repr, store.trials(NAME, curves=True))) == sorted(map(repr, every))
        assert store.latest() == [NAME]


def test_differences_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    every = list(map(complete, spec().lattice.cells()))
    first = make(tmp_path / "1.db", every[:1])
    before = Path(first).read_bytes()
    for source, error, said in (
        (
            make(tmp_path / "2.db", [replace(every[0], metrics={"val_loss": 9.0})]),
            *(StoreError, "differs from the same lane"),
        ),
        (make(tmp_path / "3.db", [], spec(epochs=9)), SpecMismatch, "epochs"),
        (first, UsageError, "into itself"),
    ):
        with pytest.raises(error, match=said):
            merge(first, source)
        assert Path(first).read_bytes() == before, said
        if source != first:
            with pytest.raises(error, match=said):
                merge_command(str(tmp_path / "new.db"), [first, source])
            assert not list(tmp_path.glob("new*")), said


def test_missing_lanes_are_told_by_shard_and_times_are_added(tmp_path: Path) -> None:
    axis = tuple(2.0**-k for k in range(8))
    of = spec(lr=axis, weight_decay=axis, seeds=1)
    shards = [Shard(part, 5) for part in range(1, 6)]
    shares = [[trial for trial in lattice_trials(of) if shard.holds(trial.cell, 0)] for shard in shards]
    paths = []
    for part, share in zip((1, 2, 4), (shares[0], shares[1][:-2], shares[3]), strict=True):
        paths.append(make(tmp_path / f"{part}.db", share[:-1], of))
        with open_store(paths[-1], write=True) as store:
            store.add_trials(NAME, share[-1:], seconds=float(len(share)))
    into = str(tmp_path / "all.db")
    assert merge(into, paths[0]).missing == 64 - len(shares[0])
    found = merge(into, *paths)
    assert found.shards == {
        shards[1]: (2, len(shares[1])),
        shards[2]: (len(shares[2]), len(shares[2])),
        shards[4]: (len(shares[4]), len(shares[4])),
    }
    with open_store(into, write=False) as store:
        seconds = store.get_study(NAME).seconds
    assert seconds == 64 - found.missing, "one second a lane"
