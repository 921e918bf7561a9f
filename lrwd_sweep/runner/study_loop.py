"""The loop that trains a study: cells to do → packs → jobs → events → one transaction per finished pack."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from lrwd_sweep.report.result import round_of
from lrwd_sweep.runner.sampler import enqueued_cells, grid_cells, propose_cells
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import unfinished
from lrwd_sweep.spec.job import WHOLE, Pack, PackDone, PackLost, Shard, Watcher
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import Store

if TYPE_CHECKING:
    from lrwd_sweep.runner.execution import Execution
    from lrwd_sweep.runner.executors.commands import CommandExecution

_log = logging.getLogger(__name__)

MIN_ROUNDS = 4  # of a TPE search: in fewer it would be a random search


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
        self._train(self._all_seeds(grid_cells(self.spec.lattice)))

    def refine(self) -> None:
        """Train the lanes that the verdict needs, in rounds, until it is determined. Raises Stopped.

        A round of which lanes fail is the last one; the next run tries them again.
        """
        before: dict[int, list[Cell]] = {}
        while (lanes := round_of(self.spec, self.store.trials(self.name))) and lanes != before:
            self._train({seed: enqueued_cells(self.spec.lattice, cells) for seed, cells in lanes.items()})
            before = lanes

    def tpe(self, points: int) -> None:
        """Search until there are `points` points, in rounds that fill the device. Raises Stopped."""
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
    from lrwd_sweep.engine import checkpoint  # noqa: PLC0415

    return checkpoint


def batch_of(room: int, points: int, spec: StudySpec) -> int:
    """Count the points of one round of a search, if `room` lanes train at a time."""
    return max(1, min(room // len(spec.seeds), math.ceil(points / MIN_ROUNDS)))


def _without(todo: Mapping[int, Sequence[Cell]], packs: Sequence[Pack]) -> dict[int, list[Cell]]:
    """Return the cells of every seed that are in none of the packs."""
    planned = {(cell, pack.seed) for pack in packs for cell in pack.cells}
    rest = {seed: [cell for cell in cells if (cell, seed) not in planned] for seed, cells in todo.items()}
    return {seed: cells for seed, cells in rest.items() if cells}
