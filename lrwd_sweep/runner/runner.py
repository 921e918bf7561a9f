"""Train the studies of specifications into a store; torch is loaded only if a lane is missing."""

from __future__ import annotations

import atexit
import gc
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import counted
from lrwd_sweep.runner.cluster import check_folder, prepare_ray, refuse_elsewhere, store_packs, study_key
from lrwd_sweep.runner.signals import Interrupted, handlers_kept, on_suspension, stop_on_signals
from lrwd_sweep.runner.study_loop import StudyLoop, missing, runs
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
from lrwd_sweep.spec.study import StudySpec, labels
from lrwd_sweep.spec.task import Task
from lrwd_sweep.spec.user_code import is_user_code

if TYPE_CHECKING:
    from lrwd_sweep.runner.execution import Execution
    from lrwd_sweep.runner.executors.commands import CommandExecution
    from lrwd_sweep.runner.executors.local import Processes
    from lrwd_sweep.runner.executors.ray import RayCluster
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
        if not self.announced:
            self._tell(told(list(specs.values()), self.choice.place(self.device), points, self.shard))
        names = [name for name, spec in specs.items() if self._is_missing(name, spec, points, compared)]
        if not names:
            return
        try:
            with self._watched(specs, points) as watcher:
                for name in names:
                    self._train(name, specs[name], watcher(name), points, specs if compared else {})
        finally:
            if self._processes is not None:
                self._processes.close()
            if self._cluster is not None:
                self._cluster.close()
            self._processes = self._cluster = None

    def _is_missing(self, name: str, spec: StudySpec, points: int | None, compared: bool) -> bool:
        """Extend a stored study to `spec` and report what it holds; return True if runs are missing."""
        if self.store.find_study(name) is None and runs(spec, points, self.part):
            return True
        self.store.begin_study(name, spec)
        if self.retrain_damaged and (dropped := self.store.drop_damaged(name)):
            self._tell(f"{name}: dropped {counted(dropped, 'damaged lane')}")
        found, every = missing(self.store, name, spec, points, self.part), runs(spec, points, self.part)
        if found.stored is not None:
            next_ = f"training the next {found.runs}" if found.runs else "nothing to train"
            self._tell(f"{name}: {counted(found.stored, 'run')} of a refined lattice in the store", next_)
            return found.runs > 0
        left, of = found.runs, f" of {self.shard}" if self.shard else ""
        held = f"{every - left} of {every} lanes{of} are in the store"
        if points is not None:
            left, seeds = max(points - found.whole, 0), f" with all {len(spec.seeds)} seeds"
            held = f"{found.whole} of {points} points are in the store{seeds * (len(spec.seeds) > 1)}"
        if points is not None or left < every or not compared:
            next_ = f"training the {left} that are missing" if left else "nothing to train"
            self._tell(f"{name}: {held}", next_)
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
        from lrwd_sweep.runner.execution import ClusterExecution, Execution
        from lrwd_sweep.runner.executors.local import Processes

        assert spec.task is not None, "an imported study does not train"
        begun = self.store.find_study(name)
        task = spec.task if begun is None else spec.task.resuming(begun.spec.task)
        self._processes = self._processes or Processes()
        told = nullcontext() if self.quiet else consoles.logged("lrwd_sweep")
        with threads_kept(), redirect_stdout(sys.stderr), told:  # a user's network may print
            files = replace(self.files, quiet=self.quiet)
            with handlers_kept():
                cluster = self._ray()
                if cluster is None:
                    execution = Execution(task, self.device, files, self._processes, kind=self.choice.name)
                else:
                    execution = ClusterExecution(task, files, cluster, study_key(name, spec))
            self._report_idle(execution, spec)
            execution.checkpoints = self._checkpoints(name, spec, execution.task)
            tensors = execution.tensors(self._tell)
            self.store.begin_study(name, replace(spec, task=replace(execution.task, tensors=tensors)))
            self._loop(name, spec, execution, watcher, points, together)

    def _run(
        self,
        name: str,
        spec: StudySpec,
        watcher: Watcher,
        points: int | None,
        together: Mapping[str, StudySpec],
    ) -> None:
        """Run a command of the user for a lattice or a search; without a result the study is not kept."""
        from lrwd_sweep.runner.executors import commands

        new = [each for each in (name, *together) if self.store.find_study(each) is None]
        first = name in new or not self.store.finished(name)
        left = missing(self.store, name, spec, points, self.part).runs
        store = self.store.path if self.choice.spool is None else Path(self.choice.spool, "store")
        shown = consoles.logged("lrwd_sweep") if self.choice.is_ray and not self.quiet else nullcontext()
        try:
            with shown:
                with handlers_kept():
                    execution = commands.CommandExecution(
                        spec,
                        commands.run_folder(store, name),
                        first=first,
                        runs=left,
                        tell=self._tell,
                        cluster=self._ray(),
                        key=study_key(name, spec),
                    )
                self.store.begin_study(name, spec)
                self._loop(name, spec, execution, watcher, points, together)
        except (commands.FirstRunFailed, commands.NothingRead):
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
        together: Mapping[str, StudySpec],
    ) -> None:
        """Train what is missing. Raises Interrupted after a signal."""
        for other, its_spec in together.items():  # an interrupted comparison is reported as one
            if self.store.find_study(other) is None:
                self.store.begin_study(other, its_spec)
        if together:
            self.store.record_comparison(list(together))
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

    def _tell(self, *parts: str) -> None:
        if not self.quiet:
            consoles.note(*parts)

    def _checkpoints(self, name: str, spec: StudySpec, task: Task) -> CheckpointPlace | None:
        """Return where the packs of a study leave their state: beside the store, if they do."""
        if not self.checkpoint_every:
            return None
        identity = {n: v for n, v in task.to_dict().items() if n != "tensors"}
        text = json.dumps([name, str(spec.optimizer), identity], sort_keys=True, default=str)
        study = f"{short_digest(name)}-{short_digest(text)}"
        folder = self.choice.spool or f"{self.store.path}.packs"
        return CheckpointPlace(folder, name, study, self.checkpoint_every, shared=self.choice.is_ray)

    def _ray(self) -> RayCluster | None:
        """Return the cluster, if one was asked for; it is connected once it is needed."""
        if self._cluster is None and self.choice.is_ray:
            from lrwd_sweep.runner.executors.ray import RayCluster

            self._cluster = RayCluster(self.choice, self.device)
        return self._cluster

    def _report_idle(self, execution: Execution, spec: StudySpec) -> None:
        """Report cores or GPUs that stay idle because memory is short."""
        slots, places = len(execution.slots(spec.optimizer)), len(execution.places)
        if slots < places:
            lanes = f"{counted(slots, 'lane')} of {execution.task.net}"
            what = "cores" if execution.device.type == "cpu" else "GPUs"
            idle = f"{places - slots} of {places} {what} stay idle"
            self._tell(f"there is memory for {lanes} at a time", idle)

    @contextmanager
    def _watched(
        self, specs: Mapping[str, StudySpec], points: int | None
    ) -> Iterator[Callable[[str], Watcher]]:
        """Show the progress of all studies; yield a function that returns the watcher of each."""
        if self.quiet:
            yield lambda _: Unwatched()
            return
        from lrwd_sweep.report.view.live import Progress

        stored = [name for name in specs if self.store.find_study(name) is not None]
        shown, known = consoles.shared(), {name: self.store.trials(name) for name in stored}
        with (
            shown as console,
            Progress(console, specs, known, points, shard=self.part) as progress,
            on_suspension(progress.pause, progress.resume),
        ):
            yield progress.of


def told(
    specs: Sequence[StudySpec], device: str, points: int | None = None, shard: Shard | None = None
) -> str:
    """Say what will be trained and where, as in `adamw: 11×11 lattice × 5 seeds, 605 runs on cpu`."""
    sizes = dict.fromkeys(f"{len(spec.lattice.lr)}×{len(spec.lattice.weight_decay)}" for spec in specs)
    seeds = counted(max(len(spec.seeds) for spec in specs), "seed")
    what = f"{' and '.join(sizes)} lattice{'s' * (len(specs) > 1)}" if points is None else f"{points} points"
    every = counted(sum(runs(spec, points) for spec in specs), "run")
    if shard is not None:
        every = f"{shard}: {sum(runs(spec, points, shard) for spec in specs)} of {every}"
    if any(spec.refine is not None for spec in specs):
        every = f"refined, at most {every}"
    stems = dict.fromkeys(spec.command.stem for spec in specs if spec.command is not None)
    where = f"of {' and '.join(stems)}" if stems else f"on {_place(device)}"
    return f"{', '.join(labels(specs))}: {what} × {seeds}, {every} {where}"


def _place(device: str) -> str:
    """Name the device without loading torch."""
    if device != "auto":
        return device
    signs = ("/dev/nvidiactl", "/dev/dxg")  # of a GPU, on Linux and on Linux within Windows
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    found = sys.platform == "win32" or any(map(os.path.exists, signs))
    return "the GPU if torch can use it, else cpu" if found and not hidden else "cpu"


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
