"""How much memory a pack takes: its phases are gone through once, and what is alive in each is counted.

That takes no memory and little time: on torch's meta device tensors have shapes and no values. What is no
module and trains on a CPU is so small that it is counted there, without the second of imports that meta
tensors may cost; a module that looks at values is counted there on few images.
"""

from __future__ import annotations

import math
import warnings
import weakref
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lrwd_sweep.data import EVAL_BATCH
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.graph import recorder
from lrwd_sweep.engine.metrics import losses_of
from lrwd_sweep.nets import Loss, ModuleNetwork, is_by_item, loss_of, network
from lrwd_sweep.optim import compiled_on, make_update
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.task import Task

HUNGRIEST = Optimizer.parse("adamp")  # whose steps need the most, by torch's operators
HEAP = 1.08  # of what is counted: gaps between blocks, and scratch that no operator shows
UNSEEN = 1.15  # of passes by vmap, whose rules for operators copy within
MADE = 12  # bytes of a parameter while it is drawn: float32 of the module, and float64
FEW = (16, 32)  # images to count on where values are needed
TRIED = (64, 128, 192)  # items whose loss is counted; of a ranking the memory grows with their square


@dataclass(frozen=True, slots=True)
class Phases:
    """Bytes of a pack: what it holds from beginning to end, and at the peaks of its phases besides."""

    held: float  # parameters, gradients, moments, buffers
    trained: float  # by a gradient
    updated: float  # by an update and its diagnostics
    evaluated: float  # by an evaluated batch

    def beyond(self, other: Phases, steps: float) -> Phases:
        """On the line from the other one, so many times as far as from there to here."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Phases(*(start + steps * (end - start) for end, start in pairs))


def pack_bytes(task: Task, lanes: int, device: torch.device, optimizer: Optimizer | None = None) -> int:
    """Memory of a pack at its peak, with all that its process or device keeps for it.

    Without an optimizer, what any may need.

    The buffers of a network written for lanes, and a GPU's allocator, leave the room of one phase to the
    next; a recording of steps keeps its own. On a CPU a module's passes leave blocks of other sizes than an
    update takes, so that both add up; they have the room in which the parameters were made. How the heap
    breaks up differs from process to process: peaks of modules were 0.76 to 1.31 times this. Not measured on
    a GPU.
    """
    found = _counted(task, lanes, device, optimizer)
    if recorder(task, device) is not None:
        return int(HEAP * (found.held + max(found.trained, found.updated) + found.evaluated))
    if device.type != "cpu" or _is_native(task):
        return int(HEAP * alive_bytes(task, lanes, device, optimizer))
    made = MADE * sum(map(math.prod, network(task).shapes.values()))
    return int(HEAP * (found.held + max(found.trained + found.evaluated, made) + found.updated))


def alive_bytes(task: Task, lanes: int, device: torch.device, optimizer: Optimizer | None = None) -> int:
    """Memory of all tensors of a pack that are alive at a time, at the most."""
    found = _counted(task, lanes, device, optimizer)
    return int(found.held + max(found.trained, found.updated, found.evaluated))


def _is_native(task: Task) -> bool:
    """Whether its lanes train in a program written for them."""
    return network(task).stacked and task.engine != "vmap"


def _counted(task: Task, lanes: int, device: torch.device, optimizer: Optimizer | None) -> Phases:
    """Of so many lanes: on the line through packs of one and of two."""
    place = torch.device(device.type)  # all of a kind are alike
    loops = optimizer is not None and compiled_on(place)
    one, two = _of_one_and_two(task, task.engine, optimizer or HUNGRIEST, place, loops)
    found = two.beyond(one, lanes - 1)
    if _is_native(task) or not network(task).stacked:
        return found
    return replace(found, trained=UNSEEN * found.trained, evaluated=UNSEEN * found.evaluated)


@lru_cache(maxsize=64)
def _of_one_and_two(
    task: Task,
    engine: str,  # which makes no difference where trainings are compared
    optimizer: Optimizer,
    place: torch.device,
    loops: bool,
) -> tuple[Phases, Phases]:
    one, two = (_of_lanes(task, optimizer, place, loops, lanes) for lanes in (1, 2))
    return one, two


def _of_lanes(task: Task, optimizer: Optimizer, place: torch.device, loops: bool, lanes: int) -> Phases:
    found = _by_batches(task, optimizer, place, loops, lanes)
    if not task.whole_loss:
        return found
    sizes, loss = task.data_set, loss_of(network(task))
    count = max(sizes.validation, sizes.test)
    logits = lanes * sizes.classes * count * torch.float32.itemsize
    scored = _loss_bytes(loss, sizes.classes, count)
    return replace(found, evaluated=logits + max(found.evaluated, scored))


def _loss_bytes(loss: Loss, classes: int, count: int) -> float:
    """What a loss of so many items at once needs besides their logits, on the parabola through few items."""
    found: list[float] = []
    for few in TRIED:
        logits, y = torch.zeros(1, classes, few), torch.arange(few) % classes
        with suppress(Exception), _Alive() as alive:
            losses_of(loss, logits, y)
        found.append(alive.peak)
    one, two, three = found
    step = (count - TRIED[0]) / (TRIED[1] - TRIED[0])
    return max(0.0, one + step * (two - one) + step * (step - 1) / 2 * (three - 2 * two + one))


def _by_batches(task: Task, optimizer: Optimizer, place: torch.device, loops: bool, lanes: int) -> Phases:
    """All that a loss which is a mean over items needs."""
    sizes = task.data_set
    largest = max(sizes.validation, sizes.test)
    at_once = min(EVAL_BATCH, largest) if is_by_item(network(task)) else largest
    images = task.batch_size, at_once
    go_through = partial(_gone_through, task, optimizer, loops, lanes)
    if not isinstance(network(task), ModuleNetwork):
        return go_through(images, "cpu" if place.type == "cpu" else "meta")
    with suppress(Exception):
        return go_through(images, "meta")
    try:
        few, more = (go_through((count, count), "cpu") for count in FEW)
    except Exception:  # whoever trains it is told what is wrong
        return Phases(0, 0, 0, 0)
    trained, evaluated = (more.beyond(few, (count - FEW[0]) / (FEW[1] - FEW[0])) for count in images)
    return Phases(trained.held, trained.trained, trained.updated, evaluated.evaluated)


def _gone_through(
    task: Task, optimizer: Optimizer, loops: bool, lanes: int, images: tuple[int, int], device: str
) -> Phases:
    """A step on a batch, and an evaluation of another, as `PackTrainer` takes them."""
    net, place, noise = network(task), torch.device(device), [torch.Generator()] * lanes
    shape = task.data_set.shape
    with warnings.catch_warnings(), _Alive() as alive:
        warnings.simplefilter("ignore")
        zeros = {name: torch.zeros(of_one, device=place) for name, of_one in net.shapes.items()}
        arena = Arena.stack(zeros, lanes, device=place, dtype=torch.float32)
        del zeros
        rates = arena.theta.new_zeros(2, lanes, 1)
        update = make_update(optimizer, task, arena.theta, arena.layout, alpha=rates[0], lam=rates[1])
        pack = net.lanes(arena.named, arena.named_grad, task.batch_size)
        held = alive.now
        alive.take_peak()
        with torch.inference_mode():
            x = _sentences(images[0], shape, place)
            pack.gradient(x, torch.zeros(len(x), dtype=torch.int64, device=place), noise)
            trained = alive.take_peak() - held
            before = arena.theta.clone()  # as the diagnostics do
            if not loops:
                replace(update, loop=None).apply(arena.theta, arena.grad, 1.0, 1, 1)
            del before
            updated = alive.take_peak() - held
            pack.predictor().predict(_sentences(images[1], shape, place))
            evaluated = alive.take_peak() - held
    return Phases(held, trained, updated, evaluated)


def _sentences(count: int, shape: tuple[int, ...], place: torch.device) -> Tensor:
    """Inputs of 0, which every network knows as a token; of one word, as some refuse those of none."""
    x = torch.zeros(count, *shape, device=place)
    x.flatten(1)[:, 0] = 1
    return x


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operators make while it is on, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}  # by address

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: nothing here is compiled, and to skip the compiler torch would import it, a second's work."""
        return False

    def take_peak(self) -> int:
        """The most that was alive since this was last asked."""
        peak, self.peak = self.peak, self.now
        return peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self.seen:
            return

        def freed(_: object) -> None:
            self.now -= size
            del self.seen[address]

        self.seen[address] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)
