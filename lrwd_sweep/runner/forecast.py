"""Forecast a command: runs to train, where, in how much memory and time. Imported before torch is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrwd_sweep.report.view.notation import counted
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import unfinished
from lrwd_sweep.spec.study import StudySpec, labels

if TYPE_CHECKING:
    from lrwd_sweep.store import Store


@dataclass(frozen=True, slots=True)
class Missing:
    """What the store lacks of a study."""

    todo: Mapping[int, Sequence[Cell]]  # cells to train, by seed
    further: int = 0  # points that a search has yet to propose
    seeds: int = 1
    whole: int = 0  # known points with all their seeds

    @property
    def runs(self) -> int:
        """The number of runs to train."""
        return sum(map(len, self.todo.values())) + self.further * self.seeds


def missing(store: Store | None, name: str, spec: StudySpec, points: int | None = None) -> Missing:
    """Find the missing lanes of a lattice, or of a search of `points` points; None is an empty store."""
    if store is not None and store.find_study(name) is None:
        store = None
    finished = set() if store is None else store.finished(name)
    cells = list(spec.lattice.cells())
    if points is not None:
        cells = [] if store is None else list(dict.fromkeys(trial.cell for trial in store.trials(name)))
    todo = unfinished(cells, spec.seeds, finished)
    further = 0 if points is None else max(points - len(cells), 0)
    partly = {cell for left in todo.values() for cell in left}
    return Missing(todo, further, len(spec.seeds), len(cells) - len(partly))


def runs(spec: StudySpec, points: int | None = None) -> int:
    """Count the runs of a lattice, or of a search of `points` points."""
    return (len(spec.lattice) if points is None else points) * len(spec.seeds)


def told(specs: Sequence[StudySpec], device: str, points: int | None = None) -> str:
    """Say what will be trained and where, as in `adamw: 11×11 lattice × 5 seeds, 605 runs on cpu`."""
    sizes = dict.fromkeys(f"{len(spec.lattice.lr)}×{len(spec.lattice.weight_decay)}" for spec in specs)
    seeds = counted(max(len(spec.seeds) for spec in specs), "seed")
    what = f"{' and '.join(sizes)} lattice{'s' * (len(specs) > 1)}" if points is None else f"{points} points"
    every = counted(sum(runs(spec, points) for spec in specs), "run")
    return f"{', '.join(labels(specs))}: {what} × {seeds}, {every} on {_place(device)}"


def _place(device: str) -> str:
    """Name the device without loading torch."""
    if device != "auto":
        return device
    signs = ("/dev/nvidiactl", "/dev/dxg")  # of a GPU, on Linux and on Linux within Windows
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    found = sys.platform == "win32" or any(map(os.path.exists, signs))
    return "the GPU if torch can use it, else cpu" if found and not hidden else "cpu"
