"""A sweep on a cluster loses nothing when workers, nodes, the driver or the head are killed.

Nodes are raylets on this machine. Counts and times of the faults are printed; pytest shows them with -s.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store import open_store
from tests.cli.conftest import STORE, Ended, ended, process

pytestmark = pytest.mark.slow
NAME, LANES, RUNS = "clustered", 16, int(os.environ.get("LRWD_CLUSTER_RUNS", "25"))
SWEEP = ("grid", "--lr", "2^-8:2^-5", "--wd", "2^-8:2^-7", "--seeds", "2", "--study-name", NAME, "--quiet")
LONG = (*SWEEP, "--epochs", "400", "--max-lanes", "2", "--checkpoint-every", "0.3")
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
LIMIT = 240.0  # seconds for a command; none takes a tenth on an idle machine


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that trains nothing; its nodes come with the tests."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    folder = Path(f"/tmp/lrwd-cluster-{os.getpid()}")  # short: sockets have their names in it
    (folder / "ray").mkdir(parents=True)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    yield found
    found.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def on(cluster: Any, *more: str) -> tuple[str, ...]:
    return (*LONG, "--executor", "ray", "--ray-address", cluster.address, *more)


def stored() -> dict[tuple[Cell, int], Trial]:
    """Return all lanes, after a check of the database (I2, I3)."""
    if not Path(STORE).exists():
        return {}
    with sqlite3.connect(STORE) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "I2"
        assert database.execute("PRAGMA foreign_key_check").fetchall() == [], "I2"
    database.close()
    with open_store(None, write=False) as store:
        if store.find_study(NAME) is None:
            return {}
        trials = store.trials(NAME, curves=True)
    assert len({(trial.cell, trial.seed) for trial in trials}) == len(trials), "I3"
    return {(trial.cell, trial.seed): trial for trial in trials}


def assert_whole(reference: dict[tuple[Cell, int], Trial]) -> None:
    """Assert that every lane is there to the bit, and that nothing is left behind (I3 to I5)."""
    found = stored()
    assert found.keys() == reference.keys(), "I3"
    assert [lane for lane in found if repr(found[lane]) != repr(reference[lane])] == [], "I5"
    with open_store(None, write=False) as store:
        assert store.driver(NAME) is None, "I4: a process that ended counts as one that trains"
    assert not Path(f"{STORE}.packs").exists(), "I4"


def assert_told(found: Ended, *codes: int) -> None:
    assert found.code in codes, f"I6: {found}"
    for word in ("Traceback", "fault of lrwd-sweep", "Error:"):
        assert word not in found.err, f"I6: {found.err}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Cell, int], Trial]:
    return trained_here(LONG, tmp_path_factory.mktemp("reference"))


def trained_here(command: tuple[str, ...], folder: Path) -> dict[tuple[Cell, int], Trial]:
    """Train without a cluster, in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert_told(ended(process(*command), LIMIT), 0)
        found = stored()
    assert len(found) == LANES
    assert {trial.status for trial in found.values()} == {Status.COMPLETE}
    return found


def workers(cluster: Any) -> list[int]:
    """Return the processes that train on the nodes."""
    raylets = {each.all_processes["raylet"][0].process.pid for each in cluster.list_all_nodes()}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parent = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            if parent in raylets and b"ray::_train_pack" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def test_nothing_is_lost_to_kills_of_workers_nodes_and_drivers(
    cluster: Any, reference: dict[tuple[Cell, int], Trial]
) -> None:
    chance, done = random.Random(0), {"worker": 0, "leave": 0, "join": 0, "driver": 0}
    nodes = [cluster.add_node(**NODE), cluster.add_node(**NODE)]
    for number in range(RUNS):
        plan = [chance.choice(list(done)) for _ in range(chance.randint(1, 3))]
        started, acknowledged = process(*on(cluster)), 0
        for fault in plan:
            until = time.monotonic() + LIMIT
            while not workers(cluster) and started.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 4))
            acknowledged = len(stored())
            if fault == "driver":
                started.kill()
                assert_told(ended(started), -signal.SIGKILL, 0)
                assert acknowledged <= len(stored()), "I1"
                started = process(*on(cluster))
            elif fault == "worker" and (found := workers(cluster)):
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(found), signal.SIGKILL)
            elif fault == "leave" and len(nodes) > 1:
                cluster.remove_node(nodes.pop(chance.randrange(len(nodes))), allow_graceful=False)
            elif len(nodes) < 3:
                nodes.append(cluster.add_node(**NODE))
                fault = "join"  # noqa: PLW2901
            done[fault] += 1
        assert_told(ended(started, LIMIT), 0)
        assert len(stored()) >= acknowledged, "I1"
        assert_whole(reference)
        Path(STORE).unlink()
        print(f"run {number}: {plan}, {len(nodes)} nodes", flush=True)  # noqa: T201
    print(f"{RUNS} runs, {done}: 0 violations")  # noqa: T201


def test_a_dead_head_ends_the_command_and_another_one_continues(
    cluster: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    longer = "--epochs", "2000"  # Ray takes twenty seconds to give up its head
    reference = trained_here((*LONG, *longer), tmp_path_factory.mktemp("longer"))
    cluster.add_node(**NODE)
    spool = str(tmp_path / "spool")
    started = process(*on(cluster, *longer, "--spool", spool))
    while len(stored()) < 4:
        time.sleep(0.1)
        assert started.poll() is None
    for each in cluster.head_node.all_processes["gcs_server"]:
        each.process.kill()
    began = time.monotonic()
    found = ended(started, LIMIT)
    seconds = time.monotonic() - began
    assert_told(found, 3)
    assert "the head of the Ray cluster" in found.err
    assert "the same command continues" in found.err
    assert seconds < 60
    print(f"exit 3 {seconds:.1f} s after the head's death, {len(stored())} lanes stored")  # noqa: T201
    again = process(*LONG, *longer, "--executor", "ray", "--spool", spool)
    assert_told(ended(again, LIMIT), 0)
    assert_whole(reference)
    assert not list(Path(spool).glob("*")), "nothing is left in the spool"


OTHER_VERSION = """
import importlib.metadata
true = importlib.metadata.version
importlib.metadata.version = lambda name: "0.1" if name == "torch" else true(name)
"""
NET = "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)){}\n"


def test_a_node_with_another_version_or_other_user_code_gets_no_work(cluster: Any, tmp_path: Path) -> None:
    here, other, strange = (tmp_path / name for name in ("here", "other", "strange"))
    for folder in (here, other, strange):
        folder.mkdir()
    (here / "own_net.py").write_text(NET.format(""))
    (other / "own_net.py").write_text(NET.format("  # changed"))
    (strange / "sitecustomize.py").write_text(OTHER_VERSION)
    sweep = ("grid", "--lr", "0.1,0.2", "--wd", "0.01,0.1", "--seeds", "1", "--epochs", "2", "--net")
    where = ("--executor", "ray", "--ray-address", cluster.address, "--study-name", NAME)
    command = (*sweep, "own_net:make", *where)
    for folder in (strange, other):
        cluster.add_node(**NODE, env_vars={"PYTHONPATH": str(folder)})
    found = ended(process(*command, PYTHONPATH=str(here)), LIMIT)
    assert_told(found, 3)
    assert "no node of the cluster can train this: " in found.err
    assert "torch 0.1 there" in found.err
    assert "own_net:make is another one there" in found.err
    cluster.add_node(**NODE, env_vars={"PYTHONPATH": str(here)})
    found = ended(process(*command, PYTHONPATH=str(here)), LIMIT)
    assert_told(found, 0)
    assert found.err.count(" is left out: ") == 2
    assert len(stored()) == 4


JOINED = "joined {}; packs train here as they come; Ctrl-C leaves\n"


def test_a_worker_joins_with_the_versions_of_the_head_and_leaves_on_ctrl_c(
    cluster: Any, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(OTHER_VERSION)
    join = ("worker", "--head", cluster.address, "--num-cpus", "1")
    found = ended(process(*join, PYTHONPATH=str(tmp_path)), LIMIT)
    assert_told(found, 3)
    assert "torch 0.1 here" in found.err
    assert raylets(cluster) == 1
    worker = process(*join)
    assert worker.stderr is not None
    told = [worker.stderr.readline() for _ in range(2)]
    assert told == [f"joining the Ray cluster of {cluster.address}\n", JOINED.format(cluster.address)]
    assert_told(ended(process(*on(cluster)), LIMIT), 0)
    assert len(stored()) == LANES
    assert raylets(cluster) == 2
    worker.send_signal(signal.SIGINT)
    left = ended(worker, LIMIT)
    assert (left.code, left.err) == (130, "lrwd-sweep: interrupted\n")
    assert raylets(cluster) == 1


def raylets(cluster: Any) -> int:
    """Count the nodes' processes, the head's included."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            found += words[0].endswith(b"raylet") and f"--gcs-address={cluster.address}".encode() in words
    return found
