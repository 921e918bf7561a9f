"""The work on a node of a cluster, without Ray: check the node, train a pack, run a command.

Files of user code are read from the driver's current folder and module path, so a node has them at the same
paths, or in a module path of its own. Data come from the driver.
"""

import os
import platform
import queue
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lrwd_sweep
from lrwd_sweep.data import Splits
from lrwd_sweep.data.splits import Arrays, digest_of, splits_of
from lrwd_sweep.data.user_data import reopened
from lrwd_sweep.engine import device as devices
from lrwd_sweep.engine.choice import chosen
from lrwd_sweep.engine.cost import lanes_that_fit, measure, workers_that_fit
from lrwd_sweep.engine.train_pack import OutOfMemory, train_job
from lrwd_sweep.errors import DeviceError, LrwdError, UsageError
from lrwd_sweep.runner import cluster
from lrwd_sweep.runner.executors.run_process import RunEnd, check_program, open_runs, trial_of
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.job import EpochDone, Event, Job, Pack, PackDone, PackLost, Stopped
from lrwd_sweep.spec.run_options import function_code
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task

EPOCHS_EVERY = 1.0  # seconds between two epochs that a pack reports
LOOK = 0.1  # seconds between looks at the file that tells to stop
LOST = ".lost"  # end of its name if the driver has given the job to another node
SECONDS = 0.5  # to measure the time of a lane
_ANY = Optimizer.parse("adamw")

Fetch = Callable[[], Arrays]  # the data
Message = Event | RunEnd | Exception | bool | None  # True: it begins; None: it stopped


@dataclass(frozen=True, slots=True)
class Setup:
    """The facts that every node takes over from the driver for a study."""

    folder: str  # current one
    path: tuple[str, ...]  # of modules
    versions: Mapping[str, str]
    device: str  # cpu or cuda
    study: Task | StudySpec  # a task of the engine, or the study of a command
    probe: str  # a file that a node on the driver's machine has
    data: str = ""  # digest
    key: str = ""  # of the study in the spool
    spool: str = ""
    logs: str = ""  # the folder of the runs of a command


@dataclass(frozen=True, slots=True)
class NodeReport:
    """The findings of a node about itself."""

    host: str
    reasons: tuple[str, ...] = ()  # why it gets no work
    error: UsageError | None = None  # of the task, on any node
    is_drivers: bool = False  # it has the driver's files
    slots: int = 1
    lanes: int = 1  # of a pack that has room in each slot
    seconds: float = 0.0  # to train one lane, about
    task: Task | None = None  # with the engine that is fastest there


@dataclass(slots=True)
class ClusterNode:
    """A node of the cluster: it trains once its check has succeeded."""

    id: str
    name: str
    slots: int
    check: Any = None  # the reference of its report, while it is awaited
    report: NodeReport | None = None
    busy: int = 0

    @property
    def free(self) -> int:
        """Count the slots without a job."""
        return self.slots - self.busy if self.report is not None and not self.report.reasons else 0


@dataclass(slots=True)
class TaskInFlight:
    """A task in flight."""

    pack: Pack
    node: ClusterNode
    stop: str  # the file that tells it to stop
    has_begun: bool = False


def versions(*, training: bool) -> dict[str, str]:
    """Return the versions of which all nodes have the same."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), "lrwd-sweep": lrwd_sweep.__version__}
    if training:
        with suppress(PackageNotFoundError):
            found["torch"] = version("torch").partition("+")[0]
    return found


def check(setup: Setup, fetch: Fetch, slots: int) -> NodeReport:
    """Check versions, user code, data and device of this node, and measure the task on it."""
    _enter(setup)
    host = socket.gethostname()
    here = versions(training="torch" in setup.versions)
    reasons = [
        f"{name} {here.get(name, 'is missing')} there, {wanted} here"
        for name, wanted in setup.versions.items()
        if here.get(name) != wanted
    ]
    if not reasons:
        reasons = _other_code(setup)
    report = NodeReport(host, tuple(reasons), is_drivers=os.path.exists(setup.probe), slots=slots)
    if reasons or isinstance(setup.study, StudySpec):
        return report
    if digest_of(fetch()) != setup.data:
        return replace(report, reasons=("the data arrived damaged",))
    try:
        device = devices.choose(setup.device)
        devices.prepare(device)
        task = chosen(setup.study, device)
        packs = slots if device.type == "cpu" else 1  # a GPU has one at a time, and a task sees no other
        fit = max(workers_that_fit(task, device=device, workers=packs), 1)
        lanes = lanes_that_fit(task, device=device, workers=fit, max_lanes=None)
        speed = measure(_ANY, task, lanes, SECONDS, setup.device, packs=1)
    except DeviceError as error:
        return replace(report, reasons=(str(error),))
    except UsageError as error:
        return replace(report, error=UsageError(error.text))
    slots = fit if device.type == "cpu" else slots
    return replace(report, slots=slots, lanes=lanes, seconds=speed.seconds(task), task=task)


def _enter(setup: Setup) -> None:
    """Take over the driver's folder and module path as far as this node has them, after its own path."""
    with suppress(OSError):
        os.chdir(setup.folder)
    sys.path += [name for name in setup.path if name not in sys.path]


def _other_code(setup: Setup) -> list[str]:
    """Say which user code is missing here or differs from the driver's."""
    if isinstance(setup.study, Task):
        wanted = [(option, name) for option, name in setup.study.user_code.items() if option != "data"]
        codes = dict(setup.study.code)
        pairs = [(name, codes[name], _code_of(option, name)) for option, name in wanted if name in codes]
    else:
        command = setup.study.command
        assert command is not None, "a study of a task trains in the engine"
        if command.call is None:
            if not command.shell:
                try:
                    check_program(command)
                except UsageError as error:
                    return [str(error)]
            found = command.current_code()
        else:  # of a script or a prompt it arrives with the task
            label, now = function_code(command.call)
            found = now if user_code.is_user_code(label) else command.code
        pairs = [(command.stem, command.code, found)]
    return [f"{name} is another one there" for name, wanted, found in pairs if wanted != found]


def _code_of(option: str, name: str) -> str:
    try:
        return user_code.find(option, name).digest
    except LrwdError:
        return ""


_held: dict[tuple[str, str], Splits] = {}  # by digest and device; the last one


def _splits(setup: Setup, fetch: Fetch) -> Splits:
    key = setup.data, setup.device
    if key not in _held:
        _held.clear()
        assert isinstance(setup.study, Task), "commands have no splits"
        splits = reopened(setup.study.data, splits_of(fetch()), setup.study.data_set.classes)
        device = devices.choose(setup.device)
        _held[key] = splits.to(device, splits.train.dtype)
    return _held[key]


class _Told:
    """A look, now and then, for the file that tells a job to stop; ends the process if it counts as lost."""

    def __init__(self, file: str) -> None:
        self.file, self.at, self.found = file, 0.0, False

    def __call__(self) -> bool:
        if (now := time.monotonic()) - self.at >= LOOK:
            self.at, self.found = now, os.path.exists(self.file)
            if os.path.exists(self.file + LOST):
                os._exit(1)  # it trains elsewhere by now, and would leave a checkpoint
        return self.found


def train(setup: Setup, fetch: Fetch, job: Job, stop: str) -> Iterator[Message]:
    """Train a pack in a thread; yield some of its epochs, then its end."""
    yield True
    _enter(setup)
    heard: queue.SimpleQueue[EpochDone | Future[Message]] = queue.SimpleQueue()
    at = -EPOCHS_EVERY

    def on_epoch(epoch: int, metrics: Mapping[str, list[float]]) -> None:
        nonlocal at
        if (now := time.monotonic()) - at >= EPOCHS_EVERY:
            at = now
            heard.put(EpochDone(job.pack, epoch, metrics))

    def work() -> Message:
        try:
            trials = train_job(job, on_epoch, _Told(stop), _splits(setup, fetch))
            if setup.spool:
                cluster.write_pack(setup.spool, setup.key, job.pack, trials)
        except OutOfMemory as error:
            return PackLost(job.pack, str(error), out_of_memory=True)
        except Stopped:
            return None
        except Exception as error:
            return error
        return PackDone(job.pack, trials)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).add_done_callback(heard.put)
        while isinstance(message := heard.get(), EpochDone):
            yield message
    yield message.result()


def run(setup: Setup, pack: Pack, attempt: int, stop: str) -> Iterator[Message]:
    """Run a command or a function for one lane; yield its points, then its end."""
    yield True
    _enter(setup)
    spec = setup.study
    assert isinstance(spec, StudySpec)
    runs, should_stop = open_runs(spec, Path(setup.logs), on_node=True), _Told(stop)
    has_ended = False
    try:
        runs.begin(pack, attempt)
        while not (has_ended or should_stop()):
            for message in runs.messages(should_stop):
                if isinstance(message, RunEnd):
                    has_ended = True
                    if setup.spool and not message.failure:
                        cluster.write_pack(setup.spool, setup.key, pack, [trial_of(message, spec)])
                yield message
        if not has_ended:
            yield None
    except Stopped:
        yield None
    except UsageError as error:
        yield UsageError(error.text)
    finally:
        runs.cancel()
