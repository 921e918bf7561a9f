"""Packing: which lanes train together, sized to the cache and to the memory that is free."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import pairwise

import torch

from lrwd_sweep.engine.device import free_bytes
from lrwd_sweep.engine.memory import pack_bytes
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.nets import is_by_item, network
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.job import Pack
from lrwd_sweep.spec.task import Task

CPU_LANES = 32  # enough to hide the interpreter
CPU_BYTES = 24 << 20  # of a pack whose lanes train in one program: more would leave the cache
FEW = 4  # lanes, as many as train one after another: more would gain nothing and finish later
_PACK = 2  # what a pack costs besides its lanes, in lanes: the interpreter's share of its steps
MEMORY_SHARE = 0.8  # of what is free
MOST_LANES = 1 << 20  # of a pack, whatever is free


def workers_that_fit(
    task: Task, *, device: torch.device, workers: int, optimizer: Optimizer | None = None
) -> int:
    """How many of the workers have room for a lane each."""
    needed = max(1, pack_bytes(task, 1, device, optimizer))
    return min(workers, int(MEMORY_SHARE * free_bytes(device) / needed))


def lanes_that_fit(
    task: Task,
    *,
    device: torch.device,
    workers: int,
    max_lanes: int | None,
    optimizer: Optimizer | None = None,
) -> int:
    """The most lanes of a pack when `workers` packs train at a time. Raises DeviceError if none fits."""
    free = free_bytes(device)
    share = MEMORY_SHARE * free / workers
    limits = [max_lanes or MOST_LANES]
    if not network(task).stacked:
        limits.append(FEW)
    needed = partial(pack_bytes, task, device=device, optimizer=optimizer)
    if device.type == "cpu" and network(task).stacked:
        limits.append(max(FEW, bisect_right(range(1, CPU_LANES + 1), CPU_BYTES, key=needed)))
    room = bisect_right(range(1, min(limits) + 1), share, key=needed)
    if room < 1:
        least = needed(1) * workers / MEMORY_SHARE / 2**20
        need = "a lane of {} needs" if workers == 1 else f"{workers} lanes of {{}} need"
        remedy = "free some memory or take a smaller --batch-size"
        if task.whole_loss:
            items = max(task.data_set.validation, task.data_set.test)
            why = f"--loss {task.loss} is no mean over items"
            way_out = "give a loss that is a mean over items"
            if not is_by_item(network(task)):
                why = f"in evaluation {task.net} makes an item's logits depend on its batch"
                way_out = "let its normalisation keep running statistics"
            remedy = (
                f"{why}, so that {items} are scored at once: free some memory, hold fewer out, or {way_out}"
            )
        raise DeviceError(
            f"{device} has {free >> 20} MiB free and {need.format(task.net)} {least:.0f}; {remedy}"
        )
    return room


def plan(todo: Mapping[int, Sequence[Cell]], lanes: int, workers: int = 1) -> list[Pack]:
    """Every seed's cells in as few packs of at most `lanes` as there can be, the largest first.

    A few of them are halved where some workers would wait for others that have a whole pack to do.
    """
    packs = _packs(todo, lanes)
    plans = [_halved(packs, count) for count in range(min(workers, len(packs)) + 1)]
    return min(plans, key=lambda plan: _time(plan, workers))


def _packs(todo: Mapping[int, Sequence[Cell]], lanes: int) -> list[Pack]:
    """Of nearly equal size, seed by seed."""
    packs = []
    for seed, cells in todo.items():
        count = math.ceil(len(cells) / lanes)
        bounds = [len(cells) * k // count for k in range(count + 1)]
        packs += [Pack(tuple(cells[low:high]), seed) for low, high in pairwise(bounds)]
    return packs


def _halved(packs: Sequence[Pack], count: int) -> list[Pack]:
    """The last `count` packs in two halves each; the largest first."""
    whole, halved = packs[: len(packs) - count], packs[len(packs) - count :]
    halves = [
        Pack(part, pack.seed)
        for pack in halved
        for part in (pack.cells[: len(pack.cells) // 2], pack.cells[len(pack.cells) // 2 :])
        if part
    ]
    return sorted([*whole, *halves], key=lambda pack: -len(pack.cells))


def _time(packs: Sequence[Pack], workers: int) -> int:
    """Of the busiest worker, in lanes, each taking the next pack when it is free."""
    loads = [0] * workers
    for pack in packs:
        heappush(loads, heappop(loads) + len(pack.cells) + _PACK)
    return max(loads)
