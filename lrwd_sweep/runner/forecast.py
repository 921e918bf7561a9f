"""Forecast a command: runs to train, where, in how much memory and time. Imported before torch is."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lrwd_sweep.report.view.notation import counted
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, unfinished
from lrwd_sweep.spec.shard import WHOLE, Shard
from lrwd_sweep.spec.study import StudySpec, labels

if TYPE_CHECKING:
    from lrwd_sweep.runner.execution import TimeEstimate
    from lrwd_sweep.spec.data_files import DataFiles
    from lrwd_sweep.store import Store

SECONDS = 4.0  # for the measurements of a forecast


@dataclass(frozen=True, slots=True)
class Missing:
    """The runs that a store lacks of a study."""

    todo: Mapping[int, Sequence[Cell]]  # cells to train, by seed
    further: int = 0  # points that a search has yet to propose
    seeds: int = 1
    whole: int = 0  # known points with all their seeds
    stored: int | None = None  # ended lanes of a refined lattice, of which `todo` is the next round

    @property
    def runs(self) -> int:
        """The number of runs to train."""
        return sum(map(len, self.todo.values())) + self.further * self.seeds


def missing(
    store: Store | None, name: str, spec: StudySpec, points: int | None = None, shard: Shard = WHOLE
) -> Missing:
    """Find the missing lanes of a lattice, or of a search of `points` points; None is an empty store."""
    if store is not None and store.find_study(name) is None:
        store = None
    if spec.refine is not None:
        from lrwd_sweep.report.study_surface import round_of

        trials = [] if store is None else store.trials(name)
        ended = sum(trial.status is not Status.FAILED for trial in trials)
        return Missing(round_of(spec, trials), seeds=len(spec.seeds), stored=ended)
    finished = set() if store is None else store.finished(name)
    cells = list(spec.lattice.cells())
    if points is not None:
        cells = [] if store is None else list(dict.fromkeys(trial.cell for trial in store.trials(name)))
    todo = shard.among(unfinished(cells, spec.seeds, finished))
    further = 0 if points is None else max(points - len(cells), 0)
    partly = {cell for left in todo.values() for cell in left}
    return Missing(todo, further, len(spec.seeds), len(cells) - len(partly))


def runs(spec: StudySpec, points: int | None = None, shard: Shard = WHOLE) -> int:
    """Count the runs of a lattice, or of a search of `points` points; of a refined lattice the most."""
    if spec.refine is not None and spec.refine.max_runs is not None:
        return min(spec.refine.max_runs, shard.count(spec.lattice, spec.seeds))
    return shard.count(spec.lattice, spec.seeds) if points is None else points * len(spec.seeds)


def _every(spec: StudySpec, points: int | None, shard: Shard, lacking: Missing) -> int:
    """Count the runs of a command; of a refined lattice the stored ones and the next round."""
    return runs(spec, points, shard) if lacking.stored is None else lacking.stored + lacking.runs


@dataclass(frozen=True, slots=True)
class Forecast:
    """The runs of a command, and the packs, memory and time that they take on this machine."""

    runs: Mapping[str, tuple[int, int]]  # all and new ones, by study
    packs: int = 0  # at once
    lanes: int = 0  # of a pack
    bytes: int = 0  # of a pack
    free: int = 0  # bytes of memory
    time: TimeEstimate | None = None  # None: nothing is to be trained


def forecast(
    specs: Mapping[str, StudySpec],
    store: Store | None,
    device: str,
    max_lanes: int | None,
    files: DataFiles,
    points: int | None = None,
    shard: Shard = WHOLE,
) -> Forecast:
    """Load what a command would load, and measure for a few seconds; nothing is stored.

    Raises what the command would raise before it trains.
    """
    lacking = {name: missing(store, name, spec, points, shard) for name, spec in specs.items()}
    counts = {
        name: (_every(spec, points, shard, lacking[name]), lacking[name].runs) for name, spec in specs.items()
    }
    specs = {name: spec for name, spec in specs.items() if lacking[name].runs}
    if not specs or any(spec.command is not None for spec in specs.values()):
        return Forecast(counts)
    from lrwd_sweep.engine.cost import pack_bytes
    from lrwd_sweep.engine.device import free_bytes, threads_kept
    from lrwd_sweep.runner.execution import Execution, estimate
    from lrwd_sweep.runner.study_loop import batch_of

    known, packs = [], []
    with threads_kept():
        for name, spec in specs.items():
            begun = None if store is None else store.find_study(name)
            assert spec.task is not None, "an imported study does not train"
            task = spec.task if begun is None else spec.task.resuming(begun.spec.task)
            execution = Execution(task, device, files, dry=True)
            known.append(replace(spec, task=execution.task))
            slots = len(execution.slots(spec.optimizer))
            room = execution.lanes_at_once(max_lanes, spec.optimizer)
            left = lacking[name].runs
            if points is not None:
                left = min(left, batch_of(room, points, spec) * len(spec.seeds))
            lanes = min(room // slots, math.ceil(left / slots))
            needed = pack_bytes(execution.task, lanes, execution.device, spec.optimizer)
            packs.append((min(slots, math.ceil(left / lanes)), lanes, needed))
        free = free_bytes(execution.device)
        new = [lacking[name].runs for name in specs]
        time = estimate(known, SECONDS, lanes=new, device=device, max_lanes=max_lanes)
    at_once, lanes, needed = (max(column) for column in zip(*packs, strict=True))
    return Forecast(counts, at_once, lanes, needed, free, time)


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
