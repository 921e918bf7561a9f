"""The measurements, each in its own process: a contender's rate, the floor, scaling, bookkeeping."""

import json
import math
import pickle
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lrwd_sweep.data import EVAL_BATCH
from lrwd_sweep.engine.device import cores
from lrwd_sweep.engine.graph import current
from lrwd_sweep.errors import LrwdError
from lrwd_sweep.lab.bench import ENGINE, FLOOR, Measurement
from lrwd_sweep.lab.bench.contenders import BASELINES, Curves, Lane, Train, Work, module, pick_lanes, recorded
from lrwd_sweep.nets import network
from lrwd_sweep.nets.mlp import MlpModule
from lrwd_sweep.nets.network import compute_type
from lrwd_sweep.runner.execution import Execution
from lrwd_sweep.runner.sampler import grid_cells
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Trial, unfinished
from lrwd_sweep.spec.job import PackDone
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from lrwd_sweep.store import Store, open_store

ADAMW = Optimizer.parse("adamw:lr-scaled")  # torch.optim.AdamW
SECONDS = 1.0  # that the floor is measured for
STACK = {"cpu": 16, "cuda": 128}  # lanes in one bmm if the engine stacks the network, else one

Product = tuple[int, int, int]  # M, K, N: matrices (M, K) and (K, N)


@contextmanager
def engine(task: Task, device: torch.device, optimizer: Optimizer = ADAMW) -> Iterator[Train]:
    """Train lanes as a new study as `grid` does: packs on every core, trials into an SQLite store."""
    names, opened = map("study-{}".format, count()), cache(lambda asked: Execution(asked, str(device)))
    with _new_store() as store:

        def train(asked: Task, lanes: Sequence[Lane]) -> Curves:
            name, seeds = next(names), tuple(sorted({seed for _, seed in lanes}))
            lattice = Lattice(*zip(*((cell.lr, cell.weight_decay) for cell, _ in lanes), strict=True))
            store.begin_study(name, StudySpec(Kind.GRID, optimizer, lattice, seeds, "val_loss", asked))
            todo, curves = {seed: [cell for cell, own in lanes if own == seed] for seed in seeds}, Curves()
            for trials in _trained(opened(asked), todo, optimizer):
                store.add_trials(name, trials)
                for trial in trials:
                    losses = trial.curves["val_loss"]
                    curves[trial.cell, trial.seed] = [*losses, trial.metrics.get("test_loss", math.nan)]
            return curves

        yield train


def contender(asked: Measurement) -> dict[str, Any]:
    """Measure lane-steps per second, after a warm-up of one epoch of the same.

    On a CPU those in one process get one thread or all, the faster for an epoch: small networks gain nothing
    from a second thread, and on a busy machine they lose by it.
    """
    task, short, device = asked.task, asked.task.changed(epochs=1), torch.device(asked.device)
    lanes = pick_lanes(asked.lattice, *asked.lanes)
    own = partial(engine, optimizer=Optimizer.parse(asked.optimizer))
    with current(device), BASELINES.get(asked.name, own)(task, device) as train:
        if device.type == "cpu" and asked.name not in {ENGINE, "processes"}:
            found = {}
            for threads in (torch.get_num_threads(), 1):
                torch.set_num_threads(threads)
                train(short, lanes)
                found[_seconds(train, short, lanes)] = threads
            torch.set_num_threads(found[min(found)])
        train(short, lanes)
        return {"rate": len(lanes) * task.steps / _seconds(train, task, lanes)}


def _seconds(train: Train, task: Task, lanes: Sequence[Lane]) -> float:
    began = time.perf_counter()
    train(task, lanes)
    return time.perf_counter() - began


def scaling(asked: Measurement) -> dict[str, Any]:
    """Time every number of lanes, in random order after a warm-up, and count the lanes that train at once."""
    seconds = {}
    with engine(asked.task, torch.device(asked.device)) as train:
        train(asked.task, pick_lanes(asked.lattice, cores()))
        for number in random.sample(asked.lanes, len(asked.lanes)):
            seconds[number] = _seconds(train, asked.task, pick_lanes(asked.lattice, number))
    at_once = Execution(asked.task, asked.device).lanes_at_once()
    return {"seconds": [seconds[number] for number in asked.lanes], "at_once": at_once}


def bookkeeping(asked: Measurement) -> dict[str, Any]:
    """Time sampler and store for a square lattice of at most so many lanes; all get one trained trial."""
    execution, axis = Execution(asked.task, "cpu"), tuple(np.geomspace(1e-4, 1, math.isqrt(asked.lanes[0])))
    lattice = Lattice(axis, axis)
    ((trial,),) = _trained(execution, {0: [next(asked.lattice.cells())]})
    with _new_store() as store:
        began = time.perf_counter()
        cells = grid_cells(lattice)
        sampled = time.perf_counter()
        store.begin_study("bench", StudySpec(Kind.GRID, ADAMW, lattice, (0,), "val_loss", asked.task))
        packs = execution.plan(unfinished(cells, (0,), store.finished("bench")))
        planned = time.perf_counter()
        trials = [[replace(trial, cell=cell) for cell in pack.cells] for pack in packs]
        made = time.perf_counter()  # which is not part of the bookkeeping
        for each in trials:
            store.add_trials("bench", each)
        stored = time.perf_counter() - made + planned - sampled
    return {"lanes": len(cells), "sampler": sampled - began, "store": stored}


def _trained(
    execution: Execution, todo: Mapping[int, Sequence[Cell]], optimizer: Optimizer = ADAMW
) -> Iterator[Sequence[Trial]]:
    """Train cells by seed, and yield the trials of one pack after another."""
    for event in execution.train(optimizer, execution.plan(todo, optimizer=optimizer)):
        if isinstance(event, PackDone):
            yield event.trials


@contextmanager
def _new_store() -> Iterator[Store]:
    with TemporaryDirectory() as folder, open_store(str(Path(folder) / "bench.db"), write=True) as store:
        yield store


def floor(asked: Measurement) -> dict[str, Any]:
    """Measure lane-steps per second of the matrix products only, a thread per core.

    Count the operations per lane-step, and those for validation.
    """
    task, device = asked.task, torch.device(asked.device)
    like = torch.empty(0, device=device, dtype=compute_type(task.precision, torch.zeros(0)))
    stack = STACK[device.type] if network(task).stacked else 1
    threads, steps = cores() if device.type == "cpu" else 1, task.steps_per_epoch
    step, validation = epoch(task)

    def epochs_per_second(_: int) -> float:
        with current(device):
            take_step, validate = (_program(part, stack, like) for part in (step, validation))
        done, began = -1, 0.0
        while done < 1 or time.perf_counter() - began < SECONDS:
            for _ in range(steps):
                take_step()
            validate()
            if like.is_cuda:
                torch.cuda.synchronize(device)
            done += 1
            if not done:  # the first epoch was a warm-up
                began = time.perf_counter()
        return done / (time.perf_counter() - began)

    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads) as pool:
        rate = stack * steps * sum(pool.map(epochs_per_second, range(threads)))
    of_validation = flop(validation) / steps
    return {"rate": rate, "flop": flop(step) + of_validation, "validation": of_validation}


def epoch(task: Task) -> tuple[list[Product], list[Product]]:
    """List the products of one lane's step, in which the data has no gradient, and of its validation."""
    net, sizes = module(task).to("meta"), task.data_set
    forward = products(net, torch.empty(task.batch_size, *sizes.shape, device="meta"))
    of_left, of_right = [(m, n, k) for m, k, n in forward], [(k, m, n) for m, k, n in forward[1:]]
    validation = torch.empty(sizes.validation, *sizes.shape, device="meta").split(EVAL_BATCH)  # type: ignore[no-untyped-call]
    return forward + of_left + of_right, [product for x in validation for product in products(net, x)]


def products(net: nn.Module, x: Tensor) -> list[Product]:
    """List W h of every linear and convolutional layer on x; a convolution's N is images × pixels."""
    if isinstance(net, MlpModule):  # without layers
        return [(*weight.shape, len(x)) for weight in net.parameters() if weight.dim() == 2]
    found: list[Product] = []

    def note(layer: nn.Module, _: object, out: Tensor) -> None:
        weight, groups = layer.weight, getattr(layer, "groups", 1)
        assert isinstance(weight, Tensor)
        rows = len(weight)
        found.append((rows // groups, weight[0].numel(), groups * out.numel() // rows))

    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return found


def flop(chosen: Sequence[Product]) -> int:
    """Count a multiplication and an addition per term, for one lane."""
    return 2 * sum(map(math.prod, chosen))


def _program(chosen: Sequence[Product], stack: int, like: Tensor) -> Work:
    """Return a function that carries the products out in turn, in the same memory: it stays in cache."""
    sizes = [[(m, k), (k, n), (m, n)] for m, k, n in chosen]
    flat = [like.new_ones(stack * max(map(math.prod, shapes))) for shapes in zip(*sizes, strict=True)]
    pairs = [zip(flat, shapes, strict=True) for shapes in sizes]
    views = [[x[: stack * m * n].view(stack, m, n) for x, (m, n) in each] for each in pairs]

    @torch.inference_mode()
    def run() -> None:
        for a, b, c in views:
            torch.bmm(a, b, out=c)

    return recorded(run, like.device)


def main() -> None:
    """Carry out the pickled measurement of `Measurement.in_process` and print its result as JSON."""
    sys.path[:], asked = pickle.loads(bytes.fromhex(sys.argv[2]))  # user code is found as in the parent
    others = {FLOOR: floor, "scaling": scaling, "bookkeeping": bookkeeping}
    try:
        print(json.dumps(others.get(asked.name, contender)(asked)))  # noqa: T201 - for the parent process
    except LrwdError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
