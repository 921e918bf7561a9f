"""Python's interface: train, load and list the studies of the command line, on the same store."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import Result, comparison, read_results, refuse_two_directions, titles
from lrwd_sweep.report.view.lane_table import curve_frame, lane_frame
from lrwd_sweep.report.view.notation import plain
from lrwd_sweep.report.view.report import notebook_html, text_of
from lrwd_sweep.report.view.terminal import Report, snippet
from lrwd_sweep.runner.runner import Runner, check_device, completion
from lrwd_sweep.runner.signals import Interrupted
from lrwd_sweep.science.separability import PairedDifferences, Separability
from lrwd_sweep.science.surface import Surface
from lrwd_sweep.science.trial import requested_direction
from lrwd_sweep.spec.data_files import DataFiles
from lrwd_sweep.spec.preset import DEFAULT, MOST_TRIALS, TRIALS
from lrwd_sweep.spec.request import (
    Axis,
    Named,
    Request,
    TaskOptions,
    finite,
    refuse_other_than_text,
    refuse_unknown,
    whole,
)
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store import StudySummary, check_name, open_store

if TYPE_CHECKING:
    from pandas import DataFrame

Storage = str | os.PathLike[str]


def sweep(
    optimizer: str | None = None,
    *,
    lr: Axis | None = None,
    weight_decay: Axis | None = None,
    seeds: int | None = None,
    first_seed: int | None = None,
    metric: Named | None = None,
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

    Arguments that are None are as in the preset; `optimizer` is "adamw" unless the preset names only one. An
    axis is text, as "2^-12:2^-2", or a list of values. A cell whose metric reaches `cap` counts as diverged.
    `storage` is a file, by default $LRWD_STORAGE, else `lrwd-sweep.db` here. Stored lanes are not trained
    again; a larger lattice or more seeds extend the study. `retrain_damaged` trains lanes again whose stored
    results are damaged; by default such a study is a StoreError. `progress` is written to stderr. Ctrl-C
    raises KeyboardInterrupt between two steps; finished packs are kept, and the same call continues.

    Raises UsageError (or its UnknownName, SpecMismatch), StoreError, DataError or DeviceError.
    """
    return _train(_call(sweep, locals()), Kind.GRID, Runner.grid)


def tpe(
    optimizer: str | None = None,
    *,
    trials: int = TRIALS,
    lr: Axis | None = None,
    weight_decay: Axis | None = None,
    seeds: int | None = None,
    first_seed: int | None = None,
    metric: Named | None = None,
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

    `trials` is the number of points (α, λ), earlier calls included. Other arguments are as for `sweep`.
    """
    call = _call(tpe, locals())
    return _train(call, Kind.TPE, partial(Runner.tpe, points=whole("trials", trials, MOST_TRIALS)))


def compare(
    optimizers: Sequence[str] = (),
    *,
    lr: Axis | None = None,
    weight_decay: Axis | None = None,
    seeds: int | None = None,
    first_seed: int | None = None,
    metric: Named | None = None,
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
    call = _call(compare, locals())
    names = (optimizers,) if isinstance(optimizers, str) else tuple(optimizers)
    for name in names:
        refuse_other_than_text(optimizer=name)
    specs = call.request.compared(names, completion())
    with call.runner(list(specs.values())) as runner:
        runner.compare(specs)
        judged = next(iter(specs.values())).metric
        results, _ = read_results(runner.store, list(specs), judged, data_dir=call.files.folder)
        path = runner.store.path.resolve()
    return Comparison(*(Study(result, path) for result in results))


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
    """Load a study from the store, in any metric that it has (default: its own).

    `maximize` and `minimize` say which end of the metric is better, and a cell whose metric reaches `cap`
    counts as diverged; the defaults are those stored with the study's own metric, else minimize. A metric of
    an imported study whose name suggests that higher is better needs one of the two. Under warm restarts,
    metrics are those at the end of cycle `at_restart`, by default the last.

    Raises UnknownName, UsageError, StoreError, or NothingToReport without a store.
    """
    refuse_other_than_text(study_name=study_name, metric=metric)
    with open_store(_path(storage), write=False) as store:
        results, _ = read_results(
            store,
            [study_name],
            metric,
            direction=requested_direction(maximize=maximize, minimize=minimize),
            cap=None if cap is None else finite("cap", cap),
            at_restart=None if at_restart is None else whole("at_restart", at_restart),
        )
        return Study(results[0], store.path.resolve())


def studies(storage: Storage | None = None) -> list[StudySummary]:
    """List every study of the store, oldest first: name, optimizer, created, counts of cells.

    Raises StoreError, or NothingToReport without a store.
    """
    with open_store(_path(storage), write=False) as store:
        return store.studies()


@dataclass(frozen=True, slots=True)
class _Call:
    """The arguments of a call that trains, checked."""

    request: Request
    optimizer: str | None
    study_name: str | None
    storage: str | None
    device: str
    max_lanes: int | None
    files: DataFiles
    quiet: bool
    retrain_damaged: bool

    @contextmanager
    def runner(self, specs: Sequence[StudySpec]) -> Iterator[Runner]:
        """Yield a runner on an open store. Raises KeyboardInterrupt if a signal stopped it."""
        self.files.check(specs)
        check_device(self.device)
        try:
            with open_store(self.storage, write=True) as store:
                yield Runner(store, self.device, self.max_lanes, self.files, self.quiet, self.retrain_damaged)
        except Interrupted as stopped:
            if stopped.signal != signal.SIGINT:
                signal.raise_signal(stopped.signal)  # ends this process, unless the caller handles it
            raise KeyboardInterrupt("every finished pack is kept; the same call continues") from None


def _call(function: Callable[..., object], arguments: dict[str, Any]) -> _Call:
    """Check the arguments of `sweep`, `tpe` or `compare`. Raises UsageError."""
    task = arguments["task"]
    refuse_unknown(task, [name for name in signature(function).parameters if name != "task"])
    texts = {name: arguments.get(name) for name in ("optimizer", "study_name", "device")}
    refuse_other_than_text(**texts)
    own = ("preset", "lr", "weight_decay", "seeds", "first_seed", "metric", "cap")
    asked = {name: arguments[name] for name in own}
    lanes = arguments["max_lanes"]
    return _Call(
        Request.of(**asked, **task),
        texts["optimizer"],
        texts["study_name"],
        _path(arguments["storage"]),
        arguments["device"],
        None if lanes is None else whole("max_lanes", lanes),
        DataFiles(_path(arguments["data_dir"]), arguments["download"]),
        not arguments["progress"],
        arguments["retrain_damaged"],
    )


def _train(call: _Call, kind: Kind, train: Callable[[Runner, str, StudySpec], None]) -> Study:
    """Train one study and read it."""
    spec = call.request.spec(call.request.variant(call.optimizer), kind, completion())
    name = call.request.name(spec) if call.study_name is None else call.study_name
    check_name(name)
    with call.runner([spec]) as runner:
        train(runner, name, spec)
        results, _ = read_results(runner.store, [name], spec.metric, data_dir=call.files.folder)
        return Study(results[0], runner.store.path.resolve())


def _path(storage: Storage | None) -> str | None:
    return None if storage is None else os.fspath(storage)


@dataclass(frozen=True, slots=True)
class Best:
    """The best point of a study by its mean over all seeds, in the metric's units."""

    lr: float
    weight_decay: float  # in the study's own decay convention
    value: float
    sem: float | None  # standard error of `value`; None with fewer than two seeds
    test_value: float | None  # the same measure on the test split, which chose nothing


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """One study as read from the store: a picture in a notebook, a report when printed."""

    result: Result  # for the modules of this package
    store: Path  # the file that it was read from

    @property
    def name(self) -> str:
        """The name in the store, for `load`."""
        return self.result.name

    @property
    def optimizer(self) -> str:
        """The optimizer's name, for `sweep`."""
        return self.result.spec.title

    @property
    def formula(self) -> str:
        """The update that trained, in the paper's letters."""
        return self.result.spec.formula

    @property
    def metric(self) -> str:
        """The metric that cells are judged by."""
        return self.result.surface.metric

    @property
    def direction(self) -> str:
        """The better end of the metric: minimize or maximize."""
        return str(self.result.surface.direction)

    @property
    def surface(self) -> Surface:
        """Arrays: `lr` (I,), `weight_decay` (J,), `values` (I, J, R) by seed, `mean` and `sem` (I, J).

        `values` is NaN where a lane did not complete, `mean` where one of the seeds did not.
        """
        return self.result.surface

    @property
    def separability(self) -> Separability:
        """Verdict, ridge slope and the other metrics, each with its 90 % interval."""
        return self.result.separability

    @property
    def best(self) -> Best | None:
        """The best point; None if no cell counts."""
        for found in self.result.ranked(1):
            at = found.cell
            return Best(at.lr, at.weight_decay, found.value, found.sem, found.test_value)
        return None

    @cached_property
    def frame(self) -> DataFrame:
        """A row per lane: lr, weight_decay, seed, status, detail, then every metric. Raises HostError."""
        return lane_frame({self.name: self.result.trials}, self.metric)

    def curves(self) -> DataFrame:
        """Read the curves, a row per lane and epoch: lr, weight_decay, seed, epoch, then every curve.

        Raises HostError, also without pandas, and UnknownName if the study was deleted.
        """
        with open_store(str(self.store), write=False) as store:
            return curve_frame({self.name: store.trials(self.name, curves=True)})

    @property
    def recipe(self) -> str:
        """The best and the most forgiving cell as lines of Python to paste; empty if no cell counts."""
        return snippet(self.result, recommendations(self.result))

    def __repr__(self) -> str:
        surface, best, counts = self.surface, self.best, self.surface.counts()
        wrong = "".join(f", {counts[s]} {s}" for s in ("diverged", "failed", "missing") if counts[s])
        parts = [
            f"{len(surface.lr)}×{len(surface.weight_decay)} cells × {len(surface.seeds)} seeds{wrong}",
            str(self.separability.verdict),
        ]
        if best is not None:
            at = f"lr={best.lr:.4g}, weight_decay={best.weight_decay:.4g}"
            parts.append(f"best {plain(self.metric)} {best.value:.4g} at {at}")
        return f"<Study {self.name!r} of {plain(self.optimizer)}: {'; '.join(parts)}>"

    def __str__(self) -> str:
        return text_of(self.__rich__()).rstrip()

    def __rich__(self) -> Report:
        return Report([self.result], full=True)

    def _repr_html_(self) -> str:
        return notebook_html(self.__rich__())


class Comparison:
    """Studies side by side, each compared with the first, seed by seed.

    The same seed is the same initialisation and data order in all of them. Raises UsageError without a study,
    if one is given twice, and if the same metric is better higher in one and lower in another.
    """

    def __init__(self, *studies: Study) -> None:
        self._results = [study.result for study in studies]
        self.studies: dict[str, Study] = dict(zip(titles(self._results), studies, strict=True))
        if not studies or len(self.studies) < len(studies):
            raise UsageError("a comparison needs different studies, as in Comparison(load('a'), load('b'))")
        refuse_two_directions(self._results)
        self._compared = [comparison(self._results[0], other) for other in self._results[1:]]

    @property
    def differences(self) -> dict[str, PairedDifferences]:
        """Slope and best value of every other study minus the first's, paired by seed; by title."""
        _, *others = self.studies
        return {title: compared.comparison for title, compared in zip(others, self._compared, strict=True)}

    @property
    def verdict(self) -> str:
        """A sentence for every other study, which claims only what the intervals support."""
        return "\n".join(found.verdict for found in self.differences.values())

    @cached_property
    def frame(self) -> DataFrame:
        """The frames of all studies as one, their titles in column `study`. Raises HostError."""
        trials = {title: study.result.trials for title, study in self.studies.items()}
        return lane_frame(trials, self._results[0].surface.metric)

    def __repr__(self) -> str:
        found = (f"{plain(title)} {study.separability.verdict}" for title, study in self.studies.items())
        return f"<Comparison: {', '.join(found)}>"

    def __str__(self) -> str:
        return text_of(self.__rich__()).rstrip()

    def __rich__(self) -> Report:
        return Report(self._results, self._compared, full=True)

    def _repr_html_(self) -> str:
        return notebook_html(self.__rich__())
