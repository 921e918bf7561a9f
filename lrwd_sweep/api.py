"""Python's interface: train, load and list the studies of the command line, on the same store."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any, Unpack

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.report.result import read_results
from lrwd_sweep.report.trained_study import Comparison, Study
from lrwd_sweep.runner.runner import Runner, check_device, completion
from lrwd_sweep.runner.signals import Interrupted
from lrwd_sweep.science.trial import requested_direction
from lrwd_sweep.spec.field import Named, finite, refuse_other_than_text, whole
from lrwd_sweep.spec.job import (
    CHECKPOINT_SECONDS,
    DataFiles,
    ExecutorChoice,
    Given,
    Shard,
    refuse_refined_shard,
    refuse_shard,
)
from lrwd_sweep.spec.preset import DEFAULT, MOST_TRIALS, TRIALS
from lrwd_sweep.spec.request import REQUEST_FIELDS, Axis, Request, refuse_unknown
from lrwd_sweep.spec.run_options import RunKeywords
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store import StudySummary, check_name, open_store
from lrwd_sweep.store.database import shard_file

Storage = str | os.PathLike[str]


class TaskOptions(RunKeywords, total=False):
    """The fields of a task that a call may set, as `FIELDS` declares them, or of a command."""

    net: Named
    data: Named
    loss: Named
    net_options: Mapping[str, Any] | str
    standardize: bool  # byte images of user data
    stream: bool  # map-style user data
    augment: str
    epochs: int
    eval_every: int
    eval_batch_size: int
    clip_norm: float
    label_smoothing: float
    logit_decay: float
    accumulate: int
    train_fraction: float
    batch_size: int
    schedule: str
    warmup: int
    t_0: int
    t_mult: int
    eta_min: float
    decay_schedule: str
    momentum: float
    nesterov: bool
    momentum_form: str
    beta1: float
    beta2: float
    eps: float
    decay_all: bool
    no_decay: str  # a regular expression
    train: str  # a regular expression
    precision: str
    engine: str
    sam: float
    sam_adaptive: bool
    swa: float
    ema: float
    ensemble: int
    damping: float
    factor_ema: float
    inverse_interval: int


def sweep(
    optimizer: str | None = None,
    *,
    lr: Axis | None = None,
    weight_decay: Axis | None = None,
    seeds: int | None = None,
    first_seed: int | None = None,
    refine: bool | None = None,
    max_runs: int | None = None,
    metric: Named | None = None,
    cap: float | None = None,
    maximize: bool | None = None,
    preset: str = DEFAULT,
    study_name: str | None = None,
    storage: Storage | None = None,
    device: str = "auto",
    max_lanes: int | None = None,
    executor: str = "auto",
    ray_address: str | None = None,
    spool: Storage | None = None,
    data_dir: Storage | None = None,
    download: bool = False,
    progress: bool = True,
    retrain_damaged: bool = False,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    shard: Given | None = None,
    **task: Unpack[TaskOptions],
) -> Study:
    """Train one optimizer's (α, λ) lattice, several seeds per cell: `lrwd-sweep grid` in this process.

    With `objective`, a function of (lr, weight_decay, seed), or `run`, a command, it trains what they train.
    Arguments that are None are as in the preset; `optimizer` is "adamw" unless the preset names only one. An
    axis is text, as "2^-12:2^-2", or a list of values. A cell whose metric reaches `cap` counts as diverged;
    `maximize` says which end of a metric of your own is better.
    `storage` is a file, by default $LRWD_STORAGE, else `lrwd-sweep.db` here. Stored lanes are not trained
    again; a larger lattice or more seeds extend the study. `refine` trains only the runs that the verdict
    needs, at most `max_runs`. `retrain_damaged` trains lanes again
    whose stored results are damaged; by default such a study is a StoreError. Packs in training are saved
    every `checkpoint_every` seconds (0: never). `shard` "3/8" trains the third of eight parts of the lanes,
    by default into `lrwd-sweep-3of8.db`; `study merge` joins them. `executor` is "threads", "processes" or
    "ray", where `ray_address` is a cluster's head and `spool` a folder that its nodes share. `progress` is
    written to stderr. Ctrl-C raises KeyboardInterrupt between two steps; the work so far is kept, and the
    same call continues.

    Raises UsageError (or its UnknownName, SpecMismatch), StoreError, DataError or DeviceError.
    """
    return _train(_Call(sweep, locals()), Kind.GRID, Runner.grid)


def tpe(
    optimizer: str | None = None,
    *,
    trials: int = TRIALS,
    lr: Axis | None = None,
    weight_decay: Axis | None = None,
    seeds: int | None = None,
    first_seed: int | None = None,
    refine: bool | None = None,
    max_runs: int | None = None,
    metric: Named | None = None,
    cap: float | None = None,
    maximize: bool | None = None,
    preset: str = DEFAULT,
    study_name: str | None = None,
    storage: Storage | None = None,
    device: str = "auto",
    max_lanes: int | None = None,
    executor: str = "auto",
    ray_address: str | None = None,
    spool: Storage | None = None,
    data_dir: Storage | None = None,
    download: bool = False,
    progress: bool = True,
    retrain_damaged: bool = False,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    shard: Given | None = None,
    **task: Unpack[TaskOptions],
) -> Study:
    """Search the box of the axes with Optuna's TPE: `lrwd-sweep tpe` in this process.

    `trials` is the number of points (α, λ), earlier calls included. Other arguments are as for `sweep`.
    """
    call = _Call(tpe, locals())
    return _train(call, Kind.TPE, partial(Runner.tpe, points=whole("trials", trials, MOST_TRIALS)))


def compare(
    optimizers: Sequence[str] = (),
    *,
    lr: Axis | None = None,
    weight_decay: Axis | None = None,
    seeds: int | None = None,
    first_seed: int | None = None,
    refine: bool | None = None,
    max_runs: int | None = None,
    metric: Named | None = None,
    cap: float | None = None,
    maximize: bool | None = None,
    preset: str = DEFAULT,
    storage: Storage | None = None,
    device: str = "auto",
    max_lanes: int | None = None,
    executor: str = "auto",
    ray_address: str | None = None,
    spool: Storage | None = None,
    data_dir: Storage | None = None,
    download: bool = False,
    progress: bool = True,
    retrain_damaged: bool = False,
    checkpoint_every: float = CHECKPOINT_SECONDS,
    shard: Given | None = None,
    **task: Unpack[TaskOptions],
) -> Comparison:
    """Train the lattices of several optimizers (default: the preset's) and compare each with the first.

    Arguments and errors are those of `sweep`; on the command line this is `lrwd-sweep compare`.
    """
    call = _Call(compare, locals())
    names = (optimizers,) if isinstance(optimizers, str) else tuple(optimizers)
    for name in names:
        refuse_other_than_text(optimizer=name)
    specs = call.request.compared(names, completion(call.quiet))
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


class _Call:
    """The checked arguments of `sweep`, `tpe` or `compare`. Raises UsageError or UnknownName."""

    def __init__(self, function: Callable[..., object], given: Mapping[str, Any]) -> None:
        refuse_unknown(given["task"], [name for name in signature(function).parameters if name != "task"])
        texts = ("optimizer", "study_name", "device", "executor", "ray_address")
        refuse_other_than_text(**{name: given.get(name) for name in texts})
        self.optimizer, self.study_name = given.get("optimizer"), given.get("study_name")
        self.device: str = given["device"]
        self.request = Request.of(
            **{name: given[name] for name in ("preset", *REQUEST_FIELDS)}, **given["task"]
        )
        lanes, shard = given["max_lanes"], given["shard"]
        self.max_lanes = None if lanes is None else whole("max_lanes", lanes)
        self.files = DataFiles(_path(given["data_dir"]), given["download"])
        self.quiet, self.retrain_damaged = not given["progress"], given["retrain_damaged"]
        self.checkpoint_every = finite("checkpoint_every", given["checkpoint_every"])
        if self.checkpoint_every < 0:
            wrong = arg("checkpoint_every", given["checkpoint_every"])
            raise UsageError(f"{wrong} is too small; choose at least 0")
        self.choice = ExecutorChoice(given["executor"], given["ray_address"], _path(given["spool"]))
        self.shard = None if shard is None else Shard.of(shard)
        self.storage = _path(given["storage"])
        if self.storage is None and self.shard is not None:
            self.storage = shard_file(self.shard)

    @contextmanager
    def runner(self, specs: Sequence[StudySpec]) -> Iterator[Runner]:
        """Yield a runner on an open store. Raises KeyboardInterrupt if a signal stopped it."""
        refuse_refined_shard(self.shard, (spec.refine for spec in specs))
        self.files.check(specs)
        if not self.choice.is_ray:
            check_device(self.device)
        try:
            with open_store(self.storage, write=True) as store:
                yield Runner(
                    store,
                    self.device,
                    self.max_lanes,
                    self.files,
                    self.quiet,
                    self.retrain_damaged,
                    self.checkpoint_every,
                    choice=self.choice,
                    shard=self.shard,
                )
        except Interrupted as stopped:
            if stopped.signal != signal.SIGINT:
                signal.raise_signal(stopped.signal)  # ends this process, unless the caller handles it
            raise KeyboardInterrupt("the work so far is kept; the same call continues") from None


def _train(call: _Call, kind: Kind, train: Callable[[Runner, str, StudySpec], None]) -> Study:
    """Train one study and read it."""
    if kind is Kind.TPE:
        refuse_shard(call.shard)
    spec = call.request.spec(call.request.variant(call.optimizer), kind, completion(call.quiet))
    name = call.request.name(spec) if call.study_name is None else call.study_name
    check_name(name)
    with call.runner([spec]) as runner:
        train(runner, name, spec)
        results, _ = read_results(runner.store, [name], spec.metric, data_dir=call.files.folder)
        return Study(results[0], runner.store.path.resolve())


def _path(storage: Storage | None) -> str | None:
    return None if storage is None else os.fspath(storage)
