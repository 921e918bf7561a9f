"""Every executor trains lanes to the same bits, reports epochs, stops, and reports packs that it lost."""

import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import lrwd_sweep
from lrwd_sweep.data import Splits
from lrwd_sweep.engine.device import cores
from lrwd_sweep.engine.train_pack import load_data, train_pack
from lrwd_sweep.errors import HostError
from lrwd_sweep.runner.cluster import prepare_ray
from lrwd_sweep.runner.executors import Executor
from lrwd_sweep.runner.executors.local import Processes, Threads
from lrwd_sweep.runner.executors.ray import RayCluster
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.spec.job import ClusterState, EpochDone, Event, ExecutorChoice, Job, Pack, PackDone, PackLost
from lrwd_sweep.spec.task import Task
from tests.faults import assert_ended
from tests.refusal import assert_raises
from tests.runner import strange
from tests.small import ADAMW, CPU

CELLS = tuple(Lattice((0.01, 0.02), (0.001, 0.01)).cells())
NET = f"{strange.__name__}:Net"


def job(net: str = NET, seed: int = 0, epochs: int = 3) -> Job:
    engine = "auto" if net == "mlp-norm" else "loop"
    return Job(ADAMW, Task(net=net, epochs=epochs, engine=engine), Pack(CELLS, seed))


def train(executor: Executor, *jobs: Job) -> list[Event]:
    """Train jobs of the seeds 0, 1, … to their ends, return their last events; those done told epochs."""
    for each in jobs:
        executor.submit(each)
    epochs: list[list[int]] = [[] for _ in jobs]
    ends: dict[int, Event] = {}
    while len(ends) < len(jobs):
        for event in executor.events():
            if isinstance(event, EpochDone):
                assert len(event.metrics["val_loss"]) == len(CELLS)
                epochs[event.pack.seed].append(event.epoch)
            elif not isinstance(event, ClusterState):
                ends[event.pack.seed] = event
    for seed, end in ends.items():
        some = isinstance(executor, RayCluster) and epochs[seed][:1] == [1]  # it leaves some out
        assert isinstance(end, PackLost) or some or epochs[seed] == [1, 2, 3]
    return [ends[seed] for seed in range(len(jobs))]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_data(Task(), CPU)


@pytest.fixture(scope="module", autouse=True)
def marks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp(str(os.getpid()), numbered=False)
        patch.setenv(strange.MARKS, str(folder))
        yield folder


@pytest.fixture(scope="module")
def warm(splits: Splits) -> Iterator[Processes]:
    executor = Processes()
    executor.prepare([CPU, CPU], splits)
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def cluster(splits: Splits) -> Iterator[RayCluster]:
    """A Ray of two slots on this machine; its nodes find user code by the path of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrwd_sweep.engine.device.cores", lambda: 2)
        prepare_ray("executor", "ray")
        executor = RayCluster(ExecutorChoice("ray", "local"))
        executor.prepare(Task(), splits)
        yield executor
        executor.close()


@pytest.fixture(params=["threads", "warm", "cluster"])
def executor(request: pytest.FixtureRequest, splits: Splits) -> Iterator[Executor]:
    is_shared = request.param != "threads"
    found = request.getfixturevalue(request.param) if is_shared else Threads(2, splits)
    yield found
    found.cancel() if is_shared else found.close()


def test_lanes_train_to_the_bits_of_one_thread_and_tell_epochs(executor: Executor, splits: Splits) -> None:
    for net in ("mlp-norm", NET):  # native, and a module per lane
        pair = [job(net, seed) for seed in (0, 1)]
        watch = lambda *_: None, lambda: False
        with ThreadPoolExecutor(1) as thread:  # in this thread, subnormal numbers would stay flushed
            alone = [thread.submit(train_pack, each, splits, *watch).result() for each in pair]
        done = train(executor, *pair)
        assert done == [PackDone(each.pack, trials) for each, trials in zip(pair, alone, strict=True)], net
        assert max(len(pickle.dumps(sent)) for sent in (pair, done)) < 5_000, "no data and no weights"


def test_cancel_stops_jobs_and_leaves_the_slots_usable(executor: Executor) -> None:
    assert executor.free == 2
    for seed in (0, 1):
        executor.submit(job(seed=seed, epochs=1_000_000))
    assert executor.free == 0
    while not any(isinstance(event, EpochDone) for event in executor.events()):
        pass
    executor.cancel()
    assert executor.free == 2
    (done,) = train(executor, job())
    assert isinstance(done, PackDone)


@pytest.mark.parametrize("executor", ["warm", "cluster"], indirect=True)  # a thread does not end alone
def test_a_process_that_ends_loses_only_its_own_pack(executor: Executor, marks: Path) -> None:
    (marks / "died").unlink(missing_ok=True)
    mortal, other = job(f"{strange.__name__}:MortalOnce"), job(seed=1)
    lost, done = train(executor, mortal, other)
    assert isinstance(lost, PackLost)
    assert (lost.out_of_memory, lost.whole) == (False, isinstance(executor, RayCluster))
    assert re.search(r"ended \(SIGKILL\)|its process ended", lost.reason)
    assert isinstance(done, PackDone)
    assert isinstance(train(executor, mortal)[0], PackDone)


def test_a_pack_without_room_is_lost_and_errors_of_user_code_are_raised(executor: Executor) -> None:
    (lost,) = train(executor, full := job(f"{strange.__name__}:Full"))
    reason = f"cpu has no room for one lane of {strange.__name__}:Full"
    assert lost == PackLost(full.pack, reason, out_of_memory=True)
    faulty = job(f"{strange.__name__}:Faulty")
    assert_raises(r"Faulty' raised in training: RuntimeError.*strange\.py", train, executor, faulty)
    assert executor.free == 2


def test_commands_and_functions_run_on_a_cluster(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.slots == 2  # a Ray that this process has begun is used
    monkeypatch.chdir(tmp_path)
    script = "import os, sys; print('val_loss:', sum(map(float, sys.argv[1:4]))); os.stat(sys.argv[4])"
    (tmp_path / "train.py").write_text(script)
    axes: dict[str, Any] = {"lr": [0.1, 0.2], "weight_decay": [0.01, 0.1], "seeds": 2, "progress": False}
    offset = 0.5  # the function is sent with what it refers to
    ways: dict[str, dict[str, Any]] = {
        "run": {"run": f"{sys.executable} train.py {{lr}} {{weight_decay}} {{seed}} {{out}}", "read": "auto"},
        "function": {"objective": lambda lr, weight_decay, seed: lr + weight_decay + seed + offset},
    }
    sweep = partial(lrwd_sweep.sweep, "adamw:lr-scaled", **axes)
    for name, way in ways.items():
        here = sweep(storage=f"{name}-auto.db", executor="auto", **way).frame
        assert here.equals(sweep(storage=f"{name}-ray.db", executor="ray", **way).frame), name
        assert len(here) == 8
    faulty = f"{sys.executable} -c raise(SystemExit(3)) {{lr}} {{weight_decay}} {{seed}}"
    with pytest.raises(HostError, match="the first run failed: exit status 3; nothing else was started"):
        sweep(run=faulty, storage="f.db", executor="ray")


def test_processes_refuse_changed_user_code_and_hide_output(
    warm: Processes, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = replace(job(), task=replace(job().task, code=((NET, "another"),)))
    assert_raises(rf"^net='{NET}' has changed since this training began", train, warm, changed)
    train(warm, job(f"{strange.__name__}:Loud"), job(seed=1))
    assert capfd.readouterr() == ("", "")


SCRIPT = """import json, multiprocessing, numba, numpy, random, sys, torch
import lrwd_sweep

print("the script runs", flush=True)
axes = dict(lr=[0.1, 0.2], weight_decay=[0.01, 0.1], seeds=1, epochs=1_000_000)
lrwd_sweep.sweep(net="./nets/own_net.py:make", engine="loop", progress=False, max_lanes=1, **axes)
"""
OWN_NET = """import os
from torch import nn
from own_layers import last

def make():
    open(f"process-{os.getpid()}", "w").close()
    return nn.Sequential(nn.Flatten(), last())
"""
OWN_LAYERS = "from torch import nn\n\ndef last():\n    return nn.Linear(64, 10)\n"
STRAY = "open(__file__ + '.ran', 'w')\nraise SystemExit\n"


@pytest.mark.skipif(sys.platform != "linux" or cores() < 2, reason="needs /proc and two cores")
def test_a_script_without_main_guard_runs_once_and_its_processes_end_with_it(tmp_path: Path) -> None:
    """Files named like libraries lie beside the user's code and in the current directory."""
    early = ("random", "json", "numpy", "multiprocessing", "lrwd_sweep")  # loaded before user code
    strays = [*(f"nets/{name}" for name in early), *early, "torch", "numba"]
    files = {"scripts/script": SCRIPT, "nets/own_net": OWN_NET, "nets/own_layers": OWN_LAYERS}
    for name, text in (files | dict.fromkeys(strays, STRAY)).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
    command, pipe = [sys.executable, str(tmp_path / "scripts/script.py")], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as script:
        started: set[str] = set()
        while script.poll() is None and len(started) < 2:
            time.sleep(0.05)
            started = {path.name.removeprefix("process-") for path in tmp_path.glob("process-*")}
            started.discard(str(script.pid))
        script.kill()
        assert script.communicate() == ("the script runs\n", "")
    assert not [*tmp_path.rglob("*.ran")]
    assert_ended(started)
