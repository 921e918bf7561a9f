"""Train the studies of specifications into a store; torch is loaded only if a lane is missing."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import counted, in_patterns
from lrwd_sweep.runner.signals import Interrupted, stop_on_signals
from lrwd_sweep.science.trial import unfinished
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.job import Stopped, Unwatched, Watcher
from lrwd_sweep.spec.study import StudySpec, labels
from lrwd_sweep.spec.task import Task
from lrwd_sweep.spec.user_code import is_user_code

if TYPE_CHECKING:
    from lrwd_sweep.runner.execution import Execution
    from lrwd_sweep.runner.executors.commands import CommandExecution
    from lrwd_sweep.runner.executors.processes import Processes
    from lrwd_sweep.store import Store


class Runner:
    """A trainer of studies into a store, on a device; unless `quiet`, it reports to stderr."""

    def __init__(
        self,
        store: Store,
        device: str,
        max_lanes: int | None,
        files: DataFiles,
        quiet: bool = False,
        retrain_damaged: bool = False,  # else a damaged lane is refused
    ) -> None:
        self.store, self.device, self.max_lanes, self.files = store, device, max_lanes, files
        self.quiet, self.retrain_damaged = quiet, retrain_damaged
        self._processes: Processes | None = None  # warm from one study to the next

    def grid(self, name: str, spec: StudySpec) -> None:
        """Train the missing lanes of the lattice. Raises Interrupted after a signal."""
        with self._processes_closed():
            self._grid(name, spec)

    def compare(self, specs: Mapping[str, StudySpec]) -> None:
        """Train several studies, by name, and store that they are compared, also if interrupted.

        Raises SpecMismatch before any of them trains, Interrupted after a signal.
        """
        for name, spec in specs.items():
            self.store.check_study(name, spec)
        with self._processes_closed():
            for (name, spec), title in zip(specs.items(), labels(list(specs.values())), strict=True):
                self._grid(name, spec, title, specs)
        self.store.record_comparison(list(specs))

    def tpe(self, name: str, spec: StudySpec, points: int) -> None:
        """Search until there are `points` points. Raises Interrupted after a signal."""
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
        with self._processes_closed():
            self._train(name, spec, points)

    def _grid(
        self, name: str, spec: StudySpec, title: str = "", together: Mapping[str, StudySpec] | None = None
    ) -> None:
        """Train the missing lanes, and report under this title; `together` is the study's comparison."""
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

    def _train(
        self,
        name: str,
        spec: StudySpec,
        points: int | None,
        title: str = "",
        together: Mapping[str, StudySpec] | None = None,
    ) -> None:
        """Train a lattice, or search until there are `points` points."""
        if spec.command is not None:
            self._run(name, spec, points, title, together or {})
            return
        from lrwd_sweep.engine.device import threads_kept
        from lrwd_sweep.runner.execution import Execution
        from lrwd_sweep.runner.executors.processes import Processes

        assert spec.task is not None, "an imported study does not train"
        begun = self.store.find_study(name)
        task = spec.task if begun is None else spec.task.resuming(begun.spec.task)
        self._processes = self._processes or Processes()
        told = nullcontext() if self.quiet else consoles.logged("lrwd_sweep")
        with threads_kept(), redirect_stdout(sys.stderr), told:  # a user's network may print
            files = replace(self.files, quiet=self.quiet)
            execution = Execution(task, self.device, files, self._processes)
            self._report_idle(execution, spec)
            tensors = self._tensors(execution)
            self.store.begin_study(name, replace(spec, task=replace(execution.task, tensors=tensors)))
            self._begin_others(together or {})
            self._loop(name, spec, execution, points, title)

    def _run(
        self, name: str, spec: StudySpec, points: int | None, title: str, together: Mapping[str, StudySpec]
    ) -> None:
        """Run a command of the user for a lattice or a search; without a result the study is not kept."""
        assert spec.command is not None, "a task trains in the engine"
        from lrwd_sweep.runner.executors.commands import (
            CommandExecution,
            FirstRunFailed,
            NothingRead,
            run_folder,
        )

        place = {"device": self.device != "auto", "max_lanes": self.max_lanes is not None}
        place |= {"data_dir": self.files.folder is not None, "download": self.files.download}
        for option in (option for option, given in place.items() if given):
            raise UsageError(f"{arg(option)} has no effect with {arg(spec.command.option)}; leave it out")
        new = [each for each in (name, *together) if self.store.find_study(each) is None]
        finished = set() if name in new else self.store.finished(name)
        cells = spec.lattice.cells() if points is None else [None] * points
        runs = len(list(cells)) * len(spec.seeds) - len(finished)
        folder = run_folder(self.store.path, name)
        execution = CommandExecution(spec, folder, first=not finished, runs=runs, tell=self._tell)
        self.store.begin_study(name, spec)
        self._begin_others(together)
        try:
            self._loop(name, spec, execution, points, title)
        except (FirstRunFailed, NothingRead):
            for each in new:
                if not self.store.count_lanes(each):
                    self.store.delete_study(each)
            raise

    def _loop(
        self,
        name: str,
        spec: StudySpec,
        execution: Execution | CommandExecution,
        points: int | None,
        title: str,
    ) -> None:
        """Train what is missing, under the eyes of the progress view. Raises Interrupted after a signal."""
        from lrwd_sweep.runner.study_loop import StudyLoop

        _collect_garbage()
        with stop_on_signals() as stop, self._progress(name, spec, title) as progress:
            loop = StudyLoop(name, spec, self.store, execution, progress, self.max_lanes, stop)
            try:
                if points is None:
                    loop.grid()
                else:
                    loop.tpe(points)
            except Stopped:
                raise Interrupted(stop.signal) from None

    def _tell(self, text: str) -> None:
        if not self.quiet:
            consoles.note(text)

    @contextmanager
    def _processes_closed(self) -> Iterator[None]:
        """Close the processes afterwards."""
        try:
            yield
        finally:
            if self._processes is not None:
                self._processes.close()
                self._processes = None

    def _drop_damaged(self, name: str) -> None:
        """Delete damaged lanes, if that was asked for, so that they train again; report their number."""
        if self.retrain_damaged and (dropped := self.store.drop_damaged(name)) and not self.quiet:
            consoles.note(f"{name}: dropped {counted(dropped, 'damaged lane')}")

    def _begin_others(self, together: Mapping[str, StudySpec]) -> None:
        """Store the comparison's studies, so that an interrupted comparison is reported as one."""
        for name, spec in together.items():
            if self.store.find_study(name) is None:
                self.store.begin_study(name, spec)
        if together:
            self.store.record_comparison(list(together))

    def _report_idle(self, execution: Execution, spec: StudySpec) -> None:
        """Report cores or GPUs that stay idle because memory is short."""
        slots, places = len(execution.slots(spec.optimizer)), len(execution.places)
        if slots < places and not self.quiet:
            lanes = f"{counted(slots, 'lane')} of {execution.task.net}"
            what = "cores" if execution.device.type == "cpu" else "GPUs"
            idle = f"{places - slots} of {places} {what} stay idle"
            consoles.note(f"there is memory for {lanes} at a time", idle)

    def _tensors(self, execution: Execution) -> str:
        """Describe the parameters that decay; report it if some do not."""
        from lrwd_sweep.nets import decaying

        found = decaying(execution.task)
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


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have, before anything is opened or stored."""
    if name not in ("auto", "cpu"):
        from lrwd_sweep.engine.device import choose

        choose(name)


def _collect_garbage() -> None:
    """Re-enable garbage collection; exempt the objects created during start-up."""
    if not gc.isenabled():
        gc.freeze()
        atexit.register(_thaw)
        gc.enable()


def _thaw() -> None:
    """Let the interpreter free exempt objects at exit: Triton would report them as leaks on stderr."""
    if "triton" in sys.modules:
        gc.unfreeze()


def complete(task: Task, *, anew: bool = True) -> Task:
    """Add the sizes of user data, digests of user code, and the tensors that do not decay.

    User data is read again if `anew`. Raises UsageError, UnknownName or DataError.
    """
    if task.user_code:
        from lrwd_sweep.data import user_data  # slow to load

        task = user_data.completed(task, anew=anew)
    vectors = task.decay_all or not is_user_code(task.net)  # of our networks only they do not decay
    if task.no_decay or task.train or not vectors:
        from lrwd_sweep.nets import undecayed  # slow to load

        return replace(task, undecayed=undecayed(task))
    return replace(task, undecayed=())


def completion() -> Callable[[Task], Task]:
    """Return `complete` for one command: it reads each user data set once."""
    read: set[str] = set()

    def complete_once(task: Task) -> Task:
        found = complete(task, anew=task.data not in read)
        read.add(task.data)
        return found

    return complete_once
