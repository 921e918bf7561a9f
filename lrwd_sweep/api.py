"""The command line's studies from Python: train, load, list. What is stored by either is there for both."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

from lrwd_sweep.report.result import read_results
from lrwd_sweep.runner.runner import Runner, check_device
from lrwd_sweep.runner.signals import Interrupted
from lrwd_sweep.science.direction import given
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.keywords import (
    TaskOptions,
    finite,
    in_keywords,
    refuse_other_than_text,
    training_fields,
    whole,
)
from lrwd_sweep.spec.preset import DEFAULT, MOST_SEEDS, MOST_TRIALS, TRIALS
from lrwd_sweep.spec.request import Axis, Request, axis
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store import Store, StudySummary, check_name, open_store
from lrwd_sweep.study import Comparison, Study

Storage = str | os.PathLike[str]


def sweep(
    optimizer: str | None = None,
    *,
    lr: Axis | None = None,
    weight_decay: Axis | None = None,
    seeds: int | None = None,
    metric: str | None = None,
    cap: float | None = None,
    preset: str = DEFAULT,
    study_name: str | None = None,
    storage: Storage | None = None,
    device: str = "auto",
    max_lanes: int | None = None,
    data_dir: Storage | None = None,
    download: bool = False,
    progress: bool = True,
    retrain_damaged: bool = False,
    **task: Unpack[TaskOptions],
) -> Study:
    """Train one optimizer's (α, λ) lattice, several seeds per cell: `lrwd-sweep grid` in this process.

    Everything that is None is as in the preset, `optimizer` where that names one alone, else "adamw". An axis
    is text, as "2^-12:2^-2", or its values. From the value `cap` of the metric on a cell is out, as if it had
    diverged. `storage` is a file, by default $LRWD_STORAGE, else
    `lrwd-sweep.db` here, as for the command line: what it holds is not trained again, and a larger lattice or
    more seeds extend the study. `retrain_damaged` trains lanes again whose stored results are damaged, which
    otherwise is a StoreError. `progress` is told on stderr. Ctrl-C is KeyboardInterrupt between two steps;
    every finished pack is kept, and the same call continues.

    Raises UsageError (of which UnknownName and SpecMismatch), StoreError, DataError or DeviceError.
    """
    with in_keywords():
        request = _task(sweep, preset, lr, weight_decay, seeds, metric, cap, task)
        place = _Place(storage, device, max_lanes, _files(data_dir, download), not progress, retrain_damaged)
        return _trained(request, Kind.GRID, optimizer, study_name, place, Runner.grid)


def tpe(
    optimizer: str | None = None,
    *,
    trials: int = TRIALS,
    lr: Axis | None = None,
    weight_decay: Axis | None = None,
    seeds: int | None = None,
    metric: str | None = None,
    cap: float | None = None,
    preset: str = DEFAULT,
    study_name: str | None = None,
    storage: Storage | None = None,
    device: str = "auto",
    max_lanes: int | None = None,
    data_dir: Storage | None = None,
    download: bool = False,
    progress: bool = True,
    retrain_damaged: bool = False,
    **task: Unpack[TaskOptions],
) -> Study:
    """Search the box of the axes with Optuna's TPE: `lrwd-sweep tpe` in this process.

    `trials` are points (α, λ) in all, those of earlier calls included; each trains all seeds. Everything else
    is as for `sweep`.
    """
    with in_keywords():
        request = _task(tpe, preset, lr, weight_decay, seeds, metric, cap, task)
        place = _Place(storage, device, max_lanes, _files(data_dir, download), not progress, retrain_damaged)
        points = whole("trials", trials, MOST_TRIALS)
        search = partial(Runner.tpe, points=points)
        return _trained(request, Kind.TPE, optimizer, study_name, place, search)


def compare(
    optimizers: Sequence[str] = (),
    *,
    lr: Axis | None = None,
    weight_decay: Axis | None = None,
    seeds: int | None = None,
    metric: str | None = None,
    cap: float | None = None,
    preset: str = DEFAULT,
    storage: Storage | None = None,
    device: str = "auto",
    max_lanes: int | None = None,
    data_dir: Storage | None = None,
    download: bool = False,
    progress: bool = True,
    retrain_damaged: bool = False,
    **task: Unpack[TaskOptions],
) -> Comparison:
    """Train the lattices of several optimizers (default: the preset's) and compare each with the first.

    Arguments and errors are those of `sweep`; on the command line this is `lrwd-sweep compare`.
    """
    with in_keywords():
        names = (optimizers,) if isinstance(optimizers, str) else tuple(optimizers)
        for name in names:
            refuse_other_than_text(optimizer=name)
        specs = _task(compare, preset, lr, weight_decay, seeds, metric, cap, task).compared(names)
        place = _Place(storage, device, max_lanes, _files(data_dir, download), not progress, retrain_damaged)
        with place.trainer(list(specs.values())) as trainer:
            trainer.compare(specs)
            metric = next(iter(specs.values())).metric
            return Comparison(*_read(trainer.store, list(specs), metric, files=place.files))


def load(
    study_name: str,
    *,
    storage: Storage | None = None,
    metric: str | None = None,
    at_restart: int | None = None,
    maximize: bool = False,
    minimize: bool = False,
    cap: float | None = None,
) -> Study:
    """A study of the store as it stands, in any metric that it has (default: its own).

    `maximize` and `minimize` say which end of the metric is better, `cap` from which value on a cell is out;
    by default what is stored with the study's own metric, else minimize. A metric of an imported study whose
    name says that higher is better needs one of the two. Under warm restarts its metrics are those at the end
    of the run's K-th cycle, `at_restart`, by default the newest.

    Raises UnknownName, UsageError, StoreError, or NothingToReport where there is no store yet.
    """
    with in_keywords():
        refuse_other_than_text(study_name=study_name, metric=metric)
        restart = None if at_restart is None else whole("at_restart", at_restart)
        with open_store(_path(storage), write=False) as store:
            return _read(
                store,
                [study_name],
                metric,
                restart,
                direction=given(maximize=maximize, minimize=minimize),
                cap=None if cap is None else finite("cap", cap),
            )[0]


def studies(storage: Storage | None = None) -> list[StudySummary]:
    """Every study of the store, oldest first: name, optimizer, created, counts of cells.

    Raises StoreError, or NothingToReport where there is no store yet.
    """
    with in_keywords(), open_store(_path(storage), write=False) as store:
        return store.studies()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where and how a call trains."""

    storage: Storage | None
    device: str
    max_lanes: int | None
    files: DataFiles
    quiet: bool
    retrain_damaged: bool

    @contextmanager
    def trainer(self, specs: Sequence[StudySpec]) -> Iterator[Runner]:
        """A trainer on an open store. Raises KeyboardInterrupt where a signal ended its training."""
        self.files.check(specs)
        refuse_other_than_text(device=self.device)
        lanes = None if self.max_lanes is None else whole("max_lanes", self.max_lanes)
        check_device(self.device)
        try:
            with open_store(_path(self.storage), write=True) as store:
                yield Runner(store, self.device, lanes, self.files, self.quiet, self.retrain_damaged)
        except Interrupted as stopped:
            if stopped.signal != signal.SIGINT:
                signal.raise_signal(stopped.signal)  # it ends this process, unless the caller has other plans
            raise KeyboardInterrupt("every finished pack is kept; the same call continues") from None


def _trained(
    request: Request,
    kind: Kind,
    optimizer: str | None,
    study_name: str | None,
    place: _Place,
    train: Callable[[Runner, str, StudySpec], None],
) -> Study:
    """One study, once it has trained."""
    refuse_other_than_text(optimizer=optimizer, study_name=study_name)
    spec = request.spec(request.variant(optimizer), kind)
    name = request.name(spec) if study_name is None else study_name
    check_name(name)
    with place.trainer([spec]) as trainer:
        train(trainer, name, spec)
        return _read(trainer.store, [name], spec.metric, files=place.files)[0]


def _task(
    call: Callable[..., object],
    preset: str,
    lr: Axis | None,
    weight_decay: Axis | None,
    seeds: int | None,
    metric: str | None,
    cap: float | None,
    task: Mapping[str, Any],
) -> Request:
    """What is asked for, in plain Python values."""
    refuse_other_than_text(preset=preset, metric=metric)
    return Request(
        preset,
        None if lr is None else axis(lr, "lr"),
        None if weight_decay is None else axis(weight_decay, "wd"),
        None if seeds is None else whole("seeds", seeds, MOST_SEEDS),
        metric,
        None if cap is None else finite("cap", cap),
        tuple(training_fields(task, call).items()),
    )


def _path(storage: Storage | None) -> str | None:
    return None if storage is None else os.fspath(storage)


def _files(data_dir: Storage | None, download: bool) -> DataFiles:
    return DataFiles(_path(data_dir), download)


def _read(
    store: Store,
    names: Sequence[str],
    metric: str | None,
    at_restart: int | None = None,
    files: DataFiles = DataFiles(),  # noqa: B008 - frozen
    direction: Direction | None = None,
    cap: float | None = None,
) -> list[Study]:
    results, _ = read_results(
        store, names, metric, direction=direction, cap=cap, at_restart=at_restart, data_dir=files.folder
    )
    return [Study(result, store.path.resolve()) for result in results]
