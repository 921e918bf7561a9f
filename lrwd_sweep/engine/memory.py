"""Count the memory of a pack in a simple model, and the lanes that fit into free memory.

A pack that needs more than was counted raises an out-of-memory error and trains again in halves.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lrwd_sweep.data import EVAL_BATCH
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.device import free_bytes
from lrwd_sweep.engine.metrics import RECALL_ROWS
from lrwd_sweep.errors import DeviceError, arg
from lrwd_sweep.nets import network
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.nets.mlp import Mlp
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Network, each, made_up, parts, targets
from lrwd_sweep.optim import compiled_on, make_update
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import EMBEDDINGS, FLOAT32
from lrwd_sweep.spec.net_options import complete_options
from lrwd_sweep.spec.task import Task

HEAP = 1.08  # factor for gaps between blocks
FEW_ITEMS = 8  # in the forward pass whose activations are counted
TRIED = (64, 128, 192)  # items of a loss that is not a mean over items
KEPT = {"loop": 1.1, "vmap": 2, "native": 5}  # memory of a step, in activations that autograd keeps
EVALUATED = {"loop": 6, "vmap": 6, "native": 2}  # memory of an evaluation, in its largest activation
NUMBER = 4  # bytes of a float32

CPU_LANES = 32  # enough to hide the interpreter
CPU_BYTES = 24 << 20  # of a pack whose lanes train in one program: more would leave the cache
FEW_LANES = 4  # as many as train one after another: more would only share the reading of streamed items
MEMORY_SHARE = 0.8  # of free memory
MOST_LANES = 1 << 20  # of a pack


def pack_bytes(task: Task, lanes: int, device: torch.device, optimizer: Optimizer | None = None) -> int:
    """Count the bytes of a pack at its peak; without an optimizer, as for the one that needs the most.

    That is parameters, gradients, moments, a copy for the diagnostics, and up to three more by torch's
    operators; activations of every lane, or of one if lanes train one after another; and batches of data.
    """
    net, one = network(task), replace(task, engine="loop")
    compiled = compiled_on(device)
    copies = 3 + (_moments(optimizer, task) if optimizer else 3) + (0 if compiled else 3)
    copies += task.accumulate > 1  # the sum of its gradients
    copies += bool(task.sam) + bool(task.kinds)  # θ meanwhile
    copies += (task.swa is not None) + (task.ema is not None) + (task.ensemble or 0)
    parameters = NUMBER * copies * sum(map(math.prod, net.shapes.values()))
    in_numba = compiled and isinstance(net, Mlp) and task.precision == FLOAT32
    kept, largest = _of_perceptron(net) if in_numba else _activations(one, task.precision)
    if task.damping is not None and isinstance(
        net, ModuleNetwork
    ):  # factors, averages, inverses and two more
        parameters += NUMBER * 5 * sum(n**2 for layer in net.factored for n in layer.sizes)
    engine = "loop" if in_numba or not net.stacked else "vmap" if task.engine == "vmap" else "native"
    held_out = max(task.data_set.validation, task.data_set.test)
    evaluated = min(task.eval_batch_size or EVAL_BATCH, held_out) if net.by_item else held_out
    activations = KEPT[engine] * task.batch_size * kept + evaluated * min(kept, EVALUATED[engine] * largest)
    together = lanes if engine != "loop" else 1
    data = (
        NUMBER
        * (task.items_per_step + evaluated)
        * sum(math.prod(i.shape) for i in task.data_set.every_input)
    )
    kept_outputs = lanes * NUMBER * math.prod(net.output) * held_out
    whole = kept_outputs + _loss_bytes(one) if task.whole_loss else kept_outputs * bool(task.measure)
    if task.net in EMBEDDINGS:
        numbers = complete_options(task.net, task.net_options)["embedding"]
        whole += NUMBER * held_out * (lanes * numbers + 3 * RECALL_ROWS)
    return int(HEAP * (lanes * parameters + together * activations + data + whole))


def _of_perceptron(net: Network) -> tuple[float, float]:
    """Count as `_activations` does, without training: sums, outputs and gradients of every layer."""
    outputs = [shape[0] for shape in net.shapes.values() if len(shape) == 2]
    return 3.0 * NUMBER * sum(outputs), float(NUMBER * max(outputs))


def _moments(optimizer: Optimizer, task: Task) -> int:
    """Count an optimizer's tensors with the size of the parameters."""
    one = torch.zeros(1, 1)
    return len(make_update(optimizer, task, one, (), alpha=one, lam=one).family.moments())


@lru_cache(maxsize=64)
def _activations(task: Task, precision: str) -> tuple[float, float]:
    """Count the bytes per item of one lane's activations, and of the largest of them.

    Known modules run without values on the meta device.
    """
    net = network(task)
    place = torch.device("meta" if isinstance(net, ModuleNetwork) and not net.way.user_code else "cpu")
    zeros = {name: torch.zeros(shape, device=place) for name, shape in net.shapes.items()}
    arena = Arena.stack(zeros, 1, device=place, dtype=torch.float32)
    lanes = net.lanes(arena.named, arena.named_grad, FEW_ITEMS)
    assert isinstance(lanes, LoopLanes)
    x, y = made_up(task.data_set, FEW_ITEMS, torch.Generator())
    x, y = each(lambda one: one.to(place), x), y.to(place)
    found = _kept_by_autograd(lambda: lanes.gradient(x, y, [torch.Generator()]))
    for value in (part for module in lanes.modules for part in (*module.parameters(), *module.buffers())):
        found.pop(value.untyped_storage()._cdata, None)
    kept, largest = sum(found.values()) - sum(one.nbytes for one in parts(x)), max(found.values(), default=0)
    return max(0, kept) / FEW_ITEMS, largest / FEW_ITEMS


def _kept_by_autograd(work: Callable[[], object]) -> dict[int, int]:
    """Return the bytes by storage of what a backward pass needs; user code may raise, as training reports."""
    found: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        found[value.untyped_storage()._cdata] = value.untyped_storage().nbytes()
        return value

    with suppress(Exception), saved_tensors_hooks(keep, lambda value: value):
        work()
    return found


@lru_cache(maxsize=64)
def _loss_bytes(task: Task) -> float:
    """Count the bytes of a whole split's loss besides its logits, on the parabola through few items."""
    net = network(task)
    found = []
    for few in TRIED:
        logits = torch.zeros(few, *net.output, requires_grad=True)
        y = targets(task.data_set, few, torch.Generator())
        found.append(sum(_kept_by_autograd(partial(net.way.loss, logits * 1, y)).values()))
    one, two, three = found
    count = max(task.data_set.validation, task.data_set.test)
    step = (count - TRIED[0]) / (TRIED[1] - TRIED[0])
    return 2.0 * max(0, one + step * (two - one) + step * (step - 1) / 2 * (three - 2 * two + one))


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
        limits.append(
            CPU_LANES if task.stream else FEW_LANES
        )  # lanes of a pack share the items that are read
    needed = partial(pack_bytes, task, device=device, optimizer=optimizer)
    if device.type == "cpu" and network(task).stacked:
        limits.append(max(FEW_LANES, bisect_right(range(1, CPU_LANES + 1), CPU_BYTES, key=needed)))
    room = bisect_right(range(1, min(limits) + 1), share, key=needed)
    if room < 1:
        least = needed(1) * workers / MEMORY_SHARE / 2**20
        need = "a lane of {} needs" if workers == 1 else f"{workers} lanes of {{}} need"
        remedy = f"free some memory or take a smaller {arg('batch_size')}"
        if task.whole_loss:
            items = max(task.data_set.validation, task.data_set.test)
            why = f"{arg('loss', task.loss)} is not a mean over items"
            way_out = "give a loss that is a mean over items"
            if not network(task).by_item:
                why = f"in evaluation {task.net} makes an item's logits depend on its batch"
                way_out = "let its normalisation keep running statistics"
            remedy = (
                f"{why}, so that {items} are scored at once: free some memory, hold fewer out, or {way_out}"
            )
        raise DeviceError(
            f"{device} has {free >> 20} MiB free and {need.format(task.net)} {least:.0f}; {remedy}"
        )
    return room
