"""The story in one page: spec → cells to do → packs → engine → store, with progress."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lrwd_sweep.engine import Pool
from lrwd_sweep.runner.sampler import grid_cells, propose_cells
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import unfinished
from lrwd_sweep.spec.progress import Pack, PackDone, Watcher
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import Store

_log = logging.getLogger(__name__)

MIN_ROUNDS = 4  # of a TPE search: in fewer it would be a random search


@dataclass(frozen=True, slots=True)
class Sweep:
    """One study being trained: its spec under its name, the store, the device's pool, and who looks on."""

    name: str
    spec: StudySpec
    store: Store
    pool: Pool
    watcher: Watcher
    max_lanes: int | None = None
    should_stop: Callable[[], bool] = lambda: False

    def grid(self) -> None:
        """Train every lane of the lattice that is not finished. Raises Stopped when asked to stop."""
        self._train(grid_cells(self.spec.lattice))

    def tpe(self, points: int) -> None:
        """Search on until there are `points` points, in rounds that fill the device. Raises Stopped."""
        room = self.pool.lanes_at_once(self.max_lanes, self.spec.optimizer) // len(self.spec.seeds)
        batch = max(1, min(room, math.ceil(points / MIN_ROUNDS)))
        while True:
            trials = self.store.trials(self.name)
            known = list(dict.fromkeys(trial.cell for trial in trials))
            self._train(known)  # points that an interruption left without some of their seeds
            if len(known) >= points:
                return
            trials = self.store.trials(self.name)
            count = min(batch, points - len(known))
            self._train(
                propose_cells(
                    self.spec.lattice, trials, count, seeds=self.spec.seeds, metric=self.spec.metric
                )
            )

    def _train(self, cells: Sequence[Cell]) -> None:
        """Train what is missing of these cells, beside other processes that do the same."""
        overtaken = False
        while todo := unfinished(cells, self.spec.seeds, self.store.finished(self.name)):
            packs = self.pool.plan(todo, self.max_lanes, self.spec.optimizer)
            if overtaken:  # begin where the other process ends
                packs = packs[::-1]
            overtaken = self._train_packs(packs)
            if not overtaken:
                return

    def _train_packs(self, packs: Sequence[Pack]) -> bool:
        """Train and store the packs; True as soon as another process has stored lanes of one of them."""
        self.watcher.begin(packs)
        for event in self.pool.train(self.spec.optimizer, packs, self.should_stop):
            kept = []
            if isinstance(event, PackDone):
                kept = self.store.add_trials(self.name, event.trials, self.spec)
            self.watcher.happened(event)
            if kept:
                _log.info(
                    "another process trains %s too: what it has stored is kept, this one goes on with what "
                    "is missing",
                    self.name,
                )
                return True
        return False
