"""Optuna with a process per core, each on one thread: the study is shared through a journal file."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count, pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.host import cores
from lrwd_sweep.lab.bench.plain import enqueue, optimize, train_lane
from lrwd_sweep.lab.bench.task import Curves, Lane, Outcome, data
from lrwd_sweep.spec.task import Task


def run(task: Task, lanes: Sequence[Lane], device: torch.device) -> Outcome:
    """Train as many lanes at a time as there are cores, in processes that have torch and the data loaded."""
    workers = cores()
    with (
        TemporaryDirectory() as folder,
        ProcessPoolExecutor(workers, get_context("spawn"), _start, (task, device)) as pool,
    ):
        files = (Path(folder) / f"{k}.log" for k in count())

        def train(asked: Task, chosen: Sequence[Lane]) -> Curves:
            file, curves = str(next(files)), Curves()
            enqueue(optuna.create_study(storage=_storage(file), study_name="bench"), chosen)
            bounds = [len(chosen) * k // workers for k in range(workers + 1)]
            shares = [high - low for low, high in pairwise(bounds)]
            for part in pool.map(partial(_work, asked, file), shares):
                curves |= part
            return curves

        return Outcome.timed(train, task, lanes)


def _storage(file: str) -> JournalStorage:
    return JournalStorage(JournalFileBackend(file))


class _Worker:
    """What a process keeps from one call to the next."""

    splits: Splits


def _start(task: Task, device: torch.device) -> None:
    torch.set_num_threads(1)
    _Worker.splits = data(task, device)


def _work(task: Task, file: str, trials: int) -> Curves:
    """The share of one process."""
    study = optuna.load_study(
        storage=_storage(file), study_name="bench", sampler=optuna.samplers.RandomSampler()
    )
    return optimize(study, partial(train_lane, task, _Worker.splits), trials)
