"""The loop that trains a study: cells to do → packs → jobs → events → one transaction per finished pack."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrwd_sweep.runner.sampler import grid_cells, propose_cells
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import unfinished
from lrwd_sweep.spec.job import Pack, PackDone, PackLost, Watcher
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

    def grid(self) -> None:
        """Train every lane of the lattice that is not finished. Raises Stopped when asked to stop."""
        self._train(grid_cells(self.spec.lattice))

    def tpe(self, points: int) -> None:
        """Search until there are `points` points, in rounds that fill the device. Raises Stopped."""
        spec = self.spec
        room = self.execution.lanes_at_once(self.max_lanes, spec.optimizer) // len(spec.seeds)
        batch = max(1, min(room, math.ceil(points / MIN_ROUNDS)))
        while True:
            known = list(dict.fromkeys(trial.cell for trial in self.store.trials(self.name)))
            self._train(known)  # points that an interruption left without some of their seeds
            if len(known) >= points:
                return
            trials, count = self.store.trials(self.name), min(batch, points - len(known))
            cells = propose_cells(
                spec.lattice, trials, count, seeds=spec.seeds, metric=spec.metric, direction=spec.direction
            )
            self._train(cells)

    def _train(self, cells: Sequence[Cell]) -> None:
        """Train the missing lanes of these cells, also while other processes train the same study."""
        overtaken = False
        while todo := unfinished(cells, self.spec.seeds, self.store.finished(self.name)):
            packs = self.execution.plan(todo, self.max_lanes, self.spec.optimizer)
            if overtaken:  # begin where the other process ends
                packs = packs[::-1]
            overtaken = self._train_packs(packs)
            if not overtaken:
                return

    def _train_packs(self, packs: Sequence[Pack]) -> bool:
        """Train and store the packs; return True once another process has stored lanes of one of them."""
        self.watcher.begin(packs)
        left = list(packs)
        with closing(self.execution.train(self.spec.optimizer, packs, self.should_stop)) as events:
            for event in events:
                if isinstance(event, PackLost):
                    left = [pack for pack in left if pack != event.pack] + event.pack.halves()
                    self.watcher.begin(left)
                    continue
                kept = []
                if isinstance(event, PackDone):
                    kept = self.store.add_trials(self.name, event.trials, self.spec)
                    left.remove(event.pack)
                self.watcher.happened(event)
                if kept:
                    _log.info(
                        "another process trains %s too: its stored lanes are kept, this process trains the "
                        "missing ones",
                        self.name,
                    )
                    return True
        return False
