"""Train the studies of specifications into a store; torch is loaded only if a lane is missing."""

from __future__ import annotations

import atexit
import gc
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import counted
from lrwd_sweep.runner.forecast import missing, runs, told
from lrwd_sweep.runner.head import prepare_ray, refuse_elsewhere
from lrwd_sweep.runner.signals import Interrupted, handlers_kept, on_suspension, stop_on_signals
from lrwd_sweep.runner.spool import check_folder, store_packs, study_key
from lrwd_sweep.spec.job import (
    AUTO,
    CHECKPOINT_SECONDS,
    WHOLE,
    CheckpointPlace,
    DataFiles,
    ExecutorChoice,
    Shard,
    Stopped,
    Unwatched,
    Watcher,
    short_digest,
)
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task
from lrwd_sweep.spec.user_code import is_user_code

if TYPE_CHECKING:
    from lrwd_sweep.runner.execution import Execution
    from lrwd_sweep.runner.executors.commands import CommandExecution
    from lrwd_sweep.runner.executors.processes import Processes
    from lrwd_sweep.runner.executors.ray import RayCluster
    from lrwd_sweep.science.trial import Trial
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
        checkpoint_every: float = CHECKPOINT_SECONDS,  # of training; 0: no checkpoints
        announced: bool = False,  # a line has said what is to be trained
        choice: ExecutorChoice = AUTO,
        shard: Shard | None = None,  # of the lanes of lattices; None: all
    ) -> None:
        self.store, self.device, self.max_lanes, self.files = store, device, max_lanes, files
        self.quiet, self.retrain_damaged = quiet, retrain_damaged
        self.checkpoint_every, self.announced = checkpoint_every, announced
        self.choice = replace(choice, spool=choice.spool and os.path.abspath(choice.spool))
        self.shard, self.part = shard, shard or WHOLE
        self._processes: Processes | None = None  # warm from one study to the next
        self._cluster: RayCluster | None = None  # likewise

    def grid(self, name: str, spec: StudySpec) -> None:
        """Train the missing lanes of the lattice. Raises Interrupted after a signal."""
        self._train_missing({name: spec})

    def compare(self, specs: Mapping[str, StudySpec]) -> None:
        """Train several studies, by name, and store that they are compared, also if interrupted.

        Raises SpecMismatch before any of them trains, Interrupted after a signal.
        """
        for name, spec in specs.items():
            self.store.check_study(name, spec)
        self._train_missing(specs, compared=True)
        self.store.record_comparison(list(specs))

    def tpe(self, name: str, spec: StudySpec, points: int) -> None:
        """Search until there are `points` points. Raises Interrupted after a signal."""
        self._train_missing({name: spec}, points)

    def _train_missing(
        self, specs: Mapping[str, StudySpec], points: int | None = None, *, compared: bool = False
    ) -> None:
        """Train the missing lanes of lattices, or of a search of `points` points, one after another."""
        check_place(
            specs.values(), self.device, self.max_lanes, self.files, self.checkpoint_every, self.choice
        )
        if not self.announced and not self.quiet:
            consoles.note(told(list(specs.values()), self.choice.place(self.device), points, self.shard))
        names = [name for name, spec in specs.items() if self._is_missing(name, spec, points, compared)]
        if not names:
            return
        with self._processes_closed(), self._watched(specs, points) as watcher:
            for name in names:
                self._train(name, specs[name], watcher(name), points, specs if compared else {})

    def _is_missing(self, name: str, spec: StudySpec, points: int | None, compared: bool) -> bool:
        """Extend a stored study to `spec` and report what it holds; return True if runs are missing."""
        if self.store.find_study(name) is None and runs(spec, points, self.part):
            return True
        self.store.begin_study(name, spec)
        self._drop_damaged(name)
        found, every = missing(self.store, name, spec, points, self.part), runs(spec, points, self.part)
        if found.stored is not None:
            next_ = f"training the next {found.runs}" if found.runs else "nothing to train"
            self._tell(f"{name}: {counted(found.stored, 'run')} of a refined lattice in the store", next_)
            return found.runs > 0
        of = f" of {self.shard}" if self.shard else ""
        if points is not None:
            seeds = f" with all {len(spec.seeds)} seeds" * (len(spec.seeds) > 1)
            left = max(points - found.whole, 0)
            self._note(f"{name}: {found.whole} of {points} points are in the store{seeds}", left)
        elif found.runs < every or not compared:
            self._note(f"{name}: {every - found.runs} of {every} lanes{of} are in the store", found.runs)
        if found.runs == 0 and self.part.parts == 1 and self.store.driver(name) is None:
            self.store.delete_checkpoints(name)  # a kill left them when their packs were stored
        return found.runs > 0

    def _train(
        self,
        name: str,
        spec: StudySpec,
        watcher: Watcher,
        points: int | None,
        together: Mapping[str, StudySpec],
    ) -> None:
        """Train a lattice, or search until there are `points` points; `together` is its comparison."""
        if spec.command is not None:
            self._run(name, spec, watcher, points, together)
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
            if self.choice.is_ray:
                with handlers_kept():
                    from lrwd_sweep.runner.cluster import ClusterExecution

                    execution: Execution = ClusterExecution(task, files, self._ray(), study_key(name, spec))
            else:
                execution = Execution(task, self.device, files, self._processes, kind=self.choice.name)
            self._report_idle(execution, spec)
            execution.checkpoints = self._checkpoints(name, spec, execution.task)
            tensors = execution.tensors(None if self.quiet else consoles.note)
            self.store.begin_study(name, replace(spec, task=replace(execution.task, tensors=tensors)))
            self._begin_others(together)
            self._loop(name, spec, execution, watcher, points)

    def _run(
        self,
        name: str,
        spec: StudySpec,
        watcher: Watcher,
        points: int | None,
        together: Mapping[str, StudySpec],
    ) -> None:
        """Run a command of the user for a lattice or a search; without a result the study is not kept."""
        assert spec.command is not None, "a task trains in the engine"
        from lrwd_sweep.runner.executors.commands import CommandExecution, FirstRunFailed, NothingRead
        from lrwd_sweep.runner.executors.run_process import run_folder

        new = [each for each in (name, *together) if self.store.find_study(each) is None]
        first = name in new or not self.store.finished(name)
        left = missing(self.store, name, spec, points, self.part).runs
        folder = run_folder(self.store.path, name)
        shown = consoles.logged("lrwd_sweep") if self.choice.is_ray and not self.quiet else nullcontext()
        try:
            with shown:
                if self.choice.is_ray:
                    with handlers_kept():
                        from lrwd_sweep.runner.cluster import ClusterCommands

                        if self.choice.spool is not None:
                            folder = run_folder(Path(self.choice.spool, "store"), name)
                        execution: CommandExecution = ClusterCommands(
                            spec, folder, self._ray(), study_key(name, spec), first, left, self._tell
                        )
                else:
                    execution = CommandExecution(spec, folder, first=first, runs=left, tell=self._tell)
                self.store.begin_study(name, spec)
                self._begin_others(together)
                self._loop(name, spec, execution, watcher, points)
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
        watcher: Watcher,
        points: int | None,
    ) -> None:
        """Train what is missing. Raises Interrupted after a signal."""
        from lrwd_sweep.runner.study_loop import StudyLoop

        _collect_garbage()
        remedy = f"give each shard a file of its own by {arg('storage')}" if self.shard else ""
        with self.store.driving(name, remedy), stop_on_signals() as stop:
            loop = StudyLoop(name, spec, self.store, execution, watcher, self.max_lanes, stop, self.part)
            if self.choice.spool and (found := store_packs(self.store, name, spec, self.choice.spool)):
                self._tell(f"{name}: {counted(found, 'lane')} of an earlier run are stored from the spool")
            try:
                if spec.refine is not None:
                    loop.refine()
                elif points is None:
                    loop.grid()
                else:
                    loop.tpe(points)
            except Stopped:
                raise Interrupted(stop.signal) from None
            finally:
                if self.choice.spool:
                    store_packs(self.store, name, spec, self.choice.spool)

    def _tell(self, text: str, left: str = "") -> None:
        if not self.quiet:
            consoles.note(text, left)

    def _checkpoints(self, name: str, spec: StudySpec, task: Task) -> CheckpointPlace | None:
        """Return where the packs of a study leave their state: beside the store, if they do."""
        if not self.checkpoint_every:
            return None
        identity = {n: v for n, v in task.to_dict().items() if n != "tensors"}
        text = json.dumps([name, str(spec.optimizer), identity], sort_keys=True, default=str)
        study = f"{short_digest(name)}-{short_digest(text)}"
        folder = self.choice.spool or f"{self.store.path}.packs"
        return CheckpointPlace(folder, name, study, self.checkpoint_every, shared=self.choice.is_ray)

    def _ray(self) -> RayCluster:
        """Return the cluster, which is connected once it is needed."""
        from lrwd_sweep.runner.executors.ray import RayCluster

        if self._cluster is None:
            self._cluster = RayCluster(self.choice, self.device)
        return self._cluster

    @contextmanager
    def _processes_closed(self) -> Iterator[None]:
        """Close the processes and leave the cluster afterwards."""
        try:
            yield
        finally:
            if self._processes is not None:
                self._processes.close()
                self._processes = None
            if self._cluster is not None:
                self._cluster.close()
                self._cluster = None

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

    @contextmanager
    def _watched(
        self, specs: Mapping[str, StudySpec], points: int | None
    ) -> Iterator[Callable[[str], Watcher]]:
        """Show the progress of all studies; yield a function that returns the watcher of each."""
        if self.quiet:
            yield lambda _: Unwatched()
            return
        from lrwd_sweep.report.view.live import Progress

        shown, known = consoles.shared(), self._known(specs)
        with (
            shown as console,
            Progress(console, specs, known, points, shard=self.part) as progress,
            on_suspension(progress.pause, progress.resume),
        ):
            yield progress.of

    def _known(self, names: Iterable[str]) -> dict[str, list[Trial]]:
        return {name: self.store.trials(name) for name in names if self.store.find_study(name) is not None}

    def _note(self, found: str, missing: int) -> None:
        if not self.quiet:
            left = f"training the {missing} that are missing" if missing else "nothing to train"
            consoles.note(found, left)


def check_device(name: str) -> None:
    """Refuse a device that this machine does not have, before anything is opened or stored."""
    if name not in ("auto", "cpu"):
        from lrwd_sweep.engine.device import choose

        choose(name)


def check_place(
    specs: Iterable[StudySpec],
    device: str,
    max_lanes: int | None,
    files: DataFiles,
    checkpoint_every: float,
    choice: ExecutorChoice,
) -> None:
    """Refuse options of the engine for a user's command, and a cluster without Ray.

    Raises UsageError, or HostError.
    """
    if choice.is_ray:
        prepare_ray("executor", "ray")
        refuse_elsewhere(device, choice.ray_address)
    if choice.spool is not None:
        check_folder(choice.spool)
    given = {"device": device != "auto", "max_lanes": max_lanes is not None}
    given |= {"executor": choice.name in ("threads", "processes")}
    given |= {"data_dir": files.folder is not None, "download": files.download}
    given |= {"checkpoint_every": checkpoint_every != CHECKPOINT_SECONDS}
    command = next((spec.command for spec in specs if spec.command is not None), None)
    for option in (option for option, is_given in given.items() if is_given and command is not None):
        raise UsageError(f"{arg(option)} has no effect with {arg('run')}; leave it out")


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
        from lrwd_sweep.engine.device import free_on_host

        task = user_data.completed(task, anew=anew, room=free_on_host() / 2)
    vectors = task.decay_all or not is_user_code(task.net)  # of our networks only they do not decay
    if task.no_decay or task.train or not vectors:
        from lrwd_sweep.nets import undecayed  # slow to load

        return replace(task, undecayed=undecayed(task))
    return replace(task, undecayed=())


def completion(quiet: bool = True) -> Callable[[Task], Task]:
    """Return `complete` for one command: it reads each user data set once, and unless `quiet` says so."""
    read: set[str] = set()
    noted: set[str] = set()

    def complete_once(task: Task) -> Task:
        if new := [name for name in dict.fromkeys(task.user_code.values()) if name not in noted]:
            noted.update(new)
            if not quiet:
                consoles.note(f"loading {', '.join(new)}")
        found = complete(task, anew=task.data not in read)
        read.add(task.data)
        return found

    return complete_once
