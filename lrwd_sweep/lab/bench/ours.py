"""lrwd-sweep itself, as `grid` runs it: packs on every core, results and curves into an SQLite store."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lrwd_sweep.lab.bench.task import OPTIMIZER, Curves, Lane, Outcome
from lrwd_sweep.runner.execution import Execution
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.job import PackDone
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from lrwd_sweep.store import open_store


def run(task: Task, lanes: Sequence[Lane], device: torch.device) -> Outcome:
    """Train packs of lanes."""
    with ExitStack() as stack:
        both = (task.changed(epochs=1), task)
        trains = {each: stack.enter_context(ready(each, str(device))) for each in both}
        return Outcome.timed(lambda asked, chosen: trains[asked](chosen), task, lanes)


@contextmanager
def ready(task: Task, device: str) -> Iterator[Callable[[Sequence[Lane]], Curves]]:
    """What trains lanes, with the data loaded and an empty store open; every call is a study of its own."""
    optimizer, pool = Optimizer.parse(OPTIMIZER), Execution(task, device)
    names = map("study-{}".format, count())
    with TemporaryDirectory() as folder, open_store(str(Path(folder) / "bench.db"), write=True) as store:

        def train(lanes: Sequence[Lane]) -> Curves:
            name, curves = next(names), Curves()
            store.begin_study(name, _spec(optimizer, task, lanes))
            for event in pool.train(optimizer, pool.plan(_by_seed(lanes), optimizer=optimizer)):
                if isinstance(event, PackDone):
                    store.add_trials(name, event.trials)
                    curves |= {(t.cell, t.seed): _curve(t) for t in event.trials}
            return curves

        yield train


def _curve(trial: Trial) -> list[float]:
    return [*trial.curves["val_loss"], trial.metrics.get("test_loss", math.nan)]


def _by_seed(lanes: Sequence[Lane]) -> dict[int, list[Cell]]:
    found: dict[int, list[Cell]] = {}
    for cell, seed in lanes:
        found.setdefault(seed, []).append(cell)
    return found


def _spec(optimizer: Optimizer, task: Task, lanes: Sequence[Lane]) -> StudySpec:
    """A study that holds these lanes."""
    cells = [cell for cell, _ in lanes]
    lattice = Lattice(tuple(cell.lr for cell in cells), tuple(cell.weight_decay for cell in cells))
    return StudySpec(
        Kind.GRID, optimizer, lattice, tuple(sorted({seed for _, seed in lanes})), "val_loss", task
    )
