"""lrwd-sweep itself, as `grid` runs it: packs on every core, results and curves into an SQLite store."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lrwd_sweep.bench.task import OPTIMIZER, Curves, Lane, Outcome
from lrwd_sweep.engine import Pool
from lrwd_sweep.lattice import Cell, Lattice
from lrwd_sweep.optimizer import Optimizer
from lrwd_sweep.progress import PackDone
from lrwd_sweep.spec import Kind, StudySpec
from lrwd_sweep.store import open_store
from lrwd_sweep.training import Training
from lrwd_sweep.trial import Trial


def run(training: Training, lanes: Sequence[Lane], device: torch.device) -> Outcome:
    """Train packs of lanes."""
    with ExitStack() as stack:
        both = (training.changed(epochs=1), training)
        trains = {each: stack.enter_context(ready(each, str(device))) for each in both}
        return Outcome.timed(lambda asked, chosen: trains[asked](chosen), training, lanes)


@contextmanager
def ready(training: Training, device: str) -> Iterator[Callable[[Sequence[Lane]], Curves]]:
    """What trains lanes, with the data loaded and an empty store open; every call is a study of its own."""
    optimizer, pool = Optimizer.parse(OPTIMIZER), Pool(training, device)
    names = map("study-{}".format, count())
    with TemporaryDirectory() as folder, open_store(str(Path(folder) / "bench.db"), write=True) as store:

        def train(lanes: Sequence[Lane]) -> Curves:
            name, curves = next(names), Curves()
            store.begin_study(name, _spec(optimizer, training, lanes))
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


def _spec(optimizer: Optimizer, training: Training, lanes: Sequence[Lane]) -> StudySpec:
    """A study that holds these lanes."""
    cells = [cell for cell, _ in lanes]
    lattice = Lattice(tuple(cell.lr for cell in cells), tuple(cell.weight_decay for cell in cells))
    return StudySpec(
        Kind.GRID, optimizer, lattice, tuple(sorted({seed for _, seed in lanes})), "val_loss", training
    )
