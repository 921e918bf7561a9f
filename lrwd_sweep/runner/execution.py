"""Train a task on this machine: load its data, choose its engine, plan its packs and train them."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING

from lrwd_sweep.engine import device as devices
from lrwd_sweep.engine.choice import chosen
from lrwd_sweep.engine.cost import MOST_LANES, lanes_that_fit, measure, workers_that_fit
from lrwd_sweep.engine.train_pack import load_data
from lrwd_sweep.errors import brief
from lrwd_sweep.nets import decaying, network
from lrwd_sweep.report.view.notation import counted, in_patterns
from lrwd_sweep.runner.executors import Executor
from lrwd_sweep.runner.executors.local import Processes, Threads
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import (
    CheckpointPlace,
    ClusterState,
    DataFiles,
    EpochDone,
    Event,
    Job,
    Pack,
    PackDone,
    PackLost,
    Stopped,
)
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task

if TYPE_CHECKING:
    from lrwd_sweep.runner.executors.ray import RayCluster

ATTEMPTS = 3  # to train a lane whose process is killed
OVERHEAD = 2  # of a pack besides its lanes, in lanes: the interpreter's share of its steps
ESTIMATE_SECONDS = 10.0  # for the measurements of an estimate
PACK_SECONDS = 600.0  # about, at most, of a pack on a cluster: a node that leaves loses no more
PROCESS = 1 << 30  # bytes of memory that must be free for a process, twice what one takes

_log = logging.getLogger(__name__)


class Execution:
    """A task that is ready to train on a device, or on all of its kind.

    Raises UnknownName, DeviceError or DataError, and UsageError for a network that does not take the data.
    """

    def __init__(
        self,
        task: Task,
        device: str = "auto",
        files: DataFiles | None = None,  # None: the usual folder
        processes: Processes | None = None,  # warm ones of another study
        dry: bool = False,  # only to plan: nothing is downloaded or kept
        kind: str = "auto",  # of executor: threads, processes, or what is fastest
    ) -> None:
        self.task, self.kind = task, kind
        self.places = devices.places(device)
        self.device = next(filter(self._room, dict.fromkeys(self.places)), self.places[0])
        if kind == "threads":  # all of them have their data on one device
            self.places = tuple(place for place in self.places if place == self.device)
        self.lanes_at_once()  # refuses a network that cannot be built, or has no room
        if not (dry and files and files.download):
            self.splits = load_data(task, self.device, files)
        self.task = chosen(task, self.device, keep=not dry)
        self.processes: Processes = Processes() if processes is None else processes
        self.checkpoints: CheckpointPlace | None = None  # None: packs leave none

    def tensors(self, tell: Callable[[str, str], None]) -> str:
        """Describe the parameters that decay, and tell it if some do not."""
        found = decaying(self.task)
        rest = [name for name, decays in found.items() if not decays]
        acts = [name for name, decays in found.items() if decays]
        decay = f"{len(acts)} of {counted(len(found), 'tensor')} decay: {in_patterns(acts, rest)}"
        if not rest:
            return decay
        no_decay = f"without decay: {in_patterns(rest, acts)}"
        tell(decay, no_decay)
        return f"{decay}; {no_decay}"

    def lanes_at_once(self, max_lanes: int | None = None, optimizer: Optimizer | None = None) -> int:
        """Count the lanes of all packs that train at a time. Raises DeviceError if not one fits."""
        slots = self.slots(optimizer)
        return len(slots) * self._lanes_of_pack(slots, max_lanes, optimizer)

    def slots(self, optimizer: Optimizer | None = None) -> tuple[devices.Device, ...]:
        """Return a device for each pack that can train at a time, at least one, the data's device first."""
        first = [self.device] * (self._room(self.device, optimizer) or 1)
        others = [place for place in dict.fromkeys(self.places) if place != self.device]
        return (*first, *(place for place in others for _ in range(self._room(place, optimizer))))

    def plan(
        self,
        todo: Mapping[int, Sequence[Cell]],
        max_lanes: int | None = None,
        optimizer: Optimizer | None = None,
    ) -> list[Pack]:
        """Divide the cells to do of every seed into packs. Raises DeviceError if not one lane fits."""
        slots = self.slots(optimizer)
        share = math.ceil(sum(map(len, todo.values())) / len(slots))
        return plan(todo, min(share, self._lanes_of_pack(slots, max_lanes, optimizer)), len(slots))

    def train(
        self, optimizer: Optimizer, packs: Sequence[Pack], should_stop: Callable[[], bool] = lambda: False
    ) -> Generator[Event, None, None]:
        """Train the packs and yield their events. Raises Stopped when asked to stop.

        A lost pack is trained again in halves. A single lane fails without room, or at its third attempt.
        """
        waiting = deque((pack, 1) for pack in packs)  # with the number of the attempt
        running: dict[Pack, int] = {}
        executor = self._open(self.slots(optimizer)[: len(packs)])
        try:
            while waiting or running:
                if should_stop():
                    raise Stopped
                try:
                    while waiting and executor.free:
                        executor.submit(
                            Job(optimizer, self.task, waiting[0][0], checkpoints=self.checkpoints)
                        )
                        running.update([waiting.popleft()])
                    events = executor.events()
                except OSError as error:
                    if executor is not self.processes:
                        raise
                    waiting.extend(running.items())
                    running.clear()
                    executor.cancel()
                    executor, events = self._threads(brief(error)), []
                for event in events:
                    if not isinstance(event, PackLost):
                        yield event
                    if isinstance(event, EpochDone | ClusterState):
                        continue
                    attempt = running.pop(event.pack)
                    if isinstance(event, PackLost):
                        parts, number = _again(event, attempt)
                        yield replace(event, parts=parts or (event.pack,))
                        waiting.extendleft((part, number) for part in parts)
                        if not parts:
                            yield PackDone(event.pack, [_failed(event)])
        finally:
            executor.cancel()
            if isinstance(executor, Threads):
                executor.close()

    def _open(self, slots: Sequence[devices.Device]) -> Executor:
        """Open threads for native lanes on a CPU and for a lone slot, else processes, if those can be had.

        A kind that the user asked for is opened instead.
        """
        on_cpu = self.device.type == "cpu"
        native = network(self.task).stacked and self.task.engine != "vmap"
        room = devices.free_bytes(devices.choose("cpu")) // PROCESS
        wanted = len(slots) > 1 and not (on_cpu and native) and room > 1 and self.kind != "threads"
        if wanted or self.kind == "processes":
            try:
                self.processes.prepare(slots[: max(room, 1)], self.splits)
            except OSError as error:
                return self._threads(brief(error))
            return self.processes
        return Threads(len(slots) if on_cpu else 1, self.splits)

    def _threads(self, why: str) -> Threads:
        """Open threads in place of processes that cannot be started."""
        _log.info("no further process could be started (%s); lanes train in this one, which is slower", why)
        return Threads(self.places.count(self.device), self.splits)

    def _room(self, place: devices.Device, optimizer: Optimizer | None = None) -> int:
        """Count the packs of one lane that a device has room for, of those that train on it at most."""
        workers = self.places.count(place)
        return workers_that_fit(self.task, device=place, workers=workers, optimizer=optimizer)

    def _lanes_of_pack(
        self, slots: Sequence[devices.Device], max_lanes: int | None, optimizer: Optimizer | None
    ) -> int:
        """Count the lanes of a pack that every slot has room for."""
        return min(
            lanes_that_fit(
                self.task, device=place, workers=slots.count(place), max_lanes=max_lanes, optimizer=optimizer
            )
            for place in set(slots)
        )


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


def _again(event: PackLost, attempt: int) -> tuple[tuple[Pack, ...], int]:
    """Return the packs that replace a lost one, with the number of their attempt; none if it failed."""
    if event.whole and attempt < ATTEMPTS:
        return (event.pack,), attempt + 1
    if len(event.pack.cells) > 1:
        return tuple(event.pack.halves()), 1 if event.whole else attempt + 1
    if attempt < ATTEMPTS and not event.out_of_memory:
        return (event.pack,), attempt + 1
    return (), attempt


def _failed(event: PackLost) -> Trial:
    (cell,) = event.pack.cells
    return Trial(cell, event.pack.seed, Status.FAILED, detail=event.reason)


def plan(todo: Mapping[int, Sequence[Cell]], lanes: int, slots: int = 1) -> list[Pack]:
    """Divide each seed's cells into as few packs of at most `lanes` as possible, the largest first.

    The last packs are halved if some slots would wait for others that train a whole pack.
    """
    packs = []
    for seed, cells in todo.items():
        count = math.ceil(len(cells) / lanes)
        bounds = [len(cells) * k // count for k in range(count + 1)]
        packs += [Pack(tuple(cells[low:high]), seed) for low, high in pairwise(bounds)]
    plans = [_halved(packs, count) for count in range(min(slots, len(packs)) + 1)]
    return min(plans, key=lambda plan: _time(plan, slots))


def _halved(packs: Sequence[Pack], count: int) -> list[Pack]:
    """Split the last `count` packs in two; order all by size, the largest first."""
    kept = len(packs) - count
    halves = [half for pack in packs[kept:] for half in pack.halves()]
    return sorted([*packs[:kept], *halves], key=lambda pack: -len(pack.cells))


def _time(packs: Sequence[Pack], slots: int) -> int:
    """Compute the time of the busiest slot, in lanes, if each takes the next pack when it is free."""
    loads = [0] * slots
    for pack in packs:
        heappush(loads, heappop(loads) + len(pack.cells) + OVERHEAD)
    return max(loads)


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """The time of studies that train one after another, from empty."""

    seconds: float
    whole: bool  # measured on packs as they would train; else extrapolated from smaller ones


def estimate(
    specs: Sequence[StudySpec],
    seconds: float = ESTIMATE_SECONDS,
    *,
    lanes: Sequence[int] | None = None,  # to train of each study; None: all
    device: str = "auto",
    max_lanes: int | None = None,
) -> TimeEstimate:
    """Measure for about `seconds` and add up. Raises DeviceError when a study has no room."""
    lanes = lanes or [len(spec.lattice) * len(spec.seeds) for spec in specs]
    kinds: dict[tuple[object, ...], list[int]] = {}  # studies whose steps cost the same
    for k, spec in enumerate(specs):
        kinds.setdefault((spec.optimizer.family, *_step(_task(spec))), []).append(k)
    place, total, whole = devices.choose(device), 0.0, True
    devices.prepare(place)
    gpus = len(devices.places(device)) if place.type == "cuda" else 1
    for alike in kinds.values():
        first = specs[alike[0]]
        task = chosen(_task(first), place)
        most = max(lanes[k] for k in alike)
        speed = measure(first.optimizer, task, most, seconds / len(kinds), device, max_lanes)
        total += sum(lanes[k] * speed.seconds(_task(specs[k])) for k in alike) / gpus
        whole = whole and speed.whole
    return TimeEstimate(total, whole)


def _task(spec: StudySpec) -> Task:
    assert spec.task is not None, "an imported study does not train"
    return spec.task


def _step(task: Task) -> tuple[object, ...]:
    """Return the settings on which the cost of one step depends."""
    t = task
    sizes = t.data_set, t.batch_size, t.accumulate
    return t.net, t.net_options, t.loss, *sizes, t.precision, t.train, bool(t.sam), t.ema is None
