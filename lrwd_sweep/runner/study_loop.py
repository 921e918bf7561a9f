"""The loop that trains a study: cells to do → packs → jobs → events → one transaction per finished pack.

Imported before torch, Optuna and the store are: a command says what it begins at once.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, unfinished
from lrwd_sweep.spec.job import WHOLE, Pack, PackDone, PackLost, Shard, Watcher
from lrwd_sweep.spec.study import StudySpec

if TYPE_CHECKING:
    from lrwd_sweep.runner.execution import Execution, TimeEstimate
    from lrwd_sweep.runner.executors.commands import CommandExecution
    from lrwd_sweep.spec.job import DataFiles
    from lrwd_sweep.store import Store

_log = logging.getLogger(__name__)

SECONDS = 4.0  # for the measurements of a forecast
MIN_ROUNDS = 4  # of a TPE search: in fewer it would be a random search


@dataclass(frozen=True, slots=True)
class Missing:
    """The runs that a store lacks of a study."""

    todo: Mapping[int, Sequence[Cell]]  # cells to train, by seed
    further: int = 0  # points that a search has yet to propose
    seeds: int = 1
    whole: int = 0  # known points with all their seeds
    stored: int | None = None  # ended lanes of a refined lattice, of which `todo` is the next round

    @property
    def runs(self) -> int:
        """The number of runs to train."""
        return sum(map(len, self.todo.values())) + self.further * self.seeds


def missing(
    store: Store | None, name: str, spec: StudySpec, points: int | None = None, shard: Shard = WHOLE
) -> Missing:
    """Find the missing lanes of a lattice, or of a search of `points` points; None is an empty store."""
    if store is not None and store.find_study(name) is None:
        store = None
    if spec.refine is not None:
        from lrwd_sweep.report.result import round_of

        trials = [] if store is None else store.trials(name)
        ended = sum(trial.status is not Status.FAILED for trial in trials)
        return Missing(round_of(spec, trials), seeds=len(spec.seeds), stored=ended)
    finished = set() if store is None else store.finished(name)
    cells = list(spec.lattice.cells())
    if points is not None:
        cells = [] if store is None else list(dict.fromkeys(trial.cell for trial in store.trials(name)))
    todo = shard.among(unfinished(cells, spec.seeds, finished))
    further = 0 if points is None else max(points - len(cells), 0)
    partly = {cell for left in todo.values() for cell in left}
    return Missing(todo, further, len(spec.seeds), len(cells) - len(partly))


def runs(spec: StudySpec, points: int | None = None, shard: Shard = WHOLE) -> int:
    """Count the runs of a lattice, or of a search of `points` points; of a refined lattice the most."""
    if spec.refine is not None and spec.refine.max_runs is not None:
        return min(spec.refine.max_runs, shard.count(spec.lattice, spec.seeds))
    return shard.count(spec.lattice, spec.seeds) if points is None else points * len(spec.seeds)


@dataclass(frozen=True, slots=True)
class StudyLoop:
    """One study in training: its spec under its name, the store, where packs train, and a watcher."""

    name: str
    spec: StudySpec
    store: Store
    execution: Execution | CommandExecution
    watcher: Watcher
    max_lanes: int | None = None
    should_stop: Callable[[], bool] = lambda: False
    shard: Shard = WHOLE  # the lanes of a lattice to train

    def grid(self) -> None:
        """Train every lane of the lattice that is not finished. Raises Stopped when asked to stop."""
        from lrwd_sweep.runner.sampler import grid_cells

        self._train(self._all_seeds(grid_cells(self.spec.lattice)))

    def refine(self) -> None:
        """Train the lanes that the verdict needs, in rounds, until it is determined. Raises Stopped.

        A round of which lanes fail is the last one; the next run tries them again.
        """
        from lrwd_sweep.report.result import round_of
        from lrwd_sweep.runner.sampler import grid_cells

        before: dict[int, list[Cell]] = {}
        while (lanes := round_of(self.spec, self.store.trials(self.name))) and lanes != before:
            self._train({seed: grid_cells(self.spec.lattice, cells) for seed, cells in lanes.items()})
            before = lanes

    def tpe(self, points: int) -> None:
        """Search until there are `points` points, in rounds that fill the device. Raises Stopped."""
        from lrwd_sweep.runner.sampler import propose_cells

        spec = self.spec
        batch = batch_of(self.execution.lanes_at_once(self.max_lanes, spec.optimizer), points, spec)
        while True:
            stored = [trial.cell for trial in self.store.trials(self.name)]
            known = list(dict.fromkeys([*stored, *self._begun_cells()]))
            self._train(self._all_seeds(known))  # an interruption may have left some without a seed
            if len(known) >= points:
                return
            trials, count = self.store.trials(self.name), min(batch, points - len(known))
            cells = propose_cells(
                spec.lattice, trials, count, seeds=spec.seeds, metric=spec.metric, direction=spec.direction
            )
            self._train(self._all_seeds(cells))

    def _all_seeds(self, cells: Sequence[Cell]) -> dict[int, Sequence[Cell]]:
        return dict.fromkeys(self.spec.seeds, cells)

    def _train(self, lanes: Mapping[int, Sequence[Cell]]) -> None:
        """Train what is missing of lanes, cells by seed, also while other processes train the same study."""
        overtaken = False
        while todo := self.shard.among(every := self._unfinished(lanes)):
            packs = self._begun(todo, every)
            if rest := _without(todo, packs):
                packs += self.execution.plan(rest, self.max_lanes, self.spec.optimizer)
            if overtaken:  # begin where the other process ends
                packs = packs[::-1]
            overtaken = self._train_packs(packs)
            if not overtaken:
                break
        if self.shard.parts == 1:
            self.store.delete_checkpoints(self.name)  # those of packs that ended in halves
        elif (place := self.execution.checkpoints) is not None:
            _checkpoint().delete_finished(place, self._unfinished(lanes))

    def _unfinished(self, lanes: Mapping[int, Sequence[Cell]]) -> dict[int, list[Cell]]:
        finished = self.store.finished(self.name)
        found: dict[int, list[Cell]] = {}
        for seed, cells in lanes.items():
            found |= unfinished(cells, [seed], finished)
        return found

    def _begun_cells(self) -> list[Cell]:
        """Return the cells of packs that have a checkpoint."""
        if (place := self.execution.checkpoints) is None:
            return []
        every = {found.pack for found in _checkpoint().find(place)}
        return [cell for pack in sorted(every, key=repr) for cell in pack.cells]

    def _begun(self, todo: Mapping[int, Sequence[Cell]], every: Mapping[int, Sequence[Cell]]) -> list[Pack]:
        """Return the packs to do that have a checkpoint; delete checkpoints unless `every` has lanes of them.

        `every` holds the unfinished cells, of other shards too: the store may be theirs as well.
        """
        if (place := self.execution.checkpoints) is None:
            return []
        _checkpoint().delete_finished(place, every)
        packs: list[Pack] = _checkpoint().begun_packs(place, todo)
        if lanes := sum(len(pack.cells) for pack in packs):
            _log.info("%d of the lanes continue from a checkpoint", lanes)
        return packs

    def _train_packs(self, packs: Sequence[Pack]) -> bool:
        """Train and store the packs; return True once another process has stored lanes of one of them."""
        self.watcher.begin(packs)
        left, since = list(packs), time.monotonic()
        with closing(self.execution.train(self.spec.optimizer, packs, self.should_stop)) as events:
            for event in events:
                if isinstance(event, PackLost):
                    left = [pack for pack in left if pack != event.pack] + list(event.parts)
                    self.watcher.begin(left)
                    continue
                kept = []
                if isinstance(event, PackDone):
                    now = time.monotonic()
                    kept = self.store.add_trials(self.name, event.trials, self.spec, now - since)
                    since = now
                    left.remove(event.pack)
                    if self.execution.checkpoints is not None:
                        _checkpoint().delete_of(self.execution.checkpoints, event.pack)
                self.watcher.happened(event)
                if kept:
                    _log.info(
                        "another process trains %s too: its stored lanes are kept, this process trains the "
                        "missing ones",
                        self.name,
                    )
                    return True
        return False


def _checkpoint() -> ModuleType:
    """Return the module of checkpoints, which loads torch; commands have none."""
    from lrwd_sweep.engine import checkpoint

    return checkpoint


def batch_of(room: int, points: int, spec: StudySpec) -> int:
    """Count the points of one round of a search, if `room` lanes train at a time."""
    return max(1, min(room // len(spec.seeds), math.ceil(points / MIN_ROUNDS)))


def _without(todo: Mapping[int, Sequence[Cell]], packs: Sequence[Pack]) -> dict[int, list[Cell]]:
    """Return the cells of every seed that are in none of the packs."""
    planned = {(cell, pack.seed) for pack in packs for cell in pack.cells}
    rest = {seed: [cell for cell in cells if (cell, seed) not in planned] for seed, cells in todo.items()}
    return {seed: cells for seed, cells in rest.items() if cells}


@dataclass(frozen=True, slots=True)
class Forecast:
    """The packs, memory and time that the new runs of a command take on this machine."""

    packs: int  # at once
    lanes: int  # of a pack
    bytes: int  # of a pack
    free: int  # bytes of memory
    time: TimeEstimate


def forecast(
    specs: Mapping[str, StudySpec],
    new: Mapping[str, int],  # runs to train of each study, at least one
    store: Store | None,
    device: str,
    max_lanes: int | None,
    files: DataFiles,
    points: int | None = None,
) -> Forecast:
    """Load what a command would load, and measure for a few seconds; nothing is stored.

    Raises what the command would raise before it trains.
    """
    from lrwd_sweep.engine.cost import pack_bytes
    from lrwd_sweep.engine.device import free_bytes, threads_kept
    from lrwd_sweep.runner.execution import Execution, estimate

    known, packs = [], []
    with threads_kept():
        for name, spec in specs.items():
            begun = None if store is None else store.find_study(name)
            assert spec.task is not None, "an imported study does not train"
            task = spec.task.resuming(None if begun is None else begun.spec.task)
            execution = Execution(task, device, files, dry=True)
            known.append(replace(spec, task=execution.task))
            slots = len(execution.slots(spec.optimizer))
            room = execution.lanes_at_once(max_lanes, spec.optimizer)
            left = new[name]
            if points is not None:
                left = min(left, batch_of(room, points, spec) * len(spec.seeds))
            lanes = min(room // slots, math.ceil(left / slots))
            needed = pack_bytes(execution.task, lanes, execution.device, spec.optimizer)
            packs.append((min(slots, math.ceil(left / lanes)), lanes, needed))
        free = free_bytes(execution.device)
        every = [new[name] for name in specs]
        time = estimate(known, SECONDS, lanes=every, device=device, max_lanes=max_lanes)
    at_once, lanes, needed = (max(column) for column in zip(*packs, strict=True))
    return Forecast(at_once, lanes, needed, free, time)
