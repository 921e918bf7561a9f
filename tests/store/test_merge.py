"""Stores are joined whole or not at all; packs for a locked store are kept beside it."""

import sqlite3
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from lrwd_sweep.cli.study import merge as merge_command
from lrwd_sweep.errors import SpecMismatch, StoreError, UsageError
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.job import Shard
from lrwd_sweep.store import database, open_store
from lrwd_sweep.store.database import Inaccessible
from lrwd_sweep.store.merge import MergedStudy, merge_stores
from tests.refusal import assert_raises
from tests.store.sample import complete, filled, lattice_trials, spec

SPEC = spec(seeds=4)
LANES = lattice_trials(SPEC)
EVERY = [complete(cell) for cell in SPEC.lattice.cells()]


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
    path = filled(tmp_path / "a.db", of=SPEC, trials=LANES[:5])
    with open_store(str(path), write=True) as store:
        store.begin_study("a", SPEC)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            line = "is locked by another process; .*; results are kept: "
            assert_raises(line, store.add_trials, "a", LANES[5:8], error=Inaccessible)
        (kept,) = tmp_path.glob("a.db.rescue-*.db")
        with open_store(str(kept), write=False) as beside:
            assert beside.trials("a", curves=True) == LANES[5:8]
            merge_stores(store, [beside])
        assert store.trials("a", curves=True) == LANES[:8]
