"""The cost of a pack: count its memory in a simple model, and time a few steps on made-up data of its shape.

A pack that needs more memory than was counted raises an out-of-memory error and trains again in halves.
"""

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lrwd_sweep.data import EVAL_BATCH, Split, Splits, load
from lrwd_sweep.engine import device as devices
from lrwd_sweep.engine.device import free_bytes
from lrwd_sweep.engine.graph import current
from lrwd_sweep.engine.lane_state import Arena
from lrwd_sweep.engine.metrics import RECALL_ROWS
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.errors import DeviceError, arg
from lrwd_sweep.nets import network
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.nets.mlp import Mlp
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Network, each, parts, targets
from lrwd_sweep.nets.network import made_up as random_batch
from lrwd_sweep.optim import compiled_on, make_update
from lrwd_sweep.science.lattice import Cell
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

_CELL = Cell(1e-3, 1e-3)
_SMALLEST_BATCH = 2  # for batch normalisation
_GROWTH = 4  # of the batch from one trial to the next
_STEPS = 4  # least cost of a trial in steps: a first one, a timed one, an evaluation
_STEPS_RECORDED = 50  # the same on a GPU: three times nine before the first replay, and the recording
_ITEMS_READ = 32  # to measure how long one takes
_SLICES = 20  # a trial takes this fraction of the time allowed


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
    x, y = random_batch(task.data_set, FEW_ITEMS, torch.Generator())
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
