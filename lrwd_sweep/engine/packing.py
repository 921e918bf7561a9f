"""Packing: which lanes train together, sized to the cache and to the memory that is free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from lrwd_sweep.engine.device import free_bytes
from lrwd_sweep.engine.trainer import EVAL_BATCH
from lrwd_sweep.errors import DeviceError
from lrwd_sweep.lattice import Cell
from lrwd_sweep.nets import build
from lrwd_sweep.progress import Pack
from lrwd_sweep.spec import Training

CPU_LANES = 16  # enough to hide the interpreter; with more the working set leaves the cache
MEMORY_SHARE = 0.8  # of what is free


def lane_bytes(training: Training) -> int:
    """Memory of one fp32 lane at its peak: θ, g, two moments, a gradient and a spare, and the activations."""
    sizes = training.data_set
    net = build(training.net, sizes.shape, sizes.classes)
    parameters = sum(map(math.prod, net.shapes.values()))
    return 4 * (6 * parameters + net.activations(training.batch_size, EVAL_BATCH))


def lanes_that_fit(training: Training, *, device: torch.device, workers: int, max_lanes: int | None) -> int:
    """The most lanes of a pack when `workers` packs train at a time. Raises DeviceError if none fits."""
    free = free_bytes(device)
    room = int(MEMORY_SHARE * free / lane_bytes(training) / workers)
    if room < 1:
        needed = lane_bytes(training) * workers / MEMORY_SHARE / 2**20
        raise DeviceError(
            f"{device} has {free >> 20} MiB free and {workers} lanes need {needed:.0f}; free some memory"
        )
    limits = [room, CPU_LANES if device.type == "cpu" else room, max_lanes or room]
    return min(limits)


def plan(todo: Mapping[int, Sequence[Cell]], lanes: int) -> list[Pack]:
    """Every seed's cells in as few packs of at most `lanes` as there can be, of nearly equal size."""
    packs = []
    for seed, cells in todo.items():
        count = math.ceil(len(cells) / lanes)
        bounds = [len(cells) * k // count for k in range(count + 1)]
        packs += [Pack(tuple(cells[low:high]), seed) for low, high in pairwise(bounds)]
    return packs
