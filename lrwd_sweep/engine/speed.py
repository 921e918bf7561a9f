"""Measure how fast this machine trains a task: a few steps on made-up data of the right shape."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from lrwd_sweep.data import EVAL_BATCH, Split, Splits, load
from lrwd_sweep.engine import device as devices
from lrwd_sweep.engine.graph import current
from lrwd_sweep.engine.memory import lanes_that_fit, workers_that_fit
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.nets.network import made_up as random_batch
from lrwd_sweep.nets.network import parts
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task

_CELL = Cell(1e-3, 1e-3)
_SMALLEST_BATCH = 2  # for batch normalisation
_GROWTH = 4  # of the batch from one trial to the next
_STEPS = 4  # least cost of a trial in steps: a first one, a timed one, an evaluation
_STEPS_RECORDED = 50  # the same on a GPU: three times nine before the first replay, and the recording
_ITEMS_READ = 32  # to measure how long one takes
_SLICES = 20  # a trial takes this fraction of the time allowed


@dataclass(frozen=True, slots=True)
class Speed:
    """Training costs while every worker of the device trains."""

    step: float  # seconds per lane and step
    sample: float  # seconds per lane and sample evaluated
    whole: bool  # measured on whole packs, one per worker; else extrapolated from a smaller pack

    def seconds(self, task: Task) -> float:
        """Return the seconds of one lane from its first step to its last evaluation."""
        sizes, snapshots = task.data_set, len(task.timetable.snapshots) or 1
        evaluated = (1 + len(task.evaluations)) * sizes.validation + snapshots * sizes.test  # 1: at first
        steps = task.steps
        for first in [*task.swa_epochs[:1], *[1] * (task.ema is not None)]:  # as many batches for statistics
            times = sum(epoch >= first for epoch in task.evaluations)
            evaluated += times * sizes.validation + snapshots * sizes.test
            steps += (times + snapshots) * sizes.train // task.batch_size
        evaluated += (task.ensemble or 0) * snapshots * (sizes.validation + sizes.test)
        return steps * self.step + evaluated * self.sample


def measure(
    optimizer: Optimizer,
    task: Task,
    lanes: int,
    seconds: float,
    device: str = "auto",
    max_lanes: int | None = None,
    packs: int | None = None,  # at a time; None: as many as the device has room for
) -> Speed:
    """Time larger and larger packs, up to those that would train `lanes` lanes, until time is up.

    Takes about `seconds`, or as long as one lane's step on a few samples. Raises DeviceError if no lane fits.
    """
    place = devices.choose(device)
    cores = devices.prepare(place)
    workers = packs or workers_that_fit(task, device=place, workers=cores, optimizer=optimizer) or 1
    room = lanes_that_fit(task, device=place, workers=workers, max_lanes=max_lanes, optimizer=optimizer)
    most = min(room, math.ceil(lanes / workers))
    steps = _STEPS if place.type == "cpu" else _STEPS_RECORDED
    ends = time.perf_counter() + seconds
    found: Speed | None = None
    for count, batch in _sizes(most, task.batch_size):
        share = count * batch / task.batch_size  # in steps of one lane
        if found is not None and time.perf_counter() + steps * workers * share * found.step > ends:
            break
        smaller, whole = task.changed(batch_size=batch), (count, batch) == (most, task.batch_size)
        crew = workers if whole else 1
        try:
            step, sample = timed(optimizer, smaller, count, seconds / _SLICES, place, crew)
        except (MemoryError, RuntimeError) as error:
            if found is not None and devices.is_out_of_memory(error):
                break  # another process took the room
            raise
        found = Speed(step / share / workers, sample / count / workers, whole)
    assert found is not None, "there is a smallest size"
    if not task.stream:
        return found
    item = _reading_time(task) / (most * workers)  # the lanes of a pack share what is read
    return replace(found, step=found.step + item * task.items_per_step, sample=found.sample + item)


def _reading_time(task: Task) -> float:
    """Measure the seconds in which an item is read."""
    train = load(task.data, task.data_set, standardize=task.standardize, stream=True).train
    index = torch.arange(min(_ITEMS_READ, len(train)))
    began = time.perf_counter()
    train.batch(index)
    return (time.perf_counter() - began) / len(index)


def _sizes(most: int, batch: int) -> Iterator[tuple[int, int]]:
    """Yield lanes and batch of every trial, from one lane on a few samples to whole packs."""
    few = min(_SMALLEST_BATCH, batch)
    while few < batch:
        yield 1, few
        few *= _GROWTH
    if most > 1:
        yield 1, batch
    yield most, batch


def timed(
    optimizer: Optimizer, task: Task, lanes: int, seconds: float, place: torch.device, workers: int
) -> tuple[float, float]:
    """Measure the seconds of a pack's step and evaluated sample while `workers` train one pack each."""

    def work(seed: int) -> tuple[float, float]:
        devices.prepare_thread(place)
        splits = made_up(task, place)
        pack = PackTrainer(optimizer, task, [_CELL] * lanes, seed, splits)
        with current(place):
            step = (_on_host if pack.on_host else _on_device)(pack, seconds)
            began = time.perf_counter()
            pack.evaluate(splits.validation).sum().item()
        return step, (time.perf_counter() - began) / len(splits.validation)

    with ThreadPoolExecutor(workers) as threads:
        times = list(threads.map(work, range(workers)))
    step, sample = (sum(column) / workers for column in zip(*times, strict=True))
    return step, sample


def _on_host(pack: PackTrainer, seconds: float) -> float:
    """Measure the seconds of a step on a CPU."""
    ((x, y),) = pack.splits.train.batches(len(pack.splits.train))
    pack.step(x, y, 0)  # buffers are made
    began, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - began < seconds:
        pack.step(x, y, steps % pack.task.steps)
        steps += 1
    return (time.perf_counter() - began) / steps


def _on_device(pack: PackTrainer, seconds: float) -> float:
    """Measure the seconds of a step of a program, recorded as in training."""
    task, x = pack.task, pack.splits.train.x
    order = torch.arange(len(x), device=x.device).repeat(task.steps_per_epoch)

    def advance() -> int:
        if program.done == task.steps_per_epoch:
            program.begin(order)
            program.t.zero_()  # the run may be shorter than the time
        before = program.done
        program.go(task.steps_per_epoch)
        program.total.sum().item()  # waits
        return program.done - before

    try:
        program = pack.prepared(order)
        advance()  # chooses kernels
        began, steps = time.perf_counter(), 0
        while not steps or time.perf_counter() - began < seconds:
            steps += advance()
        return (time.perf_counter() - began) / steps
    finally:
        pack.program = None  # a reference cycle, which would keep the memory


def made_up(task: Task, place: torch.device) -> Splits:
    """Make one batch to train on, and two to evaluate, but not more than is evaluated at a time."""
    sizes, stream = task.data_set, torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        x, *more = parts((made := random_batch(sizes, count, stream))[0])
        return Split(x, made[1], more=tuple(more)).to(place, torch.float32)

    evaluated = split(min(EVAL_BATCH, 2 * task.batch_size))
    return Splits(split(task.items_per_step), evaluated, evaluated)
