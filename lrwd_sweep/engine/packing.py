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
from lrwd_sweep.nets import Network, build
from lrwd_sweep.progress import Pack
from lrwd_sweep.spec import Training

CPU_LANES = 16  # enough to hide the interpreter; with more the working set leaves the cache
LOOP_LANES = 4  # of lanes that train one after another: more gain nothing and finish later
MEMORY_SHARE = 0.8  # of what is free


def lane_bytes(training: Training) -> int:
    """Memory that every fp32 lane adds: θ, g, up to three moments and two spare ones; stacked activations."""
    net = _network(training)
    parameters = sum(map(math.prod, net.shapes.values()))
    return 4 * (7 * parameters + (_activations(net, training) if net.stacked else 0))


def pack_bytes(training: Training) -> int:
    """Memory of a pack whatever its lanes: activations, where lanes train one after another."""
    net = _network(training)
    return 0 if net.stacked else 4 * _activations(net, training)


def _network(training: Training) -> Network:
    sizes = training.data_set
    return build(training.net, sizes.shape, sizes.classes)


def _activations(net: Network, training: Training) -> int:
    return net.activations(training.batch_size, EVAL_BATCH)


def lanes_that_fit(training: Training, *, device: torch.device, workers: int, max_lanes: int | None) -> int:
    """The most lanes of a pack when `workers` packs train at a time. Raises DeviceError if none fits."""
    free = free_bytes(device)
    lane, pack = lane_bytes(training), pack_bytes(training)
    room = int((MEMORY_SHARE * free / workers - pack) / lane)
    if room < 1:
        needed = (lane + pack) * workers / MEMORY_SHARE / 2**20
        raise DeviceError(
            f"{device} has {free >> 20} MiB free and {workers} lanes of {training.net} need {needed:.0f}; "
            "free some memory or take a smaller --batch-size"
        )
    limits = [room, max_lanes or room]
    if not _network(training).stacked:
        limits.append(LOOP_LANES)
    elif device.type == "cpu":
        limits.append(CPU_LANES)
    return min(limits)


def plan(todo: Mapping[int, Sequence[Cell]], lanes: int) -> list[Pack]:
    """Every seed's cells in as few packs of at most `lanes` as there can be, of nearly equal size."""
    packs = []
    for seed, cells in todo.items():
        count = math.ceil(len(cells) / lanes)
        bounds = [len(cells) * k // count for k in range(count + 1)]
        packs += [Pack(tuple(cells[low:high]), seed) for low, high in pairwise(bounds)]
    return packs
