"""The size of packs: as many lanes as the cache and the free memory have room for."""

from __future__ import annotations

from bisect import bisect_right
from functools import partial

import torch

from lrwd_sweep.engine.device import free_bytes
from lrwd_sweep.engine.memory import pack_bytes
from lrwd_sweep.errors import DeviceError, arg
from lrwd_sweep.nets import is_by_item, network
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task

CPU_LANES = 32  # enough to hide the interpreter
CPU_BYTES = 24 << 20  # of a pack whose lanes train in one program: more would leave the cache
FEW = 4  # lanes, as many as train one after another: more would gain nothing and finish later
MEMORY_SHARE = 0.8  # of what is free
MOST_LANES = 1 << 20  # of a pack, whatever is free


def workers_that_fit(
    task: Task, *, device: torch.device, workers: int, optimizer: Optimizer | None = None
) -> int:
    """Count the workers that have room for a lane each."""
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
    """Count the lanes of the largest pack if `workers` train at a time. Raises DeviceError if none fits."""
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
        remedy = f"free some memory or take a smaller {arg('batch_size')}"
        if task.whole_loss:
            items = max(task.data_set.validation, task.data_set.test)
            why = f"{arg('loss', task.loss)} is no mean over items"
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
