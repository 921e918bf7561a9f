"""A store that cannot be used any more while its study trains: what was trained is kept beside it."""

import logging
import os
import shlex
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lrwd_sweep.store import database, open_store
from lrwd_sweep.store.database import Inaccessible, network_file_system
from lrwd_sweep.store.merge import merge_stores
from tests.store.sample import filled, lattice_trials, spec

SPEC = spec(seeds=4)
LANES = lattice_trials(SPEC)


GONE: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("renamed.db")),
    "replaced by another": lambda path: filled(path.with_name("other.db"), "b").replace(path),
    "replaced by nothing": lambda path: Path(shutil.copy(os.devnull, f"{path}.new")).replace(path),
    "replaced by itself": lambda path: Path(shutil.copy(path, f"{path}.new")).replace(path),
}


def test_all_trials_of_a_store_that_is_gone_are_kept_beside_it(tmp_path: Path) -> None:
    for fault, act in GONE.items():
        (tmp_path / fault).mkdir()
        path = tmp_path / fault / "a.db"
        with open_store(str(path), write=True) as store:
            store.begin_study("a", SPEC)
            store.add_trials("a", LANES[:5])
            act(path)
            there = path.read_bytes() if path.exists() else None
            with pytest.raises(Inaccessible) as refused:
                store.add_trials("a", LANES[5:8], SPEC)
            words = shlex.split(str(refused.value).partition("results are kept: ")[2])
            assert words[:4] == ["lrwd-sweep", "study", "merge", str(path)], fault
            with pytest.raises(Inaccessible, match="deleted, renamed or replaced"):
                store.trials("a")
        assert (path.read_bytes() if path.exists() else None) == there, f"{fault}: no new store is made"
        with open_store(str(path), write=True) as store, open_store(words[4], write=False) as kept:
            merge_stores(store, [kept])
            found = {(trial.cell, trial.seed): trial for trial in store.trials("a", curves=True)}
            assert found == {(trial.cell, trial.seed): trial for trial in LANES[:8]}, fault


def test_pack_that_cannot_be_stored_is_kept_beside_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with open_store(str(path), write=True) as store:
        store.begin_study("a", SPEC)
        store.add_trials("a", LANES[:5])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Inaccessible, match=r"is locked by another process; .*; results are kept: "):
                store.add_trials("a", LANES[5:8])
        (kept,) = tmp_path.glob("a.db.rescue-*.db")
        with open_store(str(kept), write=False) as beside:
            assert beside.trials("a", curves=True) == LANES[5:8]
            merge_stores(store, [beside])
        assert store.trials("a", curves=True) == LANES[:8]


MOUNTS = """\
22 1 0:1 / / rw,relatime - ext4 /dev/vda rw
23 22 0:2 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
24 23 0:3 / /home/me/local rw - xfs /dev/sdb rw
25 22 0:4 / /mnt/a\\040b rw - fuse.sshfs me@host:/ rw
26 22 0:5 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw
27 22 0:6 / /scratch rw - ext4 /dev/sdc rw
"""


def test_network_file_systems_are_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    for path, kind in (
        *(("/a.db", ""), ("/home/me/a.db", "nfs4"), ("/home/me/local/a.db", "")),
        *(("/mnt/a b/c/a.db", "fuse.sshfs"), ("/scratch/a.db", "")),
    ):
        assert network_file_system(Path(path), mounts) == kind, path
    assert network_file_system(tmp_path, tmp_path / "none") == ""
    monkeypatch.setattr(database, "network_file_system", lambda path: "nfs4")
    with caplog.at_level(logging.WARNING):
        open_store(str(tmp_path / "a.db"), write=True).close()
        open_store(str(tmp_path / "a.db"), write=False).close()
    (told,) = caplog.messages
    assert "a.db' lies on nfs4" in told
