"""Tasks and commands that are ready to train on the nodes of a cluster."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path

from lrwd_sweep.engine import device as devices
from lrwd_sweep.engine.cost import MOST_LANES
from lrwd_sweep.engine.train_pack import load_data
from lrwd_sweep.nets import network
from lrwd_sweep.runner.execution import ATTEMPTS, Execution
from lrwd_sweep.runner.executors.commands import ATTEMPTS as RUN_ATTEMPTS
from lrwd_sweep.runner.executors.commands import CommandExecution
from lrwd_sweep.runner.executors.processes import Processes
from lrwd_sweep.runner.executors.ray import IN_FLIGHT, RayCluster
from lrwd_sweep.runner.executors.run_process import RunEnd
from lrwd_sweep.runner.readers import Readout
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.job import Event, Pack, PackLost, Stopped
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task

PACK_SECONDS = 600.0  # about, at most: a node that leaves loses no more


class ClusterExecution(Execution):
    """A task that is ready to train on a cluster."""

    def __init__(self, task: Task, files: DataFiles | None, cluster: RayCluster, key: str = "") -> None:
        self.cluster, self.processes, self.checkpoints, self.kind = cluster, Processes(), None, "ray"
        self.device = devices.choose("cpu")
        devices.prepare(self.device)
        network(task)  # refuses one that cannot be built
        self.splits = load_data(task, self.device, files)
        self.task = cluster.prepare(task, self.splits, key).task or task
        self.places = self.slots()

    def slots(self, optimizer: Optimizer | None = None) -> tuple[devices.Device, ...]:
        """Return a device for each pack that can train at a time."""
        return (devices.Device(self.cluster.kind),) * self.cluster.slots

    def _open(self, slots: Sequence[devices.Device]) -> RayCluster:
        return self.cluster

    def _lanes_of_pack(
        self, slots: Sequence[devices.Device], max_lanes: int | None, optimizer: Optimizer | None
    ) -> int:
        """Count the lanes of a pack that every node has room for and trains in about PACK_SECONDS."""
        reports = self.cluster.reports
        room = [report.lanes for report in reports]
        soon = [int(PACK_SECONDS / max(report.seconds, 1e-9)) for report in reports]
        return max(1, min([*room, *soon, max_lanes or MOST_LANES]))


class ClusterCommands(CommandExecution):
    """A command or function that is ready to run on a cluster."""

    def __init__(
        self,
        spec: StudySpec,
        folder: Path,
        cluster: RayCluster,
        key: str,
        first: bool,
        runs: int,
        tell: Callable[[str], None],
    ) -> None:
        assert spec.command is not None, "a study of a task trains in the engine"
        one = replace(spec, command=replace(spec.command, jobs=1))
        super().__init__(one, folder, first=first, runs=runs, tell=tell)
        self.cluster, self.here = cluster, False
        cluster.prepare(spec, key=key)
        self.most = spec.command.jobs or IN_FLIGHT
        self.slots = min(cluster.slots, self.most)
        self._check_files()

    def _runs(
        self, waiting: deque[tuple[Pack, int]], should_stop: Callable[[], bool]
    ) -> Generator[Event, None, None]:
        running: dict[Pack, int] = {}
        lost: Counter[Pack] = Counter()
        try:
            while waiting or running:
                if should_stop():
                    raise Stopped
                while waiting and self.cluster.free and len(running) < self.most:
                    pack, attempt = waiting.popleft()
                    self.cluster.run(pack, attempt, self.folder)
                    running[pack] = attempt
                for message in self.cluster.messages():
                    if isinstance(message, RunEnd):
                        del running[message.pack]
                        yield from self._settle(message, waiting)
                    elif isinstance(message, PackLost):
                        attempt = running.pop(message.pack)
                        lost[message.pack] += 1
                        if lost[message.pack] < ATTEMPTS:
                            waiting.appendleft((message.pack, attempt))
                        else:
                            yield from self._settle(self._lost(message), waiting)
                    else:
                        yield message
        finally:
            self.cluster.cancel()

    def _lost(self, event: PackLost) -> RunEnd:
        """Return the end of a run whose machine failed too often."""
        readout = Readout(self.metric, self.lower)
        return RunEnd(event.pack, RUN_ATTEMPTS, readout, 0.0, event.reason, is_broken=True)
