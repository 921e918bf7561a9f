"""A sweep on a cluster loses nothing when workers, nodes (raylets), the driver or the head are killed."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import STORE, Patch, assert_holds, ended, process, running, trained
from tests.faults import Stored, assert_finished, assert_told, children, stored

pytestmark = pytest.mark.slow
NAME, LANES, RUNS = "clustered", 16, int(os.environ.get("LRWD_CLUSTER_RUNS", "25"))
SWEEP = "--lr 2^-8:2^-5 --wd 2^-8:2^-7 --seeds 2 --epochs 400 --max-lanes 2 --checkpoint-every 0.3 --quiet"
LONG = ("grid", *SWEEP.split(), "--study-name", NAME)
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
LIMIT = 240.0  # seconds for a command; none takes a tenth on an idle machine


@pytest.fixture
def cluster(monkeypatch: Patch) -> Iterator[Any]:
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


def lanes() -> Stored:
    return stored(Path(STORE), NAME)


def told(started: subprocess.Popen[str], *codes: int) -> str:
    """Wait for the end of a command, which is one of the documented ones; return its stderr."""
    found = ended(started, LIMIT)
    assert_told(found.code, found.err, *codes)
    return found.err


def workers(cluster: Any) -> list[int]:
    raylets = {each.all_processes["raylet"][0].process.pid for each in cluster.list_all_nodes()}
    return running("ray::_train_pack", [pid for raylet in raylets for pid in children(raylet)])


def raylets(cluster: Any) -> int:
    every = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return len(running("raylet\0", running(f"--gcs-address={cluster.address}\0", every)))


def test_nothing_is_lost_to_kills_of_workers_nodes_and_drivers(cluster: Any, tmp_path: Path) -> None:
    chance, done = random.Random(0), {"worker": 0, "leave": 0, "join": 0, "driver": 0}
    reference = stored(trained(tmp_path / "reference", *LONG), NAME)
    nodes = [cluster.add_node(**NODE), cluster.add_node(**NODE)]
    for _ in range(RUNS):
        plan = [chance.choice(list(done)) for _ in range(chance.randint(1, 3))]
        started, acknowledged = process(*on(cluster)), 0
        for fault in plan:
            until = time.monotonic() + LIMIT
            while not workers(cluster) and started.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 4))
            acknowledged = len(lanes())
            if fault == "driver":
                started.kill()
                told(started, -signal.SIGKILL, 0)
                assert acknowledged <= len(lanes()), "I1"
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
        told(started, 0)
        assert len(lanes()) >= acknowledged, "I1"
        assert_finished(Path(STORE), NAME, reference)
        Path(STORE).unlink()
    print(f"{RUNS} runs, {done}: 0 violations")  # noqa: T201


def test_a_dead_head_ends_the_command_and_another_one_continues(cluster: Any, tmp_path: Path) -> None:
    longer = "--epochs", "2000"  # Ray takes twenty seconds to give up its head
    reference = stored(trained(tmp_path / "reference", *LONG, *longer), NAME)
    cluster.add_node(**NODE)
    spool = str(tmp_path / "spool")
    started = process(*on(cluster, *longer, "--spool", spool))
    while len(lanes()) < 4:
        time.sleep(0.1)
        assert started.poll() is None
    for each in cluster.head_node.all_processes["gcs_server"]:
        each.process.kill()
    began = time.monotonic()
    err = told(started, 3)
    seconds = time.monotonic() - began
    assert seconds < 60
    print(f"exit 3 {seconds:.1f} s after the head's death")  # noqa: T201
    assert_holds(err, "the head of the Ray cluster", "the same command continues")
    told(process(*LONG, *longer, "--executor", "ray", "--spool", spool), 0)
    assert_finished(Path(STORE), NAME, reference)
    assert not list(Path(spool).glob("*")), "nothing is left in the spool"


OTHER_VERSION = """
import importlib.metadata as metadata
true = metadata.version
metadata.version = lambda name: "0.1" if name == "torch" else true(name)
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
    err = told(process(*command, PYTHONPATH=str(here)), 3)
    none = "no node of the cluster can train this: "
    assert_holds(err, none, "torch 0.1 there", "make is another one there")
    cluster.add_node(**NODE, env_vars={"PYTHONPATH": str(here)})
    assert told(process(*command, PYTHONPATH=str(here)), 0).count(" is left out: ") == 2
    assert len(lanes()) == 4


def test_a_worker_joins_with_the_heads_versions_and_leaves_on_ctrl_c(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(OTHER_VERSION)
    join = ("worker", "--head", cluster.address, "--num-cpus", "1")
    assert "torch 0.1 here" in told(process(*join, PYTHONPATH=str(tmp_path)), 3)
    assert raylets(cluster) == 1
    worker = process(*join)
    assert worker.stderr is not None
    assert worker.stderr.readline() == f"joining the Ray cluster of {cluster.address}\n"
    joined = f"joined {cluster.address}; packs train here as they come; Ctrl-C leaves\n"
    assert worker.stderr.readline() == joined
    told(process(*on(cluster)), 0)
    assert len(lanes()) == LANES
    assert raylets(cluster) == 2
    worker.send_signal(signal.SIGINT)
    assert ended(worker, LIMIT)[::2] == (130, "lrwd-sweep: interrupted\n")
    assert raylets(cluster) == 1
