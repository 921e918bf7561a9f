"""Packs and runs as tasks of Ray Core on the nodes of a cluster.

Ray starts tasks on a node and moves data, no more. This file chooses the node, which has to pass a check
before it gets work, so that nodes may come late and leave early; `Execution` decides what is tried again.
"""

import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lrwd_sweep.data import Splits
from lrwd_sweep.data.splits import arrays_of, digest_of, make_folder
from lrwd_sweep.engine import device as devices
from lrwd_sweep.errors import HostError, UsageError, arg, brief
from lrwd_sweep.runner.cluster import address_of, is_reachable
from lrwd_sweep.runner.executors import POLL, node
from lrwd_sweep.runner.executors.node import LOST, ClusterNode, Message, NodeReport, Setup, TaskInFlight
from lrwd_sweep.runner.executors.run_process import RunEnd
from lrwd_sweep.spec.job import (
    ClusterState,
    EpochDone,
    Event,
    ExecutorChoice,
    Job,
    Pack,
    PackLost,
    delete_files,
)
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task

IN_FLIGHT = 200  # packs at a time, at most
LOOK = 2.0  # seconds between looks at the head and the list of nodes
HEAD_PATIENCE = 15.0  # seconds in which the head may be silent
PATIENCE = 3.0  # seconds for packs to leave a checkpoint when they are asked to stop
LONGEST = 40  # characters of a folder in which sockets can have their names
STORE = 80 << 20  # bytes of shared memory of a Ray on this machine, beside twice the data

_TOKEN = secrets.token_hex(32)  # of a Ray that this process starts
_SILENT = {"log_to_driver": False, "logging_level": logging.CRITICAL}
_log = logging.getLogger(__name__)


class RayCluster:
    """An executor whose slots are the CPUs or GPUs of a cluster's nodes. It outlives a study."""

    def __init__(self, choice: ExecutorChoice, device: str = "auto") -> None:
        self.choice, self.device, self.kind = choice, device, ""
        self._folder = make_folder()
        (self._folder / "probe").touch()
        self._nodes: dict[str, ClusterNode] = {}
        self._running: dict[Any, TaskInFlight] = {}  # by generator of messages
        self._setup: Setup | None = None
        self._shared: Any = None  # the reference of the setup
        self._data: tuple[str, list[Any]] = "", []  # digest and reference
        self._looked = self._heard = 0.0  # times
        self._count = self._lost = 0  # of tasks, all and lost ones
        self._marks: list[Path] = []  # files that end lost tasks
        self._said: set[str] = set()
        self._state: ClusterState | None = None
        self._head = ""  # its address, once this is connected
        self._is_ours = self._is_gone = False  # the Ray; the head

    def prepare(
        self,
        study: Task | StudySpec,
        splits: Splits | None = None,
        key: str = "",
        folder: Path | None = None,  # of the logs of runs
    ) -> NodeReport:
        """Check all nodes for a study; return the report of the first that can train.

        Waits for one. Raises HostError if all there are fail, and UsageError of the task.
        """
        arrays = {} if splits is None else arrays_of(splits)
        if not self._head:
            size = sum(value.nbytes for value in arrays.values())
            self._is_ours = _connect(self.choice.ray_address, self._folder, size)
            self._head = ray.get_runtime_context().gcs_address
        data = digest_of(arrays) if arrays else ""
        if data != self._data[0]:
            self._data = data, [ray.put(arrays)]
        self._setup = Setup(
            os.getcwd(),
            tuple(sys.path),
            node.versions(training=splits is not None),
            "cpu",
            study,
            str(self._folder / "probe"),
            data,
            key,
            self.choice.spool or "",
            "" if folder is None else str(folder.resolve()),
        )
        self._nodes, self._shared, self._looked = {}, None, 0.0
        while True:
            self._look()
            self._hear([each.check for each in self._nodes.values() if each.check is not None])
            found = [each for each in self._nodes.values() if each.report is not None]
            for each in found:
                assert each.report is not None
                if each.report.error is not None:
                    raise each.report.error
                if not each.report.reasons:
                    return each.report
            if found and len(found) == len(self._nodes):
                reasons = dict.fromkeys(why for each in found if each.report for why in each.report.reasons)
                raise HostError(f"no node of the cluster can train this: {'; '.join(reasons)}")

    @property
    def reports(self) -> list[NodeReport]:
        """The reports of the nodes that train."""
        return [each.report for each in self._nodes.values() if each.report and not each.report.reasons]

    @property
    def slots(self) -> int:
        """The number of packs that train at a time, at least one."""
        return min(max(sum(report.slots for report in self.reports), 1), IN_FLIGHT)

    @property
    def free(self) -> int:
        """Count the slots without a job."""
        free = sum(each.free for each in self._nodes.values())
        return max(min(free, IN_FLIGHT - len(self._running)), 0)

    def submit(self, job: Job) -> None:
        """Begin a job in a free slot."""
        place = max(self._nodes.values(), key=lambda each: each.free)
        assert place.report is not None
        if job.checkpoints is not None and not (job.checkpoints.shared or place.report.is_drivers):
            job = replace(job, checkpoints=None)
        job = replace(job, device="cuda:0" if self.kind == "cuda" else "cpu")
        self._start(place, job.pack, _TRAIN, self._shared, self._data[1], job)

    def begin(self, pack: Pack, attempt: int) -> None:
        """Begin a run of a command in a free slot."""
        place = max(self._nodes.values(), key=lambda each: each.free)
        self._start(place, pack, _RUN, self._shared, pack, attempt)

    def _start(self, place: ClusterNode, pack: Pack, function: Any, *values: object) -> None:
        self._count += 1
        folder = Path(self.choice.spool) if self.choice.spool else self._folder
        stop = str(folder / f"stop-{self._folder.name}-{self._count}")
        task = function.options(**self._resources(place), num_returns="streaming").remote(*values, stop)
        self._running[task] = TaskInFlight(pack, place, stop)
        place.busy += 1

    def _resources(self, place: ClusterNode) -> dict[str, Any]:
        where = NodeAffinitySchedulingStrategy(place.id, soft=False)
        return {"num_cpus": 1, "num_gpus": int(self.kind == "cuda"), "scheduling_strategy": where}

    def events(self) -> Sequence[Event]:
        """Wait up to POLL seconds for events. Raises errors of jobs, HostError if the head is gone."""
        return [event for event in self.messages() if not isinstance(event, RunEnd)]

    def messages(self, _: object = None) -> list[Event | RunEnd]:
        """Return events as `events` does, and the ends of runs."""
        self._look()
        checks = [each.check for each in self._nodes.values() if each.check is not None]
        found: list[Event | RunEnd] = []
        for task in self._hear([*self._running, *checks]):
            if task in self._running:
                found += self._next(task)
        state = ClusterState(len(self.reports), len(self._running), self._lost)
        if state != self._state:
            self._state = state
            found.append(state)
        return found

    def _hear(self, tasks: Sequence[Any]) -> list[Any]:
        """Wait up to POLL seconds for one of the tasks; note reports of nodes; return those that spoke."""
        if not tasks:
            time.sleep(POLL)
            return []
        ready, _ = ray.wait(list(tasks), num_returns=1, timeout=POLL)
        for each in [each for each in self._nodes.values() if each.check in ready]:
            self._note(each)
        return list(ready)

    def _note(self, place: ClusterNode) -> None:
        """Note the report of a node; say once if it is left out."""
        try:
            place.report = ray.get(place.check)
        except RayError as error:  # it has no lrwd-sweep, or another one, or is gone
            place.report = NodeReport(place.name, (f"its check failed: {_told(error)}",))
        place.check, place.slots = None, min(place.slots, place.report.slots)
        if place.report.reasons:
            self._say(f"node {place.name} is left out: {'; '.join(place.report.reasons)}")

    def _next(self, task: Any) -> list[Event | RunEnd]:
        """Return the next event of a job. Raises errors of the job."""
        pack = self._running[task].pack
        try:
            message: Message = ray.get(next(task))
        except (RayError, StopIteration) as error:
            mark = Path(self._running[task].stop + LOST)
            place = self._drop(task)
            self._lost += 1
            if not isinstance(error, WorkerCrashedError | OutOfMemoryError):
                self._nodes.pop(place.id, None)  # it comes back with a new check if it is there
                self._looked = 0.0
                self._marks.append(mark)  # its process may go on for a while
                with suppress(OSError):
                    mark.touch()
            return [PackLost(pack, f"a pack was lost on its node ({_told(error)})", whole=True)]
        if isinstance(message, EpochDone | bool):
            self._running[task].has_begun = True
            return [] if isinstance(message, bool) else [message]
        self._drop(task)
        if isinstance(message, Exception):
            raise message
        return [] if message is None else [message]

    def _drop(self, task: Any) -> ClusterNode:
        place = self._running.pop(task).node
        place.busy -= 1
        return place

    def _look(self) -> None:
        """Look now and then for nodes that came or left. Raises HostError if the head is gone."""
        if (now := time.monotonic()) - self._looked < LOOK:
            return
        self._looked = now
        if is_reachable(self._head, 1.0):
            self._heard = now
        elif self._heard and now - self._heard > HEAD_PATIENCE:
            self._is_gone = True
            raise HostError(
                f"the head of the Ray cluster at {self._head} does not answer any more; finished packs are "
                "kept; start a head, and the same command continues"
            )
        else:
            return  # Ray would wait for it for a minute, then end this process
        alive = {each["NodeID"]: each for each in ray.nodes() if each["Alive"]}
        for gone in self._nodes.keys() - alive.keys():
            self._say(f"node {self._nodes.pop(gone).name} has left")
        self.kind = self.kind or self._kind(alive.values())
        for number in alive.keys() - self._nodes.keys() if self.kind else ():
            self._check(number, alive[number])
        if not self._nodes:
            self._say(f"waiting for a node with a {'GPU' if self.device == 'cuda' else 'CPU or GPU'}")

    def _kind(self, nodes: Any) -> str:
        """Return cuda if it is asked for or a node has a GPU, else cpu; empty while there is no node."""
        gpus = any(each["Resources"].get("GPU", 0) >= 1 for each in nodes)
        cpus = any(each["Resources"].get("CPU", 0) >= 1 for each in nodes)
        if self.device == "cpu" or not gpus:
            return "cpu" if cpus and self.device != "cuda" else ""
        return "cuda"

    def _check(self, number: str, found: Mapping[str, Any]) -> None:
        """Start the check of a new node, if it has the devices that are wanted."""
        slots = int(found["Resources"].get("GPU" if self.kind == "cuda" else "CPU", 0))
        if slots and self._setup is not None:
            if self._shared is None:
                self._shared = _put(replace(self._setup, device=self.kind))
            place = ClusterNode(number, found["NodeManagerHostname"], slots)
            task = _CHECK.options(**self._resources(place))
            place.check = task.remote(self._shared, self._data[1], slots)
            self._nodes[number] = place

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.info("%s", text)

    def cancel(self) -> None:
        """Stop all jobs, those on this machine or with a spool at their next step; discard their events."""
        files = [Path(each.stop) for each in self._running.values()]
        if self._running and not self._is_gone:
            with suppress(OSError):
                for file in files:
                    file.touch()
            ends = time.monotonic() + PATIENCE
            while time.monotonic() < ends and (tasks := self._stoppable()):
                for task in ray.wait(tasks, num_returns=1, timeout=POLL)[0]:
                    with suppress(Exception):
                        self._next(task)
            for task in self._running:
                ray.cancel(task, force=True)
        for task in list(self._running):
            self._drop(task)
        delete_files(*files)

    def _stoppable(self) -> list[Any]:
        """Return the tasks that see the file that tells them to stop."""

        def sees(place: ClusterNode) -> bool:
            return bool(self.choice.spool) or (place.report is not None and place.report.is_drivers)

        return [task for task, each in self._running.items() if each.has_begun and sees(each.node)]

    def close(self) -> None:
        """Leave the cluster, and end it if it is of this command."""
        self._running.clear()
        delete_files(*self._marks)
        if self._is_ours:
            with suppress(Exception):
                ray.shutdown()
            if os.environ.get("RAY_AUTH_TOKEN") == _TOKEN:
                del os.environ["RAY_AUTH_TOKEN"]
        shutil.rmtree(self._folder, ignore_errors=True)


def _connect(address: str | None, folder: Path, size: int) -> bool:
    """Connect to a cluster, or start one here with room for data of `size` bytes; return True to leave it."""
    if ray.is_initialized():  # by the user's script
        return False
    address, options = address_of(address), dict[str, Any]()
    if address == "local":
        os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)  # else it writes one into the home folder
        options = {"num_cpus": devices.cores(), "include_dashboard": False}
        options["object_store_memory"] = STORE + 2 * size
        if len(str(folder)) <= LONGEST:
            options["_temp_dir"] = str(folder)
    try:
        ray.init(address=address, namespace="lrwd", **_SILENT, **options)
    except Exception as error:  # Ray has no base class of these
        node_first = "this machine has to be a node of the cluster (lrwd-sweep worker)"
        remedy = "free some memory, or name a cluster" if address == "local" else node_first
        raise HostError(f"{arg('ray_address', address)}: {brief(error)}; {remedy}") from None
    if hasattr(ray._private.worker, "print_to_stdstream"):  # of lost tasks, which we report
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
    return True


def compare_with_head(address: str, goes_on: Callable[[], bool], seconds: float) -> list[str]:
    """Say which versions here differ from those at the head, once the node of this machine has joined."""
    mine = node.versions(training=True)

    def versions(names: list[str]) -> dict[str, str]:  # sent by value: the head may have no lrwd-sweep
        from importlib.metadata import distributions  # noqa: PLC0415
        from platform import python_version_tuple  # noqa: PLC0415

        found = {each.metadata["Name"]: each.version.partition("+")[0] for each in distributions()}
        found["Python"] = ".".join(python_version_tuple()[:2])
        return {name: found.get(name, "is missing") for name in names}

    ends = time.monotonic() + seconds
    while goes_on() and time.monotonic() < ends:
        try:
            ray.init(address=address, namespace="lrwd", **_SILENT)
            break
        except Exception:  # the node has not come up yet
            time.sleep(0.5)
    if not ray.is_initialized():
        return []
    heads = [each for each in ray.nodes() if "node:__internal_head__" in each["Resources"]]
    where = NodeAffinitySchedulingStrategy(heads[0]["NodeID"], soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=where)(versions)
    theirs = ray.get(task.remote(list(mine)), timeout=seconds)
    ray.shutdown()
    return [f"{name} {mine[name]} here, {theirs[name]} there" for name in mine if mine[name] != theirs[name]]


def _put(value: object) -> Any:
    try:
        return ray.put(value)
    except TypeError as error:
        raise UsageError(f"{arg('objective')} cannot be sent to other machines: {brief(error)}") from None


def _told(error: Exception) -> str:
    """Say why a task was lost, in few words."""
    words = {
        "WorkerCrashedError": "its process ended",
        "NodeDiedError": "the node left",
        "OutOfMemoryError": "the node had no memory left",
    }
    return words.get(type(error).__name__) or brief(f"{type(error).__name__}: {error}")


# On a node. The data are in a list, so that Ray fetches them only when a function asks.


def _check_node(setup: Setup, data: Sequence[Any], slots: int) -> NodeReport:
    return node.check(setup, lambda: ray.get(data[0]), slots)


def _train_pack(setup: Setup, data: Sequence[Any], job: Job, stop: str) -> Iterator[Message]:
    yield from node.train(setup, lambda: ray.get(data[0]), job, stop)


_REMOTE = ray.remote(max_retries=0, retry_exceptions=False, max_calls=0)
_CHECK, _TRAIN, _RUN = _REMOTE(_check_node), _REMOTE(_train_pack), _REMOTE(node.run)
