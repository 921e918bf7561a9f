"""Trainer: from specifications to trained studies in a store. Loads torch only where there is work."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import counted, in_patterns
from lrwd_sweep.runner.signals import Interrupted, stop_on_signals
from lrwd_sweep.science.trial import unfinished
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.progress import Unwatched, Watcher
from lrwd_sweep.spec.study import StudySpec, labels

if TYPE_CHECKING:
    from lrwd_sweep.engine import Pool
    from lrwd_sweep.store import Store


@dataclass(frozen=True, slots=True)
class Trainer:
    """Where and how studies train; unless `quiet`, what happens is told on stderr."""

    store: Store
    device: str
    max_lanes: int | None
    files: DataFiles
    quiet: bool = False
    retrain_damaged: bool = False  # else a damaged lane is refused

    def grid(
        self, name: str, spec: StudySpec, title: str = "", together: Mapping[str, StudySpec] | None = None
    ) -> None:
        """Train what the lattice misses, and say so under this title; `together` is its comparison.

        Raises Interrupted after a signal.
        """
        if self.store.find_study(name) is not None:
            self.store.begin_study(name, spec)
            self._drop_damaged(name)
            cells = list(spec.lattice.cells())
            missing = sum(map(len, unfinished(cells, spec.seeds, self.store.finished(name)).values()))
            kept = len(cells) * len(spec.seeds) - missing
            if kept or not together:
                self._note(
                    f"{name}: {kept} of {len(cells) * len(spec.seeds)} lanes are in the store", missing
                )
            if not missing:
                return
        self._train(name, spec, None, title, together)

    def compare(self, specs: Mapping[str, StudySpec]) -> None:
        """Train several studies, by name, and remember that they are looked at together, also if interrupted.

        Raises SpecMismatch before any of them trains, Interrupted after a signal.
        """
        for name, spec in specs.items():
            self.store.check_study(name, spec)
        for (name, spec), title in zip(specs.items(), labels(list(specs.values())), strict=True):
            self.grid(name, spec, title, specs)
        self.store.record_comparison(list(specs))

    def tpe(self, name: str, spec: StudySpec, points: int) -> None:
        """Search until there are `points` points, and say so. Raises Interrupted after a signal."""
        if self.store.find_study(name) is not None:
            self.store.begin_study(name, spec)
            self._drop_damaged(name)
            finished = self.store.finished(name)
            cells = {trial.cell for trial in self.store.trials(name)}
            whole = sum(all((cell, seed) in finished for seed in spec.seeds) for cell in cells)
            seeds = f" with all {len(spec.seeds)} seeds" * (len(spec.seeds) > 1)
            self._note(f"{name}: {whole} of {points} points are in the store{seeds}", max(points - whole, 0))
            if whole >= points and whole == len(cells):
                return
        self._train(name, spec, points)

    def _drop_damaged(self, name: str) -> None:
        """Make damaged lanes missing ones, where that was asked for, and say so."""
        if self.retrain_damaged and (dropped := self.store.drop_damaged(name)) and not self.quiet:
            consoles.note(f"{name}: dropped {counted(dropped, 'damaged lane')}")

    def _train(
        self,
        name: str,
        spec: StudySpec,
        points: int | None,
        title: str = "",
        together: Mapping[str, StudySpec] | None = None,
    ) -> None:
        from lrwd_sweep.engine import Pool, Stopped
        from lrwd_sweep.engine.device import threads_kept
        from lrwd_sweep.runner.sweeping import Sweep

        assert spec.task is not None, "an imported study does not train"
        begun = self.store.find_study(name)
        task = spec.task if begun is None else spec.task.resuming(begun.spec.task)
        told = nullcontext() if self.quiet else consoles.logged("lrwd_sweep")
        with threads_kept(), redirect_stdout(sys.stderr), told:  # whatever somebody's network prints
            pool = Pool(task, self.device, files=replace(self.files, quiet=self.quiet))
            self._tell_idle(pool, spec)
            tensors = self._tensors(pool)
            self.store.begin_study(name, replace(spec, task=replace(pool.task, tensors=tensors)))
            self._begin_others(together or {})
            _collect_garbage()
            with stop_on_signals() as stop, self._progress(name, spec, title) as progress:
                sweep = Sweep(name, spec, self.store, pool, progress, self.max_lanes, stop)
                try:
                    if points is None:
                        sweep.grid()
                    else:
                        sweep.tpe(points)
                except Stopped:
                    raise Interrupted(stop.signal) from None

    def _begin_others(self, together: Mapping[str, StudySpec]) -> None:
        """Store what is compared, so that an interrupted comparison is reported as one."""
        for name, spec in together.items():
            if self.store.find_study(name) is None:
                self.store.begin_study(name, spec)
        if together:
            self.store.record_comparison(list(together))

    def _tell_idle(self, pool: Pool, spec: StudySpec) -> None:
        """Say so where memory keeps cores or GPUs from training."""
        seats, places = len(pool.seats_for(spec.optimizer)), len(pool.places)
        if seats < places and not self.quiet:
            lanes = f"{counted(seats, 'lane')} of {pool.task.net}"
            what = "cores" if pool.device.type == "cpu" else "GPUs"
            idle = f"{places - seats} of {places} {what} stay idle"
            consoles.note(f"there is memory for {lanes} at a time", idle)

    def _tensors(self, pool: Pool) -> str:
        """Which parameters decay, in words; where not all do, say so."""
        from lrwd_sweep.nets import decaying

        found = decaying(pool.task)
        rest = [name for name, decays in found.items() if not decays]
        acts = [name for name, decays in found.items() if decays]
        decay = f"{len(acts)} of {counted(len(found), 'tensor')} decay: {in_patterns(acts, rest)}"
        if not rest:
            return decay
        no_decay = f"without decay: {in_patterns(rest, acts)}"
        if not self.quiet:
            consoles.note(decay, no_decay)
        return f"{decay}; {no_decay}"

    def _progress(self, name: str, spec: StudySpec, title: str) -> AbstractContextManager[Watcher]:
        if self.quiet:
            return nullcontext(Unwatched())
        from lrwd_sweep.report.view.live import Progress

        return Progress(consoles.stderr(), spec, self.store.trials(name), title)

    def _note(self, found: str, missing: int) -> None:
        if not self.quiet:
            left = f"training the {missing} that are missing" if missing else "nothing to train"
            consoles.note(found, left)


def _collect_garbage() -> None:
    """From now on, if nobody has so far; what is there by now stays."""
    if not gc.isenabled():
        gc.freeze()
        atexit.register(_thaw)
        gc.enable()


def _thaw() -> None:
    """Let the interpreter clear away what is frozen as it ends, for a second, where somebody minds.

    Triton, which torch loads for modules, calls what is left of it leaks, in forty lines on stderr.
    """
    if "triton" in sys.modules:
        gc.unfreeze()


def check_device(name: str) -> None:
    """Refuse a device that is not there before anything is opened or stored."""
    if name not in ("auto", "cpu"):
        from lrwd_sweep.engine.device import choose

        choose(name)
